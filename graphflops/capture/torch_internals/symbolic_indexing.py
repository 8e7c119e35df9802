"""Indexing by symbolic integers, as non-strict export rewrites it: by slices and selections.

torch's own does the same (``torch._export.non_strict_utils``), and imports all of Dynamo.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


def has_symbols(index: Any) -> bool:
    """Return True if an index has a symbolic integer, or a tensor that holds one."""
    items = index if isinstance(index, tuple) else (index,)
    return any(map(_is_symbolic, items))


def index_by_symbols(tensor: torch.Tensor, index: Any) -> torch.Tensor | None:
    """Return an item of a tensor, without an operator that takes no symbols.

    ``None`` for an index with items other than integers, slices and new axes.
    """
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(map(_is_simple, items)):
        return None
    axis = 0
    for item in _without_ellipsis(items, tensor.ndim):
        if item is None:
            tensor = torch.unsqueeze(tensor, axis)
        elif not isinstance(item, slice):
            tensor = torch.select(tensor, axis, _number(item))
            continue
        elif item != slice(None):
            bounds = item.start, item.stop, 1 if item.step is None else item.step
            tensor = torch.ops.aten.slice(tensor, axis, *map(_number, bounds))
        axis += 1
    return tensor


def _is_symbolic(item: object) -> bool:
    if isinstance(item, slice):
        return any(map(_is_symbolic, (item.start, item.stop, item.step)))
    return isinstance(item, torch.SymInt) or _is_integer_tensor(item)


def _is_integer_tensor(item: object) -> bool:
    if not isinstance(item, torch.Tensor) or item.ndim:
        return False
    dtype = item.dtype
    return not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)


def _is_simple(item: object) -> bool:
    is_number = isinstance(item, int | torch.SymInt) and not isinstance(item, bool)
    return (
        item is None
        or item is Ellipsis
        or isinstance(item, slice)
        or (is_number or _is_integer_tensor(item))
    )


def _without_ellipsis(items: Sequence[Any], rank: int) -> list[Any]:
    """Return an index with slices for the axes that an ellipsis stands for."""
    position = next((i for i, item in enumerate(items) if item is Ellipsis), None)
    if position is None:
        return [*items]
    axes = sum(item is not None and item is not Ellipsis for item in items)
    return [*items[:position], *[slice(None)] * (rank - axes), *items[position + 1 :]]


def _number(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor) else value
