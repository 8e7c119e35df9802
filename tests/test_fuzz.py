"""Generated models: the sweep itself, small, and the page about the large one."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch import nn

import graphflops as gf
from benchmarks import fuzz, fuzz_checks, fuzz_functions, fuzz_layers, fuzz_page, fuzz_state
from benchmarks.fuzz_graphs import Graph, generate

EVERYTHING = frozenset(fuzz_page.CHECKS)

pytestmark = pytest.mark.filterwarnings("ignore")


def failures(kind: str, numbers: range) -> list[Any]:
    """What failed, by model."""
    found = (fuzz_checks.examine(f"{kind}:{number}", EVERYTHING) for number in numbers)
    return [(one.name, one.failures) for one in found if one.failures]


@pytest.mark.parametrize(("kind", "numbers"), [("forward", range(8)), ("step", range(2))])
def test_a_few_models(kind: str, numbers: range) -> None:
    assert failures(kind, numbers) == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "numbers"), [("forward", range(150)), ("step", range(50))])
def test_many_models(kind: str, numbers: range) -> None:
    assert failures(kind, numbers) == []


def test_a_model_follows_from_its_name() -> None:
    first, second, other = (generate(name, training=False) for name in ("a:1", "a:1", "a:2"))
    assert first is not None
    assert second is not None
    assert other is not None
    assert str(first.model) == str(second.model) != str(other.model)
    assert all(
        map(torch.equal, first.model.state_dict().values(), second.model.state_dict().values())
    )


def test_there_are_many_kinds() -> None:
    layers = {*fuzz_layers.ANY}.union(*fuzz_layers.BY_RANK.values())
    functions = {*fuzz_functions.ANY}.union(*fuzz_functions.BY_RANK.values())
    assert len(layers) + len(functions) > 140


class Harmful(nn.Module):
    """A model with something of each kind that could be harmed."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.kept: list[object] = []

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(x)


def harm_a_value(model: Harmful) -> None:
    model.linear.weight.data[0, 0] += 1


def harm_an_identity(model: Harmful) -> None:
    model.linear.weight = nn.Parameter(model.linear.weight.detach().clone())


def harm_a_list(model: Harmful) -> None:
    model.kept.append(model.linear.weight.detach())


def harm_a_flag(model: Harmful) -> None:
    model.linear.bias.requires_grad_(False)


def harm_a_gradient(model: Harmful) -> None:
    model.linear.weight.grad = torch.zeros(2, 2)


def harm_hooks(model: Harmful) -> None:
    model.linear.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize(
    "harm",
    [harm_a_value, harm_an_identity, harm_a_list, harm_a_flag, harm_a_gradient, harm_hooks],
)
def test_harm_to_a_model_is_seen(harm: Any) -> None:
    model = Harmful()
    before = fuzz_state.of_model({"model": model})
    assert fuzz_state.differences(before, fuzz_state.of_model({"model": model})) == []
    harm(model)
    assert fuzz_state.differences(before, fuzz_state.of_model({"model": model}))


def test_harm_to_the_process_and_to_chance_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    process, chance = fuzz_state.of_process(), fuzz_state.of_chance()
    assert fuzz_state.differences(process, fuzz_state.of_process()) == []
    with torch.random.fork_rng():
        torch.rand(1)
        assert fuzz_state.differences(chance, fuzz_state.of_chance()) == [
            "torch's generator changed"
        ]
    monkeypatch.setattr(torch.nn.Module, "__call__", lambda *_: None)
    with torch.no_grad():
        assert fuzz_state.differences(process, fuzz_state.of_process()) == [
            "grad mode changed",
            "Module.__call__ changed",
        ]


def test_a_wrong_price_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    linear = Graph(nn.Linear(2, 3), (torch.zeros(4, 2),), {}, Counter())
    monkeypatch.setattr(fuzz_checks, "generate", lambda *_, **__: linear)
    assert not fuzz_checks.examine("forward:0", EVERYTHING).failures
    registry = gf.Registry("wrong")
    registry.register("aten::linear")(lambda: gf.OpCost(flops=2, macs=1))
    count = gf.count
    monkeypatch.setattr(gf, "count", lambda *a, **k: count(*a, registry=registry, **k))
    (failure,) = fuzz_checks.examine("forward:0", EVERYTHING).failures
    assert failure == ("contractions", "2 and FlopCounterMode 48")


def test_parts_add_up_and_go_on() -> None:
    row = fuzz.examine_part("forward:0-2", frozenset({"totals"}))
    again = json.loads(json.dumps(row))
    found = fuzz.summary([again, {**again, "part": "forward:2-4"}], {}, frozenset({"totals"}))
    assert found["forward"]["outcomes"]["counted"] == 2 * row["outcomes"]["counted"] > 0
    assert found["step"]["outcomes"] == {}


def test_the_page_is_that_of_the_results() -> None:
    assert fuzz_page.PAGE.read_text("utf-8") == fuzz_page.page(), (
        "run: python -m benchmarks.fuzz --render-only"
    )
