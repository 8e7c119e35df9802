"""Bytes that are allocated after each storage event of a pass: numbers, or polynomials in sizes."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
import sympy

from graphflops.analysis.event_arrays import EventArrays, Integers
from graphflops.core.cost import Dim, as_dim
from graphflops.core.storage_events import StorageEvents

_ONE = sympy.Integer(1)
_ROUNDING = 1e-9


class StorageLevels:
    """Bytes that are allocated on a device after each storage event.

    A level is a sum of terms: of the sizes of storages, expanded, such as ``4*B*S`` and ``8*B**2``,
    each term has a column with the coefficients. Without symbols there is one column.

    Args:
        events: The events.
        device: The device; storages of others take nothing.
        base: Bytes that are there throughout.
        step: Bytes on top of those that are left after the last event.

    Attributes:
        events: The events as arrays.
        terms: The terms, as products of symbols, by their columns.
    """

    def __init__(self, events: StorageEvents, device: str, base: int, step: int) -> None:
        self.events = EventArrays.of(events)
        sizes = {
            number: _terms(allocation.nbytes) if allocation.device == device else {}
            for number, allocation in events.allocations.items()
        }
        terms = dict.fromkeys(term for size in sizes.values() for term in size)
        self.terms = tuple(dict.fromkeys((_ONE, *terms)))
        self._sizes, self._base, self._step = sizes, base, step

    @property
    def is_numeric(self) -> bool:
        """True if no size has symbols."""
        return len(self.terms) == 1

    @cached_property
    def sizes(self) -> Integers:
        """Coefficients of the storage of each event: of events x terms."""
        numbers = sorted(self._sizes)
        rows = [[self._sizes[number].get(term, 0) for term in self.terms] for number in numbers]
        table = np.array(rows, dtype=np.int64).reshape(len(rows), len(self.terms))
        return table[np.searchsorted(numbers, self.events.allocated)]

    @cached_property
    def levels(self) -> Integers:
        """Coefficients of the level after each event: of events x terms."""
        signs = np.where(self.events.is_release, -1, 1)
        levels = np.cumsum(signs[:, np.newaxis] * self.sizes, axis=0)
        levels[:, 0] += self._base
        return levels

    @property
    def is_highest_in_step(self) -> bool:
        """True if the highest level is that of the step; only without symbols."""
        last = int(self.levels[-1, 0]) if len(self.levels) else self._base
        return last + self._step > max(int(self.levels.max(initial=0)), self._base)

    @cached_property
    def highest(self) -> tuple[Dim, ...]:
        """The levels of which one is the highest, whatever positive integers the symbols are.

        A level is left out if each of its coefficients is at most that of another one, or of a
        mean of two.
        """
        base = np.zeros((1, len(self.terms)), dtype=np.int64)
        base[0, 0] = self._base
        levels = np.concatenate((base, self.levels))
        in_step = levels[-1:].copy()
        in_step[0, 0] += self._step
        rows = np.concatenate((levels, in_step))
        if self.is_numeric:
            return (int(rows.max()),)
        rows = np.unique(rows, axis=0)
        rows = rows[np.argsort(-rows.sum(axis=1, dtype=np.float64), kind="stable")]
        kept: list[Integers] = []
        while len(rows):
            kept.append(rows[0])
            rows = rows[(rows > rows[0]).any(axis=1)]
        return tuple(self._expression(row) for row in _without_covered(kept))

    def _expression(self, coefficients: Integers) -> Dim:
        pairs = zip(self.terms, coefficients, strict=True)
        return as_dim(sympy.Add(*(int(coefficient) * term for term, coefficient in pairs)))


def _without_covered(rows: list[Integers]) -> list[Integers]:
    """Return the rows without those that are at most a mean of two others, weighted somehow.

    A mean is at most the higher of the two, so that such a row is never the highest.
    """
    kept = list(rows)
    for row in rows:
        others = [other for other in kept if other is not row]
        if len(others) > 1 and _is_covered(row, np.stack(others)):
            kept = others
    return kept


def _is_covered(row: Integers, others: Integers) -> bool:
    first, second = np.triu_indices(len(others), k=1)
    # Of weights w: w * gain >= need in each column.
    gain = (others[first] - others[second]).astype(np.float64)
    need = (row - others[second]).astype(np.float64)
    bound = np.divide(need, gain, out=np.zeros_like(need), where=gain != 0)
    lower = np.where(gain > 0, bound, 0).max(axis=1, initial=0)
    upper = np.where(gain < 0, bound, 1).min(axis=1, initial=1)
    feasible = (lower <= upper + _ROUNDING) & ((gain != 0) | (need <= 0)).all(axis=1)
    pairs = zip(others[first[feasible]].tolist(), others[second[feasible]].tolist(), strict=True)
    return any(_is_below_mean(row.tolist(), one, other) for one, other in pairs)


def _is_below_mean(row: list[int], one: list[int], other: list[int]) -> bool:
    """Return True if some mean of two rows is at least a row, in exact numbers."""
    lower, upper = Fraction(0), Fraction(1)
    for least, a, b in zip(row, one, other, strict=True):
        if a > b:
            lower = max(lower, Fraction(least - b, a - b))
        elif a < b:
            upper = min(upper, Fraction(least - b, a - b))
        elif a < least:
            return False
    return lower <= upper


@lru_cache(maxsize=4096)
def _terms(size: Dim) -> Mapping[sympy.Expr, int]:
    """Return the integer coefficients of a size by term."""
    if isinstance(size, int):
        return {_ONE: size}
    terms: dict[sympy.Expr, int] = {}
    for term, coefficient in sympy.expand(size).as_coefficients_dict().items():
        unit = term / coefficient.q  # half of a product counts as a term
        terms[unit] = terms.get(unit, 0) + int(coefficient.p)
    return terms
