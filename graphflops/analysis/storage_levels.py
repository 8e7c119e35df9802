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
_LINE = 2
"""Number of terms of a level that is linear in one product of symbols."""


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
        columns = {term: column for column, term in enumerate(self.terms)}
        rows = np.zeros((max(self._sizes, default=-1) + 1, len(self.terms)), dtype=np.int64)
        for number, size in self._sizes.items():
            for term, coefficient in size.items():
                rows[number, columns[term]] = coefficient
        return rows[self.events.allocation_of[self.events.storages]]

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

        A level is left out if each of its coefficients is at most that of another one.
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
        if len(self.terms) == _LINE:
            kept = _upper_envelope(kept)
        return tuple(self._expression(row) for row in kept)

    def _expression(self, coefficients: Integers) -> Dim:
        pairs = zip(self.terms, coefficients, strict=True)
        return as_dim(sympy.Add(*(int(coefficient) * term for term, coefficient in pairs)))


def _upper_envelope(lines: list[Integers]) -> list[Integers]:
    """Return the lines, of intercept and slope, of which one is the highest at some x >= 0.

    Args:
        lines: Lines of which none is below another one throughout.
    """
    envelope: list[tuple[int, int]] = []
    for intercept, slope in sorted((int(line[0]), int(line[1])) for line in lines)[::-1]:
        line = intercept, slope
        # The last line is on top from where it meets the one before, unless this one is by then.
        while len(envelope) > 1 and _meet(envelope[-1], line) <= _meet(*envelope[-2:]):
            envelope.pop()
        envelope.append(line)
    return [np.array(line) for line in envelope]


def _meet(flat: tuple[int, int], steep: tuple[int, int]) -> Fraction:
    """Return the x at which a steeper line reaches a flatter one."""
    return Fraction(flat[0] - steep[0], steep[1] - flat[1])


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
