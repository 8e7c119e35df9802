"""The number of scores that a mask of attention hides.

In closed form where the mask is a band, of rows that see from one diagonal to another: causal
masks, windows, unused ends of a cache, of any size. Other masks are counted by ``refinement``
if their sizes are numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy
import torch
from sympy.core.relational import Relational

from graphflops.capture.fake.mask_elements.expressions import Unknown, axes_of, index, is_truth
from graphflops.capture.fake.mask_elements.refinement import count_certain
from graphflops.core.cost import Dim, as_dim, triangle

_MOST = 12
"""Conditions of a mask beyond which it is not counted in closed form."""
_FEW = 8
"""Alternatives beyond which elements are not counted in closed form."""


@dataclass(frozen=True, slots=True)
class Mask:
    """A mask of attention, as far as it is known.

    Attributes:
        hidden: Its elements that certainly let nothing through.
        is_whole: Whether all others certainly let something through.
    """

    hidden: Dim
    is_whole: bool


def count_hidden(
    element: sympy.Basic,
    shape: Sequence[Dim],
    lowest: float,
    tables: Mapping[int, torch.Tensor],
) -> Mask:
    """Count the elements of a mask that let nothing through.

    Args:
        element: One of them, as an expression of its indices: a truth value, or an addend.
        shape: How many there are.
        lowest: An addend that is less hides.
        tables: The values of tensors that expressions are made of.
    """
    seen = _seen(element, lowest)
    total = sympy.prod(shape)
    possible = _possible(sympy.to_nnf(seen, simplify=False))
    is_whole = not seen.has(Unknown)
    counted = _closed(possible, tuple(map(sympy.sympify, reversed(shape))))
    if counted is not None:
        return Mask(as_dim(sympy.expand(total - counted)), is_whole)
    if all(isinstance(size, int) for size in shape):
        hidden = count_certain(possible, tuple(map(int, reversed(shape))), tables)
        if hidden is not None:
            return Mask(hidden, is_whole)
    return Mask(0, is_whole=False)


def _seen(element: Any, lowest: float) -> Any:
    """Whether an element lets something through."""
    if is_truth(element):
        return element
    folded = sympy.piecewise_fold(element)
    if isinstance(folded, sympy.Piecewise):
        seen, before = sympy.false, sympy.true
        for value, condition in folded.args:
            seen |= sympy.And(before, condition, _seen(value, lowest))
            before = sympy.And(before, sympy.Not(condition))
        return seen
    # A number that nobody knows is far from what hides.
    rest = folded.xreplace({free: sympy.Integer(0) for free in folded.atoms(Unknown)})
    return sympy.Gt(rest, lowest)


def _possible(seen: Any) -> Any:
    """What is not certainly hidden: a condition on what nobody knows may be met."""
    if isinstance(seen, sympy.And | sympy.Or):
        return seen.func(*map(_possible, seen.args))
    return sympy.true if seen.has(Unknown) else seen


@lru_cache(maxsize=256)
def _closed(seen: Any, sizes: tuple[sympy.Expr, ...]) -> Any:
    """How many elements are seen, as an expression of sizes; ``None`` where there is none."""
    if seen == sympy.false:
        return sympy.Integer(0)
    if len(seen.atoms(Relational)) > _MOST or _alternatives(seen) > _FEW:
        return None
    if isinstance(seen, sympy.Or):
        first, *others = seen.args
        return _of_either(first, sympy.Or(*others), sizes)
    conditions = list(seen.args) if isinstance(seen, sympy.And) else [seen]
    for condition in conditions:
        others = sympy.And(*[other for other in conditions if other is not condition])
        if isinstance(condition, sympy.Or):
            first, *more = condition.args
            rest = sympy.And(others, sympy.Or(*more))
            return _of_either(sympy.And(others, first), rest, sizes)
        if isinstance(condition, sympy.Ne):
            whole = _closed(others, sizes)
            equal = _closed(sympy.And(others, sympy.Eq(*condition.args)), sizes)
            return None if whole is None or equal is None else whole - equal
    return _band(conditions, sizes)


def _alternatives(seen: Any) -> int:
    """How many of a condition's parts are alternatives: each doubles what is to be counted."""
    return sum(len(either.args) for either in seen.atoms(sympy.Or)) + len(seen.atoms(sympy.Ne))


def _of_either(one: Any, other: Any, sizes: tuple[sympy.Expr, ...]) -> Any:
    counts = [_closed(seen, sizes) for seen in (one, other, sympy.And(one, other))]
    return None if None in counts else counts[0] + counts[1] - counts[2]


