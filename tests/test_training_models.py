"""How a training step treats a model: what it leaves alone, and what it takes for granted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_training import ROWS, linear, x
from torch import nn

import graphflops as gf


class Dropped(nn.Module):
    """Drops layers at random, as speech models do in training."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.first, self.second = linear(4, 4), linear(4, 4)
        self.chance = chance

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        result: torch.Tensor = x if torch.rand([]) < self.chance else self.second(x)
        return result


@pytest.mark.parametrize(("chance", "layers"), [(0.1, 2), (0.9, 1)])
def test_a_number_drawn_for_python_is_a_half(chance: float, layers: int) -> None:
    report = gf.count_training(Dropped(chance), (x(ROWS, 4),))
    assert report.forward.macs == layers * ROWS * 16
    assert any("taken to be 0.5" in note for note in report.notes)


def test_numbers_are_finite() -> None:
    class Clamped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.layer(x)
            if not torch.isfinite(x).all() or torch.isnan(x).any():
                x = x.clamp(-1, 1) @ x.T
            return x

    assert gf.count_training(Clamped(), (x(),)).forward.macs == ROWS * 12


def test_a_model_with_data_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2)).train()
    model[0].weight.grad = gradient = torch.randn(4, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    held = {name: id(value) for name, value in (*model.named_parameters(), *model.named_buffers())}
    inputs, chance = torch.randn(ROWS, 3), torch.get_rng_state()
    reports = [gf.count_training(model, (inputs,)) for _ in range(2)]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert held == {
        name: id(value) for name, value in (*model.named_parameters(), *model.named_buffers())
    }
    assert model[0].weight.grad is gradient
    assert [p.grad for p in model.parameters()][1:] == [None] * 5
    assert torch.equal(torch.get_rng_state(), chance)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    # Twice the same.
    first, second = ([(r.call, r.cost) for r in report.backward.records] for report in reports)
    assert first == second
    # Layers of PyTorch's own have no line of the model's code.
    assert {
        r.call.source_line for r in reports[0].forward.records if r.call.module_path == "0"
    } == {""}


def test_a_compiled_model_is_counted_as_written() -> None:
    model = nn.Sequential(linear(3, 4), nn.Tanh(), linear(4, 5))
    compiled: Any = torch.compile(model)
    assert gf.count_training(compiled, (x(),)).by_module_and_phase() == (
        gf.count_training(model, (x(),)).by_module_and_phase()
    )


def test_a_model_without_inputs() -> None:
    class Weighs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 4))

        def forward(self) -> torch.Tensor:
            return self.weight @ self.weight.T

    report = gf.count_training(Weighs())
    assert (report.forward.macs, report.backward.macs) == (3 * 4 * 3, 2 * 3 * 4 * 3)
