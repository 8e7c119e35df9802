"""Sums in closed form, against the terms added one by one."""

from __future__ import annotations

import sympy
from hypothesis import given
from hypothesis import strategies as st

from graphflops.core.closed_form import sum_over

K, B = (sympy.Symbol(name, positive=True, integer=True) for name in "KB")
N, P = (sympy.Symbol(name, positive=True, integer=True) for name in "NP")
BOUNDS = st.tuples(st.integers(0, 40), st.integers(-3, 40))


@given(st.lists(st.integers(-(10**12), 10**12), min_size=1, max_size=4), BOUNDS)
def test_polynomials(coefficients: list[int], bounds: tuple[int, int]) -> None:
    first, more = bounds
    value = sum((c * K**power for power, c in enumerate(coefficients)), start=sympy.Integer(0))
    terms = (sum(c * k**p for p, c in enumerate(coefficients)) for k in range(first, first + more))
    assert sum_over(value, "K", first, first + more - 1) == sum(terms)


@given(BOUNDS)
def test_what_is_no_polynomial_is_added_term_by_term(bounds: tuple[int, int]) -> None:
    first, more = bounds
    terms = sum(max(k, 7) + k // 3 for k in range(first, first + more))
    value = sympy.Max(K, 7) + sympy.floor(K / 3)
    assert sum_over(value, "K", first, first + more - 1) == terms


def test_other_symbols_stay() -> None:
    assert sum_over(B * K + 2, "K", 3, 5) == 12 * B + 6
    assert sum_over(5, "K", 3, 5) == 15
    closed = sum_over(K, "K", P, P + N - 2)
    assert closed.subs({P: 10, N: 4}) == 10 + 11 + 12  # type: ignore[union-attr]  # an expression
    assert sum_over(sympy.Max(K, 7), "K", P, N).has(sympy.Sum)  # type: ignore[union-attr]  # likewise
