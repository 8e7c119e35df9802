"""Arguments of ATen calls in FX: from recorded values to those that the schema asks for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, TypeAlias

import sympy
import torch

from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.errors import ModelSpecError

Operand: TypeAlias = TensorMeta | sympy.Basic
"""What a graph has a node for: a tensor, a symbolic size."""
_ATTRIBUTES_OF_TORCH = ("ScalarType", "Layout", "MemoryFormat")


def overload_of(call: OpCall) -> OpOverload:
    """Return the operator overload that a call was recorded from.

    Raises:
        ModelSpecError: torch has no such operator.
    """
    overload = _overload(call.op, call.overload)
    if overload is None:
        msg = (
            f"{call.op}.{call.overload} (the call {call.name!r}) is no operator of this process, "
            "and an FX graph calls nothing else. Import the library that defines it, or look at "
            "the graph with to_networkx()."
        )
        raise ModelSpecError(msg)
    return overload


@cache
def _overload(op: str, overload: str) -> OpOverload | None:
    namespace, _, name = op.partition("::")
    found = getattr(getattr(getattr(torch.ops, namespace), name, None), overload, None)
    return found if isinstance(found, OpOverload) else None


def draws_random_numbers(call: OpCall) -> bool:
    """Return True for a call whose result differs from time to time, or may."""
    try:
        overload = overload_of(call)
    except ModelSpecError:
        return True
    is_off = call.attrs.get("train") is False or call.attrs.get("dropout_p") == 0
    return torch.Tag.nondeterministic_seeded in overload.tags and not is_off


def arguments(
    call: OpCall, overload: OpOverload, node: Callable[[Operand], Any], device: torch.device
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return positional and keyword arguments of a call; those at their defaults are left out.

    Args:
        call: The call.
        overload: Its operator.
        node: Function that returns the node of a tensor or of a symbolic size.
        device: Device in place of ``meta``.
    """
    positional: list[Any] = []
    named: dict[str, Any] = {}
    required = 0
    for name, is_named, kind, default in _schema(overload):
        if name in call.inputs:
            value, is_default = _tensors(call.inputs[name], node), False
        elif (value := call.attrs.get(name, default)) is default:
            is_default = True
        else:
            value = _value(value, kind, node, device)
            is_default = _same(value, default)
        if not is_named:
            positional.append(value)
            required = required if is_default else len(positional)
        elif not is_default:
            named[name] = value
    return tuple(positional[:required]), named


@cache
def _schema(overload: OpOverload) -> tuple[tuple[str, bool, str, Any], ...]:
    """Return name, whether it is keyword-only, type and default of each argument."""
    no_default = object()
    return tuple(
        (
            argument.name,
            argument.kwarg_only,
            str(argument.real_type),
            argument.default_value if argument.has_default_value() else no_default,
        )
        for argument in overload._schema.arguments
    )


def _tensors(value: Any, node: Callable[[Operand], Any]) -> Any:
    if isinstance(value, tuple):
        return [None if item is None else node(item) for item in value]
    return node(value)


def _value(value: Any, kind: str, node: Callable[[Operand], Any], device: torch.device) -> Any:
    """Return a recorded value as the type in a schema: names of dtypes and devices are texts."""
    if value is None or "Generator" in kind:
        return None
    if isinstance(value, str) and any(name in kind for name in _ATTRIBUTES_OF_TORCH):
        return getattr(torch, value.removeprefix("torch."))
    if isinstance(value, str) and "Device" in kind:
        return device if value == "meta" else torch.device(value)
    if isinstance(value, sympy.Basic):
        return node(value)
    if isinstance(value, tuple):
        return [_value(item, kind, node, device) for item in value]
    return value


def _same(value: Any, default: Any) -> bool:
    if isinstance(default, Sequence) and not isinstance(default, str):
        return bool(list(default) == value)
    return type(value) is type(default) and bool(value == default)
