"""From a call to a record."""

from typing import Any

import pytest
import sympy
import torch
from calls import Call
from torch._decomp import register_decomposition

from graphflops.capture import capture
from graphflops.conventions import exact
from graphflops.core.cost import OpCost
from graphflops.core.ir import OpCall, Status, TensorMeta
from graphflops.errors import HandlerError
from graphflops.pricing.memory_traffic import no_traffic
from graphflops.pricing.price import price, price_all
from graphflops.pricing.registry import Registry

X = TensorMeta((2, 3), "float32", name="x")


def _call(op: str = "t::op", **changes: Any) -> OpCall:
    return OpCall(
        **{"op": op, "inputs": {"self": X}, "attrs": {"alpha": 2}, "outputs": (X,), **changes}
    )


def _price(handler: Any, call: OpCall, **options: Any) -> OpCost:
    registry = Registry("test")
    registry.register("t::op", **options)(handler)
    record = price(call, registry)
    assert record.status is Status.COUNTED
    assert record.cost is not None
    return record.cost


def test_arguments_are_bound_by_schema_name_and_bytes_filled_in() -> None:
    def handler(alpha: int, self: TensorMeta, *, out: TensorMeta) -> OpCost:
        return OpCost(flops=alpha * self.numel + out.numel)

    assert _price(handler, _call()) == OpCost(flops=2 * 6 + 6, bytes_read=24, bytes_written=24)


def test_a_handler_may_state_its_own_bytes() -> None:
    cost = _price(lambda: OpCost(bytes_read=1, bytes_written=2), _call(), traffic=None)
    assert (cost.bytes_read, cost.bytes_written) == (1, 2)


def test_unknown_has_no_cost() -> None:
    record = price(_call("t::nobody"), Registry("test"))
    assert (record.status, record.cost) == (Status.UNKNOWN, None)


def test_free_moves_bytes_but_does_nothing() -> None:
    registry = Registry("test")
    registry.free("t::op", reason="a view", traffic=no_traffic)
    record = price(_call(), registry)
    assert (record.status, record.cost) == (Status.FREE, OpCost())


def test_integer_arithmetic_is_no_flop_but_keeps_macs_and_bytes() -> None:
    i = TensorMeta((2, 3), "int64")
    cost = _price(
        lambda: OpCost(flops=12, macs=6, transcendentals=1), _call(inputs={"self": i}, outputs=(i,))
    )
    assert cost == OpCost(macs=6, bytes_read=48, bytes_written=48)


def test_where_no_element_goes_in_nothing_is_computed() -> None:
    empty, means = TensorMeta((4, 0)), TensorMeta((4,))
    cost = _price(lambda: OpCost(flops=-8), _call(inputs={"self": empty}, outputs=(means,)))
    assert cost == OpCost(bytes_written=16)
    # A target that is given says nothing about what goes in.
    filled = _call(inputs={"out": empty}, outputs=(means,))
    assert _price(lambda: OpCost(flops=8), filled).flops == 8


@pytest.mark.parametrize(
    ("options", "flops"), [({}, [1, 2]), ({"position_dependent": False}, [1, 1])]
)
def test_a_handler_that_takes_the_call_may_depend_on_its_position(
    options: dict[str, Any], flops: list[int]
) -> None:
    registry = Registry("test")

    @registry.register("t::op", **options)
    def by_module(call: OpCall) -> OpCost:
        return OpCost(flops=1 if call.module_path == "first" else 2)

    calls = [_call(module_path="first"), _call(module_path="second")]
    assert [record.cost and record.cost.flops for record in price_all(calls, registry)] == flops


def test_a_loop_multiplies_everything() -> None:
    n = sympy.Symbol("n", positive=True, integer=True)
    assert _price(lambda: OpCost(flops=6), _call(trip_count=5)) == OpCost(
        flops=30, bytes_read=120, bytes_written=120
    )
    assert _price(lambda: OpCost(flops=6), _call(trip_count=n)).flops == 6 * n


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (lambda: 3, "returned int"),
        (lambda: OpCost(flops=1.5), "flops=1.5"),
        (lambda: OpCost(flops=-1), "flops=-1"),
        (lambda: OpCost(macs=sympy.Float(2.0)), "macs=2.0"),
        (lambda: OpCost(flops=sympy.Integer(-3)), "flops=-3"),
        (lambda: OpCost(flops=True), "flops=True"),
        (lambda: OpCost(bytes_read=4), "traffic=None"),
        (lambda: 1 / 0, "ZeroDivisionError"),
        (lambda weight: OpCost(), "'weight'"),  # noqa: ARG005 - what is tested
    ],
)
def test_a_broken_handler_is_named_with_its_call(handler: Any, complaint: str) -> None:
    with pytest.raises(HandlerError) as raised:
        _price(handler, _call(module_path="layers.0", name="op_7"))
    message = str(raised.value)
    for part in (complaint, "t::op", "op_7", "layers.0", "[2, 3]", "test_pricing.py:"):
        assert part in message


@torch.library.custom_op("pricing_of_parts::inner", mutates_args=())
def inner(x: torch.Tensor) -> torch.Tensor:
    return x.exp()


@torch.library.custom_op("pricing_of_parts::outer", mutates_args=())
def outer(x: torch.Tensor) -> torch.Tensor:
    return x.exp() + 1


inner.register_fake(torch.empty_like)
outer.register_fake(torch.empty_like)


@register_decomposition(torch.ops.pricing_of_parts.inner.default)
def _of_inner(x: torch.Tensor) -> torch.Tensor:
    return x.exp()


@register_decomposition(torch.ops.pricing_of_parts.outer.default)
def _of_outer(x: torch.Tensor) -> Any:
    return inner(x) + 1


def test_parts_of_an_operator_are_those_that_a_registry_prices() -> None:
    captured = capture(Call(outer), (torch.zeros(3),))
    own = Registry("own", base=exact())

    @own.register("pricing_of_parts::inner")
    def of_inner(*, out: TensorMeta) -> OpCost:
        """Ten of each."""
        return OpCost(flops=10 * out.numel)

    # The same capture, priced in turn.
    for registry, flops in ((exact(), 3 + 3), (own, 30 + 3), (exact(), 3 + 3)):
        (record,) = price_all(captured.calls, registry, captured.fallback)
        assert record.cost is not None
        assert record.cost.flops == flops
