"""Count of hidden scores under any mask, by interval arithmetic on blocks.

A block of scores whose bounds show that all are hidden, or none, is counted as a whole; any other
is halved along each axis. A causal mask of S rows takes about S blocks, not S * S scores.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import sympy
import torch
from sympy.core.function import AppliedUndef

from graphflops.capture.fake.mask_elements.expressions import Unknown, axes_of, index, table_id_of
from graphflops.capture.torch_internals.no_modes import no_modes

_MAX_BLOCKS = 1 << 22
"""Maximum number of blocks of one extent: a mask that takes more has no pattern."""
Interval = tuple[torch.Tensor, torch.Tensor]
"""Lower and upper bound of a value in each block."""


def count_certainly_false(
    condition: sympy.Basic, sizes: tuple[int, ...], tables: Mapping[int, torch.Tensor]
) -> int | None:
    """Return the number of indices where a condition is certainly false.

    Args:
        condition: Condition on the indices.
        sizes: Size of each axis.
        tables: Values of the tensors that the condition refers to.

    Returns:
        The number, or None if the count takes too long.
    """
    axes = axes_of(condition)
    with no_modes():
        try:
            hidden = _count(condition, {axis: sizes[axis] for axis in axes}, tables)
        except (_UnboundedError, NotImplementedError):
            return None
    if hidden is None:
        return None
    for axis, size in enumerate(sizes):
        hidden *= 1 if axis in axes else size
    return hidden


class _UnboundedError(Exception):
    """An expression has no known bounds; the mask is not counted, which is no failure."""


def _count(
    condition: sympy.Basic, sizes: Mapping[int, int], tables: Mapping[int, torch.Tensor]
) -> int | None:
    extent = 1 << max((size - 1).bit_length() for size in sizes.values()) if sizes else 1
    blocks = {axis: torch.zeros(1, dtype=torch.int64) for axis in sizes}
    pyramids: dict[int, _Pyramid] = {}
    hidden = 0
    while True:
        intervals = {
            index(axis): (start, (start + extent).clamp(max=sizes[axis]) - 1)
            for axis, start in blocks.items()
        }
        low, high = _Bounds(intervals, extent, tables, pyramids).interval(condition)
        volume = torch.ones(1, dtype=torch.int64)
        for first, last in intervals.values():
            volume = volume * (last - first + 1)
        always_false = high == 0
        hidden += int((volume * always_false).sum())
        undecided = (~always_false & (low == 0)).expand(volume.shape)
        if extent == 1 or not bool(undecided.any()):
            return hidden
        extent //= 2
        corners = list(itertools.product((0, extent), repeat=len(blocks)))
        if int(undecided.sum()) * len(corners) > _MAX_BLOCKS:
            return None
        parents = {axis: start[undecided] for axis, start in blocks.items()}
        blocks = {
            axis: torch.cat([start + corner[i] for corner in corners])
            for i, (axis, start) in enumerate(parents.items())
        }
        inside = torch.stack([start < sizes[axis] for axis, start in blocks.items()]).all(0)
        blocks = {axis: start[inside] for axis, start in blocks.items()}


class _Bounds:
    """Bounds of expressions over blocks of equal extent."""

    def __init__(
        self,
        intervals: Mapping[sympy.Symbol, Interval],
        extent: int,
        tables: Mapping[int, torch.Tensor],
        pyramids: dict[int, _Pyramid],
    ) -> None:
        self._intervals = {s: (a.double(), b.double()) for s, (a, b) in intervals.items()}
        self._extent, self._tables, self._pyramids = extent, tables, pyramids
        self._starts = {s: first for s, (first, _) in intervals.items()}

    def interval(self, expr: Any) -> Interval:
        """Return the bounds of an expression; a truth value is 0 or 1."""
        if expr in self._intervals:
            return self._intervals[expr]
        if expr in {sympy.true, sympy.false}:
            return _exact(torch.tensor([float(expr == sympy.true)], dtype=torch.float64))
        if expr.is_number:
            return _exact(torch.tensor([float(expr)], dtype=torch.float64))
        if isinstance(expr, Unknown):
            bound = torch.tensor([expr.bound], dtype=torch.float64)
            return (0 * bound if expr.is_nonnegative else -bound), bound
        if isinstance(expr, AppliedUndef):
            return self._table_range(expr)
        combine = next((f for kind, f in _COMBINE.items() if isinstance(expr, kind)), None)
        if combine is None:
            raise _UnboundedError
        return combine(*map(self.interval, expr.args))

    def _table_range(self, expr: AppliedUndef) -> Interval:
        """Return the bounds of an element of a table."""
        table_id = table_id_of(expr)
        if any(arg not in self._starts for arg in expr.args):
            raise _UnboundedError
        if table_id not in self._pyramids:
            self._pyramids[table_id] = _Pyramid(self._tables[table_id].double())
        block_indices = tuple(self._starts[arg] // self._extent for arg in expr.args)
        return self._pyramids[table_id].interval(self._extent, block_indices)


class _Pyramid:
    """Minima and maxima of the blocks of a table, for extents that are powers of two."""

    def __init__(self, values: torch.Tensor) -> None:
        self._levels = {1: (values, values)}

    def interval(self, extent: int, block_indices: tuple[torch.Tensor, ...]) -> Interval:
        """Return the bounds in blocks of an extent; an index beyond the table is clamped."""
        low, high = self._level(extent)
        pairs = zip(block_indices, low.shape, strict=True)
        clamped = tuple(block.clamp(0, size - 1) for block, size in pairs)
        return low[clamped], high[clamped]

    def _level(self, extent: int) -> Interval:
        if extent not in self._levels:
            low, high = self._level(extent // 2)
            for axis in range(low.dim()):
                low = torch.minimum(*_even_odd(low, axis))
                high = torch.maximum(*_even_odd(high, axis))
            self._levels[extent] = low, high
        return self._levels[extent]


def _even_odd(values: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the even elements along an axis and their odd neighbours; the last may have none."""
    size = values.shape[axis]
    even = torch.arange(0, size, 2)
    odd = (even + 1).clamp(max=size - 1)
    return values.index_select(axis, even), values.index_select(axis, odd)


