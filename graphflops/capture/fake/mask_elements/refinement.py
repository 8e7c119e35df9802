"""Masks of any kind, counted block by block.

A block of scores of which bounds say that all are hidden, or none, is counted at once; any
other is halved along each axis. A causal mask of S rows takes about S blocks, not S * S scores.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from sympy.core.function import AppliedUndef

from graphflops.capture.fake.mask_elements.expressions import Unknown, axes_of, index, table_number
from graphflops.capture.torch_internals.no_modes import no_modes

_MOST = 1 << 22
"""Blocks that are looked at at once: a mask that takes more has no pattern."""
Range = tuple[torch.Tensor, torch.Tensor]
"""The lowest and the highest that something may be, in each of some blocks."""


def count_certain(
    seen: sympy.Basic, sizes: tuple[int, ...], tables: Mapping[int, torch.Tensor]
) -> int | None:
    """Count where a condition is certainly not met; ``None`` if that takes too long.

    Args:
        seen: A condition on the indices.
        sizes: How many of them there are, by axis.
        tables: The values of tensors that the condition is made of.
    """
    axes = axes_of(seen)
    with no_modes():
        try:
            hidden = _count(seen, {axis: sizes[axis] for axis in axes}, tables)
        except (_Unbounded, NotImplementedError):
            return None
    if hidden is None:
        return None
    for axis, size in enumerate(sizes):
        hidden *= 1 if axis in axes else size
    return hidden


class _Unbounded(Exception):  # noqa: N818 - a mask is not counted, nothing has failed
    """Nothing is known of the bounds of an expression."""


def _count(
    seen: sympy.Basic, sizes: Mapping[int, int], tables: Mapping[int, torch.Tensor]
) -> int | None:
    extent = 1 << max((size - 1).bit_length() for size in sizes.values()) if sizes else 1
    blocks = {axis: torch.zeros(1, dtype=torch.int64) for axis in sizes}
    pyramids: dict[int, _Pyramid] = {}
    hidden = 0
    while True:
        ranges = {
            index(axis): (start, (start + extent).clamp(max=sizes[axis]) - 1)
            for axis, start in blocks.items()
        }
        low, high = _Bounds(ranges, extent, tables, pyramids).of(seen)
        volume = torch.ones(1, dtype=torch.int64)
        for first, last in ranges.values():
            volume = volume * (last - first + 1)
        never = high == 0
        hidden += int((volume * never).sum())
        undecided = (~never & (low == 0)).expand(volume.shape)
        if extent == 1 or not bool(undecided.any()):
            return hidden
        extent //= 2
        corners = list(itertools.product((0, extent), repeat=len(blocks)))
        if int(undecided.sum()) * len(corners) > _MOST:
            return None
        kept = {axis: start[undecided] for axis, start in blocks.items()}
        blocks = {
            axis: torch.cat([start + corner[at] for corner in corners])
            for at, (axis, start) in enumerate(kept.items())
        }
        inside = torch.stack([start < sizes[axis] for axis, start in blocks.items()]).all(0)
        blocks = {axis: start[inside] for axis, start in blocks.items()}


class _Bounds:
    """Bounds of expressions over blocks of equal extent."""

    def __init__(
        self,
        ranges: Mapping[sympy.Symbol, Range],
        extent: int,
        tables: Mapping[int, torch.Tensor],
        pyramids: dict[int, _Pyramid],
    ) -> None:
        self._ranges = {s: (a.double(), b.double()) for s, (a, b) in ranges.items()}
        self._extent, self._tables, self._pyramids = extent, tables, pyramids
        self._starts = {s: first for s, (first, _) in ranges.items()}

    def of(self, expr: Any) -> Range:
        """The least and the most that an expression is; a truth value is 0 or 1."""
        if expr in self._ranges:
            return self._ranges[expr]
        if expr in {sympy.true, sympy.false}:
            return _both(torch.tensor([float(expr == sympy.true)], dtype=torch.float64))
        if expr.is_number:
            return _both(torch.tensor([float(expr)], dtype=torch.float64))
        if isinstance(expr, Unknown):
            bound = torch.tensor([expr.bound], dtype=torch.float64)
            return (0 * bound if expr.is_nonnegative else -bound), bound
        if isinstance(expr, AppliedUndef):
            return self._table(expr)
        combine = next((f for kind, f in _WAYS.items() if isinstance(expr, kind)), None)
        if combine is None:
            raise _Unbounded
        return combine(*map(self.of, expr.args))

    def _table(self, expr: AppliedUndef) -> Range:
        """The least and the most of a part of a table."""
        number = table_number(expr)
        if any(arg not in self._starts for arg in expr.args):
            raise _Unbounded
        if number not in self._pyramids:
            self._pyramids[number] = _Pyramid(self._tables[number].double())
        places = tuple(self._starts[arg] // self._extent for arg in expr.args)
        return self._pyramids[number].at(self._extent, places)


class _Pyramid:
    """The least and the most in blocks of a table, of extents that are powers of two."""

    def __init__(self, values: torch.Tensor) -> None:
        self._levels = {1: (values, values)}

    def at(self, extent: int, places: tuple[torch.Tensor, ...]) -> Range:
        """Bounds in some blocks of an extent; those beyond the table are asked for in vain."""
        low, high = self._level(extent)
        pairs = zip(places, low.shape, strict=True)
        within = tuple(place.clamp(0, size - 1) for place, size in pairs)
        return low[within], high[within]

    def _level(self, extent: int) -> Range:
        if extent not in self._levels:
            low, high = self._level(extent // 2)
            for axis in range(low.dim()):
                low = torch.minimum(*_halves(low, axis))
                high = torch.maximum(*_halves(high, axis))
            self._levels[extent] = low, high
        return self._levels[extent]


def _halves(values: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Every other element along an axis, and its neighbour; the last one may have none."""
    size = values.shape[axis]
    even = torch.arange(0, size, 2)
    odd = (even + 1).clamp(max=size - 1)
    return values.index_select(axis, even), values.index_select(axis, odd)


