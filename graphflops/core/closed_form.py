"""Closed-form sums over a range of a symbol."""

from __future__ import annotations

from functools import cache
from typing import cast

import sympy

from graphflops.core.cost import Dim, as_dim, substitute

_N = sympy.Symbol("n", integer=True)


def sum_over(value: Dim, name: str, first: Dim, last: Dim) -> Dim:
    """Return the sum of a cost over a range of integer values of a symbol.

    Polynomials are summed with Faulhaber's formula, whatever the number of terms. Other
    expressions are summed term by term if the bounds are numbers, else left as a ``sympy.Sum``.

    Args:
        value: Cost as an expression in the symbol and perhaps others.
        name: Name of the symbol.
        first: First value of the symbol.
        last: Last value; the range is empty if it is below ``first``.

    Example:
        >>> sum_over(3 * sympy.Symbol("K") + 1, "K", 10, 12)  # 31 + 34 + 37
        102
    """
    if isinstance(first, int) and isinstance(last, int) and last < first:
        return 0
    symbols = () if isinstance(value, int) else value.free_symbols
    symbol = next((s for s in symbols if s.name == name), None)
    if symbol is None:
        return as_dim(sympy.sympify(value * (last - first + 1)))
    coefficients = _coefficients(cast("sympy.Expr", value), symbol)
    if coefficients is not None:
        terms = (
            c * (_power_sum(power, last) - _power_sum(power, first - 1))
            for power, c in enumerate(coefficients)
        )
        return as_dim(sympy.Add(*terms))
    if isinstance(first, int) and isinstance(last, int):
        return sum(substitute(value, {name: k}) for k in range(first, last + 1))
    return sympy.Sum(value, (symbol, first, last))


@cache
def _coefficients(value: sympy.Expr, symbol: sympy.Symbol) -> tuple[sympy.Expr, ...] | None:
    """Return coefficients by power of a symbol, constant first; ``None`` if no polynomial."""
    expanded = sympy.expand(value)
    if not expanded.is_polynomial(symbol):
        return None
    return tuple(reversed(sympy.Poly(expanded, symbol).all_coeffs()))


def _power_sum(power: int, last: Dim) -> sympy.Expr:
    return cast("sympy.Expr", _faulhaber(power).xreplace({_N: sympy.sympify(last)}))


@cache
def _faulhaber(power: int) -> sympy.Expr:
    """Return 1^power + 2^power + ... + n^power as a polynomial in n."""
    k = sympy.Symbol("k", integer=True)
    return sympy.factor(sympy.summation(k**power, (k, 1, _N)))
