"""Keys of calls of operators on fake tensors: what of the arguments decides the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from types import NoneType
from typing import Any

import torch

from graphflops.capture.fake.leaves import is_plain
from graphflops.capture.torch_internals.fake_mode import FakeTensor, FakeTensorMode
from graphflops.capture.torch_internals.operators import OpOverload

_KEY_TYPES = frozenset(
    {int, float, bool, complex, str, NoneType}
    | {torch.dtype, torch.device, torch.layout, torch.memory_format}
)
_UNCACHEABLE_TAGS = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
}
_MASK_DTYPES = {torch.bool, torch.uint8, torch.int8}
_LIFT = {torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default}


def argument_key(
    func: Any, args: Any, kwargs: Mapping[str, Any], mode: FakeTensorMode
) -> tuple[tuple[Any, ...], list[FakeTensor]] | None:
    """Return a key of a call, and its input tensors in the order of the arguments.

    Args:
        func: Operator whose results depend on metadata alone.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        mode: The mode that all tensors have to be of.

    Returns:
        None if the results may depend on more: symbolic sizes, a sparse tensor, a constant.
    """
    parts: list[Any] = [id(func), torch.get_default_dtype(), *kwargs]
    inputs: list[FakeTensor] = []
    if not (_extend(args, parts, inputs, mode) and _extend(kwargs.values(), parts, inputs, mode)):
        return None
    if not _ignores_offsets(func):
        parts += [tensor.storage_offset() for tensor in inputs]
    return tuple(parts), inputs


def _extend(
    values: Iterable[Any], parts: list[Any], inputs: list[FakeTensor], mode: FakeTensorMode
) -> bool:
    """Add the metadata of values to a key; return False if results may depend on more."""
    for value in values:
        kind = type(value)
        if kind is FakeTensor:
            if not is_plain(value, mode):
                return False
            inputs.append(value)
            parts += (value.shape, value.stride(), value.dtype)
            parts += (value.fake_device, value.requires_grad)
        elif kind in _KEY_TYPES:
            parts += (kind, value)  # 1 and 1.0 are equal
        elif kind is list or kind is tuple:
            parts.append(len(value))
            if not _extend(value, parts, inputs, mode):
                return False
        else:
            return False
    return True


@cache
def is_cacheable(func: Any) -> bool:
    """Return True for an operator whose results depend on metadata alone."""
    return (
        isinstance(func, OpOverload)
        and func.namespace in {"aten", "prims"}
        and _UNCACHEABLE_TAGS.isdisjoint(func.tags)
        and func not in _LIFT
    )


def depends_on_metadata(func: Any, args: Any) -> bool:
    """Return True for a call whose results depend on the metadata of its arguments alone."""
    if func is torch.ops.aten.index.Tensor:  # by integers: the result has a size for each index
        return not any(index is not None and index.dtype in _MASK_DTYPES for index in args[1])
    return is_cacheable(func)


@cache
def _ignores_offsets(func: Any) -> bool:
    """Return True for an operator that makes tensors, wherever in memory its arguments lie."""
    returns = func._schema.returns
    makes_tensors = all(isinstance(result.type, torch.TensorType) for result in returns)
    return not func.is_view and makes_tensors and "as_strided" not in func._opname
