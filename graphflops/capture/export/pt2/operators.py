"""Functions that a saved graph may call: operators, and arithmetic on sizes."""

from __future__ import annotations

import math
import operator
import re
from functools import cache
from types import BuiltinFunctionType, FunctionType

import torch

from graphflops.capture.export.pt2.errors import UnreadableError, quote
from graphflops.capture.torch_internals.operators import (
    HigherOrderNamespace,
    HigherOrderOperator,
    OpNamespace,
    OpOverload,
    OpOverloadPacket,
    predispatch,
)

_NAMESPACES = (OpNamespace, HigherOrderNamespace)
_OPERATOR = re.compile(r"torch\.ops\.(?P<library>\w+)\.(?P<name>\w+)(\.(?P<overload>\w+))?")
_FUNCTION = re.compile(r"(?P<module>[\w.]+)\.(?P<name>\w+)")

# Functions for arithmetic on sizes; other functions of the module, such as ``call``, are not safe.
_ARITHMETIC = {
    *("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "pos", "abs", "index"),
    *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "xor", "not_", "lshift", "rshift"),
    "getitem",
}
_SYMBOLIC = {name for name in dir(torch) if name.startswith(("sym_", "_sym_"))}
_PYTHON = {
    "_operator": (operator, _ARITHMETIC),
    "math": (math, set(dir(math))),
    "torch": (torch, _SYMBOLIC),
    # Functions that torch.vmap and torch.func.jvp leave in a graph.
    "torch._functorch.predispatch": (predispatch, set(dir(predispatch))),
}


@cache
def check_operator(target: str) -> str:
    """Return the name of a function that a graph may call, without calling it.

    Raises:
        UnreadableError: It is any other function, or an operator of a library that is not
            loaded.

    Example:
        >>> check_operator("torch.ops.aten.relu.default")
        'torch.ops.aten.relu.default'
    """
    match = _OPERATOR.fullmatch(target)
    if match is not None:
        return _check_registered(target, **match.groupdict())
    match = _FUNCTION.fullmatch(target)
    module, names = _PYTHON.get(match["module"], (None, set())) if match else (None, set())
    if match and match["name"] in names:
        function = getattr(module, match["name"])
        # Only functions that the module defines, not those that it imports.
        if isinstance(function, BuiltinFunctionType | FunctionType) and function.__module__ in {
            match["module"],
            "math",
        }:
            return target
    if target.startswith("#"):
        raise UnreadableError(
            f"calls {quote(target)}, an operator of an extension of torch.export",
            "Count the program from before it was lowered.",
        )
    raise UnreadableError(
        f"calls {quote(target)}, which is no operator of PyTorch", "Do not load this file."
    )


def _check_registered(target: str, library: str, name: str, overload: str | None) -> str:
    namespace = getattr(torch.ops, library, None)
    op = getattr(namespace, name, None) if isinstance(namespace, _NAMESPACES) else None
    if isinstance(op, OpOverloadPacket):
        op = getattr(op, overload or "", None)
    # Higher-order operators have no overloads.
    expected = OpOverload if overload else HigherOrderOperator
    if isinstance(op, expected):
        return target
    qualified_name = ".".join(filter(None, (f"{library}::{name}", overload)))
    raise UnreadableError(
        f"calls the operator {qualified_name}, which is not registered in this process",
        "Import the library that defines it before the count, or update PyTorch.",
    )
