"""Rules for the layouts of views: of the memory of one tensor, in another order or a part of it.

They do what the C++ kernels do, and leave arguments that do not fit to these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch

from graphflops.capture.fake.layouts import row_major


class View(NamedTuple):
    """Layout of a view.

    Attributes:
        shape: Its shape.
        strides: Its strides.
        offset: Offset of its first element from that of the tensor.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0


ViewRule: TypeAlias = Callable[..., View | list[View] | None]
"""Function from the arguments of an operator to the layouts of its results, if it knows them."""
_ATEN = torch.ops.aten


def _same(x: torch.Tensor) -> View:
    return View(x.shape, x.stride())


def _slice(
    x: torch.Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> View | None:
    """Return the layout of some elements of an axis, between bounds that are clamped to it."""
    shape, strides = [*x.shape], [*x.stride()]
    if not -len(shape) <= dim < len(shape) or step < 1:
        return None
    size = shape[dim]
    first = min(max(_from_start(start or 0, size), 0), size)
    last = size if end is None else min(max(_from_start(end, size), first), size)
    offset = first * strides[dim]
    shape[dim] = (last - first + step - 1) // step
    strides[dim] *= step
    return View(tuple(shape), tuple(strides), offset)


def _from_start(position: int, size: int) -> int:
    """Return a position on an axis, which may be given from its end."""
    return position + size if position < 0 else position


def _select(x: torch.Tensor, dim: int, index: int) -> View | None:
    shape, strides = [*x.shape], [*x.stride()]
    if not -len(shape) <= dim < len(shape) or not -shape[dim] <= index < shape[dim]:
        return None
    offset = _from_start(index, shape.pop(dim)) * strides.pop(dim)
    return View(tuple(shape), tuple(strides), offset)


def _permute(x: torch.Tensor, dims: Sequence[int]) -> View | None:
    shape, strides = x.shape, x.stride()
    rank = len(shape)
    if len(dims) != rank or any(not -rank <= dim < rank for dim in dims):
        return None
    if len({dim % rank for dim in dims}) != rank:
        return None
    return View(tuple([shape[dim] for dim in dims]), tuple([strides[dim] for dim in dims]))


def _transpose(x: torch.Tensor, first: int, second: int) -> View | None:
    shape, strides = [*x.shape], [*x.stride()]
    rank = len(shape)
    if not (-rank <= first < rank and -rank <= second < rank):
        return None
    for values in (shape, strides):
        values[first], values[second] = values[second], values[first]
    return View(tuple(shape), tuple(strides))


def _t(x: torch.Tensor) -> View | None:
    return _transpose(x, 0, 1) if x.dim() == 2 else None  # noqa: PLR2004 - a matrix


def _unsqueeze(x: torch.Tensor, dim: int) -> View | None:
    shape, strides = [*x.shape], [*x.stride()]
    rank = len(shape)
    if not -rank - 1 <= dim <= rank:
        return None
    dim %= rank + 1
    strides.insert(dim, shape[dim] * strides[dim] if dim < rank else 1)
    shape.insert(dim, 1)
    return View(tuple(shape), tuple(strides))


def _squeeze(x: torch.Tensor, dims: int | Sequence[int]) -> View | None:
    shape, strides = x.shape, x.stride()
    rank, axes = len(shape), [dims] if isinstance(dims, int) else dims
    if any(not -rank <= dim < rank for dim in axes):
        return None
    dropped = {dim % rank for dim in axes}
    kept = [axis for axis in range(rank) if axis not in dropped or shape[axis] != 1]
    return View(tuple([shape[axis] for axis in kept]), tuple([strides[axis] for axis in kept]))


def _expand(x: torch.Tensor, size: Sequence[int], **_: Any) -> View | None:
    """Return the layout of a tensor with axes of one element repeated, and no other axes."""
    shape, strides = [*x.shape], [*x.stride()]
    if len(size) != len(shape):
        return None
    for axis, new in enumerate(size):
        if new in {-1, shape[axis]}:
            continue
        if shape[axis] != 1 or new < 0:
            return None
        shape[axis], strides[axis] = new, 0
    return View(tuple(shape), tuple(strides))


def _view(x: torch.Tensor, size: Sequence[int]) -> View | None:
    """Return the layout of a tensor by other sizes, of which one may be open."""
    shape, strides = x.shape, x.stride()
    numel, known = math.prod(shape), math.prod(n for n in size if n != -1)
    open_sizes = sum(n == -1 for n in size)
    if any(n < -1 for n in size) or open_sizes > 1 or not numel or not known or numel % known:
        return None
    if not open_sizes and known != numel:
        return None
    new = tuple([numel // known if n == -1 else n for n in size])
    if strides == row_major(shape):
        return View(new, row_major(new))
    viewed = None if 1 in shape or 1 in new else _strides_of_view(shape, strides, new)
    return None if viewed is None else View(new, viewed)


def _strides_of_view(
    shape: Sequence[int], strides: Sequence[int], new: Sequence[int]
) -> tuple[int, ...] | None:
    """Return the strides of a tensor by other sizes, if its axes can be joined and split so.

    No axis has one element: its stride would be arbitrary.
    """
    found: list[int] = []
    sizes = list(new)
    joined, step = 1, strides[-1]
    for axis in reversed(range(len(shape))):
        step = strides[axis] if joined == 1 else step
        joined *= shape[axis]
        if axis and strides[axis - 1] == joined * step:
            continue  # the axis before goes on where this one ends
        covered = 1
        while sizes and covered < joined:
            found.append(covered * step)
            covered *= sizes.pop()
        if covered != joined:
            return None
        joined = 1
    return None if sizes else tuple(reversed(found))


def _split(x: torch.Tensor, size: int, dim: int = 0) -> list[View] | None:
    rank = x.dim()
    if not -rank <= dim < rank or size < 1 or not x.shape[dim]:
        return None
    starts = range(0, x.shape[dim], size)
    return [part for start in starts if (part := _slice(x, dim, start, start + size))]


def _split_with_sizes(x: torch.Tensor, sizes: Sequence[int], dim: int = 0) -> list[View] | None:
    rank = x.dim()
    if not -rank <= dim < rank or any(n < 0 for n in sizes) or sum(sizes) != x.shape[dim]:
        return None
    stops = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    pairs = zip(stops, sizes, strict=True)
    return [part for stop, n in pairs if (part := _slice(x, dim, stop - n, stop))]


def _unbind(x: torch.Tensor, dim: int = 0) -> list[View] | None:
    rank = x.dim()
    if not -rank <= dim < rank:
        return None
    return [part for index in range(x.shape[dim]) if (part := _select(x, dim, index))]


VIEW_RULES: Mapping[Any, ViewRule] = {
    _ATEN.detach.default: _same,
    _ATEN.alias.default: _same,
    _ATEN.slice.Tensor: _slice,
    _ATEN.select.int: _select,
    _ATEN.permute.default: _permute,
    _ATEN.transpose.int: _transpose,
    _ATEN.t.default: _t,
    _ATEN.unsqueeze.default: _unsqueeze,
    _ATEN.squeeze.dim: _squeeze,
    _ATEN.squeeze.dims: _squeeze,
    _ATEN.expand.default: _expand,
    _ATEN.view.default: _view,
    _ATEN._unsafe_view.default: _view,
    _ATEN.split.Tensor: _split,
    _ATEN.split_with_sizes.default: _split_with_sizes,
    _ATEN.unbind.int: _unbind,
}
"""Rules by operator; each takes the tensor first."""
