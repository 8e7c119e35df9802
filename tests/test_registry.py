"""Looking handlers up."""

import pytest

from graphflops import conventions
from graphflops.core.cost import OpCost
from graphflops.core.ir import OpCall
from graphflops.errors import DuplicateHandlerError
from graphflops.pricing.memory_traffic import no_traffic
from graphflops.pricing.registry import Registry


def _registry() -> Registry:
    registry = Registry("test")

    @registry.register("aten::add")
    def packet() -> OpCost:
        return OpCost(flops=1)

    @registry.register("aten::add.Scalar")
    def overload() -> OpCost:
        return OpCost(flops=2)

    registry.free("aten::view", reason="a view", traffic=no_traffic)
    return registry


@pytest.mark.parametrize(
    ("op", "overload", "found"),
    [
        ("aten::add", "Tensor", "aten::add"),
        ("aten::add", "Scalar", "aten::add.Scalar"),
        ("aten::add_", "Tensor", "aten::add"),  # in place, priced as the functional form
        ("aten::__add__", "default", None),
        ("aten::sub", "Tensor", None),
        ("aten::view", "default", "aten::view"),
    ],
)
def test_lookup(op: str, overload: str, found: str | None) -> None:
    entry = _registry().lookup(OpCall(op=op, overload=overload))
    assert (entry.op if entry else None) == found


def test_a_second_registration_raises_and_names_both_places() -> None:
    registry = _registry()
    with pytest.raises(DuplicateHandlerError) as raised:

        @registry.register("aten::add")
        def again() -> OpCost:
            return OpCost()

    assert str(raised.value).count("test_registry.py:") == 2
    with pytest.raises(DuplicateHandlerError):
        registry.free("aten::view", reason="again", traffic=no_traffic)


def test_position_dependence_is_said_at_registration() -> None:
    registry = Registry("test")
    registry.register("t::shapes")(lambda: OpCost())
    registry.register("t::call")(lambda call: OpCost(flops=call.index))
    registry.register("t::shapes_said", position_dependent=True)(lambda: OpCost())
    registry.register("t::call_said", position_dependent=False)(
        lambda call: OpCost(flops=call.index)
    )
    assert {entry.op: entry.position_dependent for entry in registry} == {
        "t::shapes": False,
        "t::call": True,
        "t::shapes_said": True,
        "t::call_said": False,
    }


@pytest.mark.parametrize("name", conventions.names())
def test_no_handler_that_ships_depends_on_position(name: str) -> None:
    assert [entry.op for entry in conventions.get(name) if entry.position_dependent] == []


def test_a_later_registration_is_seen_after_a_lookup() -> None:
    registry = _registry()
    call = OpCall(op="mylib::scale")
    assert registry.lookup(call) is None
    registry.register("mylib::scale")(lambda: OpCost())
    found = registry.lookup(call)
    assert found is not None
    assert found.op == "mylib::scale"
