"""Number of scores that an attention mask hides.

Band masks, whose rows attend from one diagonal to another, are counted in closed form, at any
size: causal masks, sliding windows, unused ends of a cache. Other masks are counted by
``refinement`` if their sizes are numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sympy
import torch
from sympy.core.relational import Relational

from graphflops.capture.fake.mask_elements.expressions import Unknown, axes_of, index, is_truth
from graphflops.capture.fake.mask_elements.refinement import count_certainly_false
from graphflops.core.cost import Dim, as_dim, triangle

_MAX_CONDITIONS = 12
"""Maximum number of conditions of a mask that is counted in closed form."""
_MAX_ALTERNATIVES = 8
"""Maximum number of alternatives in a mask that is counted in closed form."""


@dataclass(frozen=True, slots=True)
class HiddenCount:
    """Number of hidden elements of an attention mask.

    Attributes:
        hidden: Number of elements that certainly hide a score.
        is_complete: True if all others certainly do not.
    """

    hidden: Dim
    is_complete: bool


def count_hidden(
    element: sympy.Basic,
    shape: Sequence[Dim],
    lowest: float,
    tables: Mapping[int, torch.Tensor],
) -> HiddenCount:
    """Count the elements of a mask that hide a score.

    Args:
        element: Element of the mask, as an expression of its indices: a truth value or an addend.
        shape: Shape of the mask.
        lowest: Addend below which a score is hidden.
        tables: Values of the tensors that expressions refer to.
    """
    if not is_truth(element) and _largest_magnitude(element) < -lowest:
        return HiddenCount(0, is_complete=True)
    visible = _is_visible(element, lowest)
    total = sympy.prod(shape)
    possible = _possibly_visible(sympy.to_nnf(visible, simplify=False))
    is_complete = not visible.has(Unknown)
    count = _closed_form(possible, tuple(map(sympy.sympify, reversed(shape))))
    if count is not None:
        return HiddenCount(as_dim(sympy.expand(total - count)), is_complete)
    if all(isinstance(size, int) for size in shape):
        hidden = count_certainly_false(possible, tuple(map(int, reversed(shape))), tables)
        if hidden is not None:
            return HiddenCount(hidden, is_complete)
    return HiddenCount(0, is_complete=False)


def _largest_magnitude(addend: Any) -> float:
    """Return a bound of the magnitude of an addend, in which unknown numbers are small."""
    if addend.is_Number:
        return abs(float(addend))
    if isinstance(addend, Unknown):
        return 0.0
    if isinstance(addend, sympy.Piecewise):
        return max(_largest_magnitude(value) for value, _ in addend.args)
    if isinstance(addend, sympy.Add):
        return sum(map(_largest_magnitude, addend.args))
    if isinstance(addend, sympy.Mul):
        factors = [*map(_largest_magnitude, addend.args)]
        return math.inf if math.inf in factors else math.prod(factors)
    return math.inf


def _is_visible(element: Any, lowest: float) -> Any:
    """Return the condition under which an element does not hide its score."""
    if is_truth(element):
        return element
    folded = sympy.piecewise_fold(element)
    if isinstance(folded, sympy.Piecewise):
        visible, otherwise = sympy.false, sympy.true
        for value, condition in folded.args:
            visible |= sympy.And(otherwise, condition, _is_visible(value, lowest))
            otherwise = sympy.And(otherwise, sympy.Not(condition))
        return visible
    # An unknown number is far from an addend that hides a score.
    addend = folded.xreplace({atom: sympy.Integer(0) for atom in folded.atoms(Unknown)})
    return sympy.Gt(addend, lowest)


def _possibly_visible(visible: Any) -> Any:
    """Return a condition for elements that are not certainly hidden: unknown parts may be true."""
    if isinstance(visible, sympy.And | sympy.Or):
        return visible.func(*map(_possibly_visible, visible.args))
    return sympy.true if visible.has(Unknown) else visible


@lru_cache(maxsize=256)
def _closed_form(visible: Any, sizes: tuple[sympy.Expr, ...]) -> Any:
    """Return the number of visible elements as an expression of sizes, or None if there is none."""
    if visible == sympy.false:
        return sympy.Integer(0)
    if (
        len(visible.atoms(Relational)) > _MAX_CONDITIONS
        or _num_alternatives(visible) > _MAX_ALTERNATIVES
    ):
        return None
    if isinstance(visible, sympy.Or):
        first, *others = visible.args
        return _union_count(first, sympy.Or(*others), sizes)
    conditions = list(visible.args) if isinstance(visible, sympy.And) else [visible]
    for condition in conditions:
        others = sympy.And(*[other for other in conditions if other is not condition])
        if isinstance(condition, sympy.Or):
            first, *alternatives = condition.args
            second = sympy.And(others, sympy.Or(*alternatives))
            return _union_count(sympy.And(others, first), second, sizes)
        if isinstance(condition, sympy.Ne):
            total = _closed_form(others, sizes)
            equal = _closed_form(sympy.And(others, sympy.Eq(*condition.args)), sizes)
            return None if total is None or equal is None else total - equal
    return _count_band(conditions, sizes)


def _num_alternatives(visible: Any) -> int:
    """Return the number of alternatives in a condition; each doubles the number of counts."""
    num_operands = sum(len(disjunction.args) for disjunction in visible.atoms(sympy.Or))
    return num_operands + len(visible.atoms(sympy.Ne))


def _union_count(first: Any, second: Any, sizes: tuple[sympy.Expr, ...]) -> Any:
    counts = [_closed_form(visible, sizes) for visible in (first, second, sympy.And(first, second))]
    return None if None in counts else counts[0] + counts[1] - counts[2]


def _count_band(conditions: list[Any], sizes: tuple[sympy.Expr, ...]) -> Any:
    """Return the number of elements that meet linear conditions on at most two axes."""
    axes = sorted({axis for condition in conditions for axis in axes_of(condition)})
    if len(axes) > 2:  # noqa: PLR2004 - rows and columns
        return None
    column, row = (*axes, *[axis for axis in (0, 1, 2) if axis not in axes])[:2] if axes else (0, 1)
    sizes = sizes + (sympy.Integer(1),) * (2 - len(sizes))
    others = sympy.prod([size for axis, size in enumerate(sizes) if axis not in {row, column}])
    bounds, rows, columns = _Bounds(row, column), sizes[row], sizes[column]
    chunked = [condition for condition in conditions if _chunk_size(condition, row, column)]
    if not all(bounds.add(condition) for condition in conditions if condition not in chunked):
        return None
    if not chunked:
        return others * bounds.count(rows, columns)
    if len(chunked) > 1 or rows != columns or not bounds.are_diagonal:
        return None
    # Whole chunks along the diagonal, and the remainder of one.
    chunk = _chunk_size(chunked[0], row, column)
    num_chunks = sympy.floor(rows / chunk)
    remainder = sympy.Mod(rows, chunk)
    return others * (num_chunks * bounds.count(chunk, chunk) + bounds.count(remainder, remainder))


def _chunk_size(condition: Any, row: int, column: int) -> Any:
    """Return the chunk size of a condition that row and column are in the same chunk, else None."""
    if not isinstance(condition, sympy.Eq):
        return None
    sides = [sympy.fraction(side.args[0]) for side in condition.args if side.func is sympy.floor]
    sizes = {size for _, size in sides if not size.free_symbols}
    has_both = {numerator for numerator, _ in sides} == {index(row), index(column)}
    return sizes.pop() if has_both and len(sizes) == 1 else None


class _Bounds:
    """Linear bounds on the row, the column, and the column minus the row."""

    def __init__(self, row: int, column: int) -> None:
        self._row, self._column = index(row), index(column)
        self._lower: dict[Any, list[Any]] = {(1, 0): [0], (0, 1): [0], (-1, 1): []}
        self._upper: dict[Any, list[Any]] = {(1, 0): [], (0, 1): [], (-1, 1): []}

    @property
    def are_diagonal(self) -> bool:
        """True if all bounds are on the column minus the row."""
        on_one_axis = [
            *self._upper[1, 0],
            *self._upper[0, 1],
            *self._lower[1, 0],
            *self._lower[0, 1],
        ]
        return on_one_axis == [0, 0]

    def add(self, condition: Any) -> bool:
        """Add a condition; return False if it is not a linear bound."""
        if condition == sympy.true:
            return True
        if not isinstance(condition, Relational):
            return False
        left, right = condition.args
        if isinstance(condition, sympy.Eq):
            return self._add_equal(left, right) or self._add_equal(right, left)
        if isinstance(condition, sympy.Gt | sympy.Ge):
            left, right = right, left
        is_strict = isinstance(condition, sympy.Gt | sympy.Lt)
        return self._add_nonpositive(left - right + (1 if is_strict else 0))

    def _add_equal(self, left: Any, right: Any) -> bool:
        if isinstance(left, sympy.floor):
            # floor(x / n) = e is n e <= x < n (e + 1).
            (quotient,) = left.args
            x, n = sympy.fraction(sympy.together(quotient))
            return (
                not (n.free_symbols or x.has(sympy.floor))
                and self._add_nonpositive(n * right - x)
                and self._add_nonpositive(x - n * right - n + 1)
            )
        return self._add_nonpositive(left - right) and self._add_nonpositive(right - left)

    def _add_nonpositive(self, value: Any) -> bool:
        """Add the bound ``value <= 0``; return False if it is not linear."""
        value = sympy.expand(value)
        for distance in value.atoms(sympy.Abs):
            if value.coeff(distance) != 1:
                return False
            offset, inner = value - distance, distance.args[0]
            return self._add_nonpositive(offset + inner) and self._add_nonpositive(offset - inner)
        a, b = value.coeff(self._row), value.coeff(self._column)
        constant = sympy.expand(value - a * self._row - b * self._column)
        if axes_of(constant):
            return False
        if (a, b) in self._upper:
            self._upper[a, b].append(-constant)
        elif (-a, -b) in self._lower:
            self._lower[-a, -b].append(constant)
        else:
            return False
        return True

    def count(self, rows: Any, columns: Any) -> Any:
        """Return the number of elements within the bounds, of some rows and columns."""
        first_row, first_column = sympy.Max(*self._lower[1, 0]), sympy.Max(*self._lower[0, 1])
        last_row = sympy.Min(rows - 1, *self._upper[1, 0])
        last_column = sympy.Min(columns - 1, *self._upper[0, 1])
        rows = _clamp(last_row - first_row + 1)
        columns = _clamp(last_column - first_column + 1)
        shift = first_row - first_column
        upper_bounds = self._upper[-1, 1]
        lower_bounds = self._lower[-1, 1]
        upper = sympy.Min(*upper_bounds) + shift if upper_bounds else None
        visible = (
            rows * columns if upper is None else triangle(_dim(rows), _dim(columns), _dim(upper))
        )
        if lower_bounds:
            lower = sympy.Max(*lower_bounds) + shift - 1
            lower = lower if upper is None else sympy.Min(lower, upper)
            visible -= triangle(_dim(rows), _dim(columns), _dim(lower))
        return sympy.sympify(visible)


def _clamp(value: Any) -> Any:
    return sympy.Max(value, 0)


def _dim(value: Any) -> Dim:
    return as_dim(sympy.sympify(value))