def _both(value: torch.Tensor) -> Range:
    return value, value


def _add(*terms: Range) -> Range:
    return sum(low for low, _ in terms), sum(high for _, high in terms)  # type: ignore[return-value]  # never empty


def _multiply(first: Range, *others: Range) -> Range:
    low, high = first
    for other in others:
        corners = torch.broadcast_tensors(*[a * b for a in (low, high) for b in other])  # type: ignore[no-untyped-call]  # torch's gap
        low, high = torch.stack(corners).amin(0), torch.stack(corners).amax(0)
    return low, high


def _least(*terms: Range) -> Range:
    return _fold(torch.minimum, *terms)


def _most(*terms: Range) -> Range:
    return _fold(torch.maximum, *terms)


def _fold(choose: Callable[..., torch.Tensor], first: Range, *others: Range) -> Range:
    low, high = first
    for other in others:
        low, high = choose(low, other[0]), choose(high, other[1])
    return low, high


def _absolute(value: Range) -> Range:
    low, high = value
    most = torch.maximum(low.abs(), high.abs())
    least = torch.minimum(low.abs(), high.abs())
    return torch.where((low <= 0) & (high >= 0), torch.zeros_like(least), least), most


def _at_most(left: Range, right: Range) -> Range:
    return (left[1] <= right[0]).double(), (left[0] <= right[1]).double()


def _below(left: Range, right: Range) -> Range:
    return (left[1] < right[0]).double(), (left[0] < right[1]).double()


def _equal(left: Range, right: Range) -> Range:
    same = (left[0] == left[1]) & (right[0] == right[1]) & (left[0] == right[0])
    return same.double(), ((left[0] <= right[1]) & (right[0] <= left[1])).double()


def _not(value: Range) -> Range:
    return 1 - value[1], 1 - value[0]


_WAYS: dict[Any, Callable[..., Range]] = {
    sympy.Add: _add,
    sympy.Mul: _multiply,
    sympy.floor: lambda value: (value[0].floor(), value[1].floor()),
    sympy.Min: _least,
    sympy.Max: _most,
    sympy.Abs: _absolute,
    sympy.Le: _at_most,
    sympy.Lt: _below,
    sympy.Ge: lambda left, right: _at_most(right, left),
    sympy.Gt: lambda left, right: _below(right, left),
    sympy.Eq: _equal,
    sympy.Ne: lambda left, right: _not(_equal(left, right)),
    sympy.And: _least,
    sympy.Or: _most,
    sympy.Not: _not,
}
