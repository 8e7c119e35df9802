"""The algebra of costs."""

import pytest
import sympy
from hypothesis import given
from hypothesis import strategies as st

from graphflops.core.cost import OpCost, substitute

counts = st.integers(min_value=0, max_value=10**18)
costs = st.builds(
    OpCost,
    flops=counts,
    macs=counts,
    transcendentals=counts,
    bytes_read=counts,
    bytes_written=counts,
)
B, S = sympy.symbols("B S", positive=True, integer=True)


@given(costs, costs, costs)
def test_addition_is_a_commutative_monoid(a: OpCost, b: OpCost, c: OpCost) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c)
    assert a + OpCost() == a


@given(costs, st.integers(min_value=0, max_value=64))
def test_times_n_is_n_additions(cost: OpCost, n: int) -> None:
    assert cost * n == sum([cost] * n, start=OpCost())


def test_a_value_cannot_be_changed() -> None:
    cost = OpCost(flops=1)
    with pytest.raises(AttributeError):
        cost.flops = 2  # type: ignore[misc]  # what is tested


def test_symbols_become_plain_integers_once_bound() -> None:
    cost = OpCost(flops=2 * B * S, macs=B)
    half = cost.subs(B=4)
    assert half.flops == 8 * S
    assert type(half.macs) is int
    assert cost.subs(B=4, S=3) == OpCost(flops=24, macs=4)


def test_substituting_an_absent_symbol_changes_nothing() -> None:
    assert substitute(B * 2, {"S": 3}) == 2 * B
    assert substitute(7, {"S": 3}) == 7
