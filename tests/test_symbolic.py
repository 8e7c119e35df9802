"""Handlers on symbols: a price in letters is the price in numbers, whatever the numbers."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import sympy
import test_contractions
import test_prims
from calls import count
from hypothesis import given, settings
from hypothesis import strategies as st

from graphflops import conventions
from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpCall, Status, TensorMeta
from graphflops.pricing.price import price

CASES = {**test_prims.CASES, **{n: c[:2] for n, c in test_contractions.CASES.items()}}
# Other sizes would not fit its equation, in which equal sizes may be one label.
CONCRETE = {"aten::einsum"}


@cache
def _calls(name: str) -> tuple[OpCall, ...]:
    function, args = CASES[name]
    return tuple(
        record.call
        for record in count(function, *args).records
        if record.status is Status.COUNTED and record.call.op not in CONCRETE
    )


def _resized(call: OpCall, sizes: dict[int, Dim]) -> OpCall:
    """The call with other sizes in the place of those it has; 1 broadcasts and stays."""

    def tensor(meta: TensorMeta) -> TensorMeta:
        return replace(meta, shape=tuple(sizes.get(int(s), s) for s in meta.shape), strides=None)

    inputs = {
        name: tuple(t and tensor(t) for t in value) if isinstance(value, tuple) else tensor(value)
        for name, value in call.inputs.items()
    }
    return replace(call, inputs=inputs, outputs=tuple(map(tensor, call.outputs)))


def _cost(call: OpCall, sizes: dict[int, Dim]) -> OpCost:
    cost = price(_resized(call, sizes), conventions.exact()).cost
    assert cost is not None
    return cost


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_symbols_then_numbers_equals_numbers(name: str, data: st.DataObject) -> None:
    for call in _calls(name):
        tensors = [t for _, t in call.tensors()] + list(call.outputs)
        known = sorted({int(s) for t in tensors for s in t.shape if s != 1})
        numbers = {size: data.draw(st.integers(2, 64)) for size in known}
        symbols = {s: sympy.Symbol(f"s{s}", positive=True, integer=True) for s in known}
        named = {f"s{size}": number for size, number in numbers.items()}
        assert _cost(call, symbols).subs(**named) == _cost(call, dict(numbers))
