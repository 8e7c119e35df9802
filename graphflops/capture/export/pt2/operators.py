"""Functions that a saved graph may call: operators, and arithmetic on sizes."""

from __future__ import annotations

import math
import operator
import re
from functools import cache
from types import BuiltinFunctionType, FunctionType

import torch

from graphflops.capture.export.pt2.errors import UnreadableError, shown
from graphflops.capture.torch_internals.operators import (
    HigherOrderNamespace,
    HigherOrderOperator,
    OpNamespace,
    OpOverload,
    OpOverloadPacket,
    predispatch,
)

_SPACES = (OpNamespace, HigherOrderNamespace)
_OPERATOR = re.compile(r"torch\.ops\.(?P<library>\w+)\.(?P<name>\w+)(\.(?P<overload>\w+))?")
_PLAIN = re.compile(r"(?P<module>[\w.]+)\.(?P<name>\w+)")

# Sizes are computed with these; all others of the module, like ``call``, do more than that.
_ARITHMETIC = {
    *("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "pos", "abs", "index"),
    *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "xor", "not_", "lshift", "rshift"),
    "getitem",
}
_OF_TORCH = {name for name in dir(torch) if name.startswith(("sym_", "_sym_"))}
_PYTHON = {
    "_operator": (operator, _ARITHMETIC),
    "math": (math, set(dir(math))),
    "torch": (torch, _OF_TORCH),
    # What torch.vmap and torch.func.jvp leave in a graph.
    "torch._functorch.predispatch": (predispatch, set(dir(predispatch))),
}


@cache
def known_operator(target: str) -> str:
    """The name of a function, if it is one that a graph may call; nothing is called here.

    Raises:
        UnreadableError: It is any other function, or an operator of a library that is not
            there.

    Example:
        >>> known_operator("torch.ops.aten.relu.default")
        'torch.ops.aten.relu.default'
    """
    found = _OPERATOR.fullmatch(target)
    if found is not None:
        return _operator(target, **found.groupdict())
    plain = _PLAIN.fullmatch(target)
    module, names = _PYTHON.get(plain["module"], (None, set())) if plain else (None, set())
    if plain and plain["name"] in names:
        function = getattr(module, plain["name"])
        # Of a module's functions those that are its own: it imports others.
        if isinstance(function, BuiltinFunctionType | FunctionType) and function.__module__ in {
            plain["module"],
            "math",
        }:
            return target
    if target.startswith("#"):
        raise UnreadableError(
            f"calls {shown(target)}, an operator of an extension of torch.export",
            "Count the program from before it was lowered.",
        )
    raise UnreadableError(
        f"calls {shown(target)}, which is no operator of PyTorch", "Do not load this file."
    )


def _operator(target: str, library: str, name: str, overload: str | None) -> str:
    space = getattr(torch.ops, library, None)
    packet = getattr(space, name, None) if isinstance(space, _SPACES) else None
    if isinstance(packet, OpOverloadPacket):
        packet = getattr(packet, overload or "", None)
    # Higher-order operators have no overloads.
    kind = OpOverload if overload else HigherOrderOperator
    if isinstance(packet, kind):
        return target
    called = ".".join(filter(None, (f"{library}::{name}", overload)))
    raise UnreadableError(
        f"calls the operator {called}, which is not registered in this process",
        "Import the library that defines it before the count, or update PyTorch.",
    )
