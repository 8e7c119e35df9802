"""Arguments that a forward never reads: numbers of layers that a model passes to every one."""

from __future__ import annotations

import dis
import functools
from types import FunctionType
from typing import Any

from torch import nn

from graphflops.capture.layer_reuse.attribute_log import Arguments
from graphflops.capture.layer_reuse.module_dict import module_dict
from graphflops.capture.transformers_compat import CHECKPOINTING_FILE

_READS_ALL = frozenset({"locals", "vars", "eval", "exec", "dir"})


def without_unread_integers(module: nn.Module, arguments: Arguments) -> Arguments:
    """Return the arguments of a module's call with ``None`` for integers that nothing reads.

    Calls that differ in nothing else do the same work. A forward in a wrapper, other than that
    of transformers' layers, is taken to read all.
    """
    args, kwargs = arguments
    forward = type(module).forward
    is_own = "forward" in module_dict(module)
    if (
        is_own
        or type(forward) is not FunctionType
        or type(module).__call__ is not nn.Module.__call__
    ):
        return arguments
    names, unread = _parameters(forward)
    if not unread:
        return arguments
    positional = tuple(
        None if type(value) is int and name in unread else value
        for name, value in zip(names, args, strict=False)
    )
    return (
        (*positional, *args[len(names) :]),
        {n: None if type(value) is int and n in unread else value for n, value in kwargs.items()},
    )


@functools.cache
def _parameters(function: FunctionType) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the names of positional parameters after the first, and of those never read."""
    while function.__code__.co_filename.endswith(CHECKPOINTING_FILE):
        function = function.__wrapped__  # type: ignore[attr-defined]  # of functools.wraps
    code = function.__code__
    names = code.co_varnames[1 : code.co_argcount]
    if hasattr(function, "__wrapped__") or _READS_ALL & {*code.co_names}:
        return names, frozenset()
    used: set[Any] = {*code.co_cellvars}
    for instruction in dis.get_instructions(code):
        if instruction.opcode in dis.haslocal or instruction.opcode in dis.hasfree:
            value = instruction.argval
            used.update(value if isinstance(value, tuple) else (value,))
    keywords = code.co_varnames[code.co_argcount :][: code.co_kwonlyargcount]
    return names, frozenset({*names, *keywords} - used)