def _band(conditions: list[Any], sizes: tuple[sympy.Expr, ...]) -> Any:
    """How many elements meet linear conditions on two axes at most."""
    axes = sorted({axis for condition in conditions for axis in axes_of(condition)})
    if len(axes) > 2:  # noqa: PLR2004 - rows and columns
        return None
    column, row = (*axes, *[axis for axis in (0, 1, 2) if axis not in axes])[:2] if axes else (0, 1)
    sizes = sizes + (sympy.Integer(1),) * (2 - len(sizes))
    others = sympy.prod([size for axis, size in enumerate(sizes) if axis not in {row, column}])
    bounds, rows, columns = _Bounds(row, column), sizes[row], sizes[column]
    chunked = [condition for condition in conditions if _chunk(condition, row, column)]
    if not all(bounds.add(condition) for condition in conditions if condition not in chunked):
        return None
    if not chunked:
        return others * bounds.count(rows, columns)
    if len(chunked) > 1 or rows != columns or not bounds.are_diagonal:
        return None
    # Whole chunks along the diagonal, and what is left of one.
    chunk = _chunk(chunked[0], row, column)
    whole = sympy.floor(rows / chunk)
    rest = sympy.Mod(rows, chunk)
    return others * (whole * bounds.count(chunk, chunk) + bounds.count(rest, rest))


def _chunk(condition: Any, row: int, column: int) -> Any:
    """The length of the chunks that row and column are to be in together, if that is it."""
    if not isinstance(condition, sympy.Eq):
        return None
    sides = [sympy.fraction(side.args[0]) for side in condition.args if side.func is sympy.floor]
    lengths = {length for _, length in sides if not length.free_symbols}
    both = {inner for inner, _ in sides} == {index(row), index(column)}
    return lengths.pop() if both and len(lengths) == 1 else None


class _Bounds:
    """Linear bounds on a row, a column, and how far the column is ahead of the row."""

    def __init__(self, row: int, column: int) -> None:
        self._row, self._column = index(row), index(column)
        self._from: dict[Any, list[Any]] = {(1, 0): [0], (0, 1): [0], (-1, 1): []}
        self._to: dict[Any, list[Any]] = {(1, 0): [], (0, 1): [], (-1, 1): []}

    @property
    def are_diagonal(self) -> bool:
        """Whether all depend on how far the column is ahead, and on nothing else."""
        single = [*self._to[1, 0], *self._to[0, 1], *self._from[1, 0], *self._from[0, 1]]
        return single == [0, 0]

    def add(self, condition: Any) -> bool:
        """Take a condition in; ``False`` if it is of another kind."""
        if condition == sympy.true:
            return True
        if not isinstance(condition, Relational):
            return False
        left, right = condition.args
        if isinstance(condition, sympy.Eq):
            return self._equal(left, right) or self._equal(right, left)
        if isinstance(condition, sympy.Gt | sympy.Ge):
            left, right = right, left
        strict = isinstance(condition, sympy.Gt | sympy.Lt)
        return self._at_most(left - right + (1 if strict else 0))

    def _equal(self, left: Any, right: Any) -> bool:
        if isinstance(left, sympy.floor):
            # floor(x / n) = e is n e <= x < n (e + 1).
            (inner,) = left.args
            inner, n = sympy.fraction(sympy.together(inner))
            return (
                not (n.free_symbols or inner.has(sympy.floor))
                and self._at_most(n * right - inner)
                and self._at_most(inner - n * right - n + 1)
            )
        return self._at_most(left - right) and self._at_most(right - left)

    def _at_most(self, value: Any) -> bool:
        """A value that is 0 at most."""
        value = sympy.expand(value)
        for distance in value.atoms(sympy.Abs):
            if value.coeff(distance) != 1:
                return False
            rest = value - distance
            return self._at_most(rest + distance.args[0]) and self._at_most(rest - distance.args[0])
        a, b = value.coeff(self._row), value.coeff(self._column)
        rest = sympy.expand(value - a * self._row - b * self._column)
        if axes_of(rest):
            return False
        if (a, b) in self._to:
            self._to[a, b].append(-rest)
        elif (-a, -b) in self._from:
            self._from[-a, -b].append(rest)
        else:
            return False
        return True

    def count(self, rows: Any, columns: Any) -> Any:
        """How many places of so many rows and columns are within."""
        first_row, first_column = sympy.Max(*self._from[1, 0]), sympy.Max(*self._from[0, 1])
        last_row = sympy.Min(rows - 1, *self._to[1, 0])
        last_column = sympy.Min(columns - 1, *self._to[0, 1])
        rows = _count(last_row - first_row + 1)
        columns = _count(last_column - first_column + 1)
        shift = first_row - first_column
        ahead = self._to[-1, 1]
        behind = self._from[-1, 1]
        upper = sympy.Min(*ahead) + shift if ahead else None
        seen = rows * columns if upper is None else triangle(_dim(rows), _dim(columns), _dim(upper))
        if behind:
            lower = sympy.Max(*behind) + shift - 1
            lower = lower if upper is None else sympy.Min(lower, upper)
            seen -= triangle(_dim(rows), _dim(columns), _dim(lower))
        return sympy.sympify(seen)


def _count(value: Any) -> Any:
    return sympy.Max(value, 0)


def _dim(value: Any) -> Dim:
    return as_dim(sympy.sympify(value))
