"""Costs of operators, FLOPs and bytes, as integers or symbolic expressions."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import sympy

Dim: TypeAlias = int | sympy.Expr
"""Size or count: a plain ``int``, or a sympy expression if a shape is symbolic."""

FLOPS_PER_MAC = 2
"""A multiply-accumulate is one multiplication and one addition."""


def substitute(value: Dim, values: Mapping[str, Dim]) -> Dim:
    """Substitute numbers or other expressions for symbols, by name.

    Args:
        value: Integer or expression.
        values: Replacements by symbol name; names that the expression lacks are ignored.

    Returns:
        A plain ``int`` if no symbol is left, else the remaining expression.

    Example:
        >>> substitute(2 * sympy.Symbol("S"), {"S": 21})
        42
    """
    if isinstance(value, int):
        return value
    bound = {s: sympy.sympify(values[s.name]) for s in value.free_symbols if s.name in values}
    # Sizes are plain arithmetic: xreplace() gives the same result as subs(), much faster.
    return as_dim(value.xreplace(bound))


def as_dim(value: Dim) -> Dim:
    """Return a value as a plain ``int`` if it is an integer, else unchanged."""
    if isinstance(value, int):
        return value
    return int(value) if value.is_Integer else value


def triangle(rows: Dim, columns: Dim, diagonal: Dim = 0) -> Dim:
    """Return the number of entries of a rows x columns matrix on or below a diagonal.

    Diagonal 0 is the main one, 1 the one above it. Row i has ``i + 1 + diagonal`` such entries,
    but at least 0 and at most ``columns``. That is max(0, i + 1 + diagonal) -
    max(0, i + 1 + diagonal - columns), and the sum of either term over the rows is a difference
    of two triangular numbers.
    """
    return _ramp(rows, diagonal) - _ramp(rows, diagonal - columns)


def _ramp(rows: Dim, start: Dim) -> Dim:
    # Sum of max(0, start + i) for i from 1 to rows.
    return _triangular(start + rows) - _triangular(start)


def _triangular(n: Dim) -> Dim:
    if isinstance(n, int):
        return max(n, 0) * (n + 1) // 2
    n = sympy.Max(n, 0)
    return n * (n + 1) / 2


@dataclass(frozen=True, slots=True, kw_only=True)
class OpCost:
    """Cost of one or more operator calls. A value: ``+`` sums, ``* n`` repeats.

    Attributes:
        flops: Floating-point operations; a multiply-accumulate is two of them.
        macs: Multiply-accumulates, of contractions only (never ``flops / 2``).
        transcendentals: Transcendental operations (``exp``, ``log``, ``sqrt``, ``tanh``, ...),
            included in ``flops``.
        flops_masked: FLOPs of attention on masked positions, included in ``flops``, as far as
            the mask is known. A kernel that skips them does ``flops - flops_masked``.
        bytes_read: Bytes read, each operator on its own (no fusion).
        bytes_written: Bytes written, each operator on its own.

    Example:
        >>> (OpCost(flops=6, macs=3) + OpCost(flops=1)) * 2
        OpCost(flops=14, macs=6, transcendentals=0, flops_masked=0, bytes_read=0, bytes_written=0)
    """

    flops: Dim = 0
    macs: Dim = 0
    transcendentals: Dim = 0
    flops_masked: Dim = 0
    bytes_read: Dim = 0
    bytes_written: Dim = 0

    def __add__(self, other: OpCost) -> OpCost:
        return OpCost(
            flops=self.flops + other.flops,
            macs=self.macs + other.macs,
            transcendentals=self.transcendentals + other.transcendentals,
            flops_masked=self.flops_masked + other.flops_masked,
            bytes_read=self.bytes_read + other.bytes_read,
            bytes_written=self.bytes_written + other.bytes_written,
        )

    def __mul__(self, times: Dim) -> OpCost:
        return self.map(lambda value: value * times)

    def map(self, function: Callable[[Dim], Dim]) -> OpCost:
        """Return the cost with a function applied to every field."""
        return OpCost(**{name: function(value) for name, value in self.items()})

    def items(self) -> tuple[tuple[str, Dim], ...]:
        """Return every field as ``(name, value)``, in declaration order."""
        return (
            ("flops", self.flops),
            ("macs", self.macs),
            ("transcendentals", self.transcendentals),
            ("flops_masked", self.flops_masked),
            ("bytes_read", self.bytes_read),
            ("bytes_written", self.bytes_written),
        )

    def with_bytes(self, read: Dim, written: Dim) -> OpCost:
        """Return the same arithmetic with other memory traffic."""
        return OpCost(
            flops=self.flops,
            macs=self.macs,
            transcendentals=self.transcendentals,
            flops_masked=self.flops_masked,
            bytes_read=read,
            bytes_written=written,
        )

    def without_masked(self) -> OpCost:
        """Return the cost of a kernel that skips masked positions of attention.

        Example:
            >>> OpCost(flops=14, macs=6, flops_masked=4).without_masked().macs
            4
        """
        # flops_masked are products alone.
        masked = self.flops_masked
        macs = masked // FLOPS_PER_MAC if isinstance(masked, int) else masked / FLOPS_PER_MAC
        return replace(self, flops=self.flops - masked, macs=self.macs - macs, flops_masked=0)

    def subs(self, **values: Dim) -> OpCost:
        """Substitute values for symbols, by name: ``cost.subs(B=8, S=2048)``."""
        return self.map(lambda value: substitute(value, values))


def total_of(costs: Iterable[OpCost]) -> OpCost:
    """Return the sum of costs, many of which are one object: calls that repeat.

    Args:
        costs: Costs that live until the sum is done.

    Example:
        >>> once = OpCost(flops=6, macs=3)
        >>> total_of([once, once, OpCost(flops=sympy.Symbol("S"))]).flops
        S + 12
    """
    times: Counter[int] = Counter()
    distinct: dict[int, OpCost] = {}
    for cost in costs:
        times[id(cost)] += 1
        distinct[id(cost)] = cost
    numbers: Counter[str] = Counter()
    terms: defaultdict[str, list[sympy.Expr]] = defaultdict(list)
    for key, cost in distinct.items():
        for name, value in cost.items():
            if isinstance(value, int):
                numbers[name] += times[key] * value
            else:
                terms[name].append(times[key] * value)
    # Sums of two at a time would make an expression for each.
    sums = {name: as_dim(sympy.Add(numbers[name], *added)) for name, added in terms.items()}
    return OpCost(**{**numbers, **sums})