def _exact(value: torch.Tensor) -> Interval:
    return value, value


def _add(*terms: Interval) -> Interval:
    return sum(low for low, _ in terms), sum(high for _, high in terms)  # type: ignore[return-value]  # never empty


def _multiply(first: Interval, *others: Interval) -> Interval:
    low, high = first
    for other in others:
        corners = torch.broadcast_tensors(*[a * b for a in (low, high) for b in other])  # type: ignore[no-untyped-call]  # torch's gap
        low, high = torch.stack(corners).amin(0), torch.stack(corners).amax(0)
    return low, high


def _minimum(*terms: Interval) -> Interval:
    return _reduce(torch.minimum, *terms)


def _maximum(*terms: Interval) -> Interval:
    return _reduce(torch.maximum, *terms)


def _reduce(choose: Callable[..., torch.Tensor], first: Interval, *others: Interval) -> Interval:
    low, high = first
    for other in others:
        low, high = choose(low, other[0]), choose(high, other[1])
    return low, high


def _absolute(value: Interval) -> Interval:
    low, high = value
    maximum = torch.maximum(low.abs(), high.abs())
    minimum = torch.minimum(low.abs(), high.abs())
    return torch.where((low <= 0) & (high >= 0), torch.zeros_like(minimum), minimum), maximum


def _less_equal(left: Interval, right: Interval) -> Interval:
    return (left[1] <= right[0]).double(), (left[0] <= right[1]).double()


def _less(left: Interval, right: Interval) -> Interval:
    return (left[1] < right[0]).double(), (left[0] < right[1]).double()


def _equal(left: Interval, right: Interval) -> Interval:
    is_equal = (left[0] == left[1]) & (right[0] == right[1]) & (left[0] == right[0])
    return is_equal.double(), ((left[0] <= right[1]) & (right[0] <= left[1])).double()


def _not(value: Interval) -> Interval:
    return 1 - value[1], 1 - value[0]


_COMBINE: dict[Any, Callable[..., Interval]] = {
    sympy.Add: _add,
    sympy.Mul: _multiply,
    sympy.floor: lambda value: (value[0].floor(), value[1].floor()),
    sympy.Min: _minimum,
    sympy.Max: _maximum,
    sympy.Abs: _absolute,
    sympy.Le: _less_equal,
    sympy.Lt: _less,
    sympy.Ge: lambda left, right: _less_equal(right, left),
    sympy.Gt: lambda left, right: _less(right, left),
    sympy.Eq: _equal,
    sympy.Ne: lambda left, right: _not(_equal(left, right)),
    sympy.And: _minimum,
    sympy.Or: _maximum,
    sympy.Not: _not,
}
