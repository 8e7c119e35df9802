"""Whose gradients a training step computes, against a real backward pass that is counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf
from graphflops.core.ir import Phase


def real_step(model: nn.Module, *args: torch.Tensor) -> int:
    """FLOPs of contractions that a real step makes."""
    with FlopCounterMode(display=False) as counter:
        model(*args).sum().backward()
    return int(counter.get_total_flops())


def counted_step(model: nn.Module, *args: torch.Tensor, **options: Any) -> int:
    step = gf.count_training(model, args, **options)
    return 2 * int(step.forward.macs + step.backward.macs + step.recompute.macs)


class Checkpointed(nn.Module):
    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
        self.last, self.reentrant = nn.Linear(8, 8), reentrant

    def forward(self, x: Any) -> Any:
        return self.last(checkpoint(self.block, x, use_reentrant=self.reentrant))


def squared(gradient: torch.Tensor) -> torch.Tensor:
    return gradient @ gradient


def square(parameter: torch.Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad = parameter.grad @ parameter.grad


def hooked(model: Any, *, after: bool) -> Any:
    weights: list[Any] = [part.weight for part in model.modules() if isinstance(part, nn.Linear)]
    for weight in weights:
        if after:
            weight.register_post_accumulate_grad_hook(square)
        else:
            weight.register_hook(squared)
    return model


def two() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))


MODELS: dict[str, Callable[[], nn.Module]] = {
    "trained": two,
    "frozen": lambda: two().requires_grad_(requires_grad=False),
    "first frozen": lambda: nn.Sequential(
        nn.Linear(8, 8).requires_grad_(requires_grad=False), *two()
    ),
    "checkpoint": lambda: Checkpointed(reentrant=False),
    "reentrant checkpoint": lambda: Checkpointed(reentrant=True),
    "hooks": lambda: hooked(two(), after=False),
    "hooks after": lambda: hooked(two(), after=True),
    "layers with hooks": lambda: hooked(
        nn.Sequential(*[nn.Sequential(*two(), *two(), *two()) for _ in range(6)]), after=False
    ),
}
"""Models, each for inputs that require a gradient and that do not."""


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("asked", [True, False], ids=["for the input", "not for the input"])
@pytest.mark.parametrize("place", ["cpu", "meta", "large"])
@pytest.mark.parametrize("name", MODELS)
def test_as_a_real_step(name: str, place: str, asked: bool) -> None:
    if name == "frozen" and not asked:
        pytest.skip("nothing asks for a gradient")
    rows = (1 << 17) + 1 if place == "large" else 4  # more than what is known of inputs
    expected = real_step(MODELS[name](), torch.randn(rows, 8, requires_grad=asked))
    device = "meta" if place == "meta" else "cpu"
    x = torch.randn(rows, 8, device=device, requires_grad=asked)
    assert counted_step(MODELS[name](), x) == expected


def test_a_reentrant_checkpoint_computes_again() -> None:
    step = gf.count_training(Checkpointed(reentrant=True), (torch.randn(4, 8, requires_grad=True),))
    # Three products of 4 x 8 x 8 forward; twice as many backward, and two of the three again.
    assert 2 * step.backward.macs == 2 * 3 * 2 * 4 * 8 * 8
    assert 2 * step.recompute.macs == 2 * 2 * 4 * 8 * 8


def test_inference_mode_is_named_whatever_asks_for_a_gradient() -> None:
    x = torch.randn(2, 8, requires_grad=True)
    with torch.inference_mode(), pytest.raises(gf.CaptureError, match="inference mode"):
        gf.count_training(two(), (x,))


class PartlyUsed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = nn.Linear(4, 4), nn.Linear(100, 100)

    def forward(self, x: Any) -> Any:
        return self.used(x)


@pytest.mark.parametrize("after", [True, False])
def test_the_optimizer_passes_over_parameters_without_a_gradient(after: bool) -> None:
    model = hooked(PartlyUsed(), after=True) if after else PartlyUsed()
    step = gf.count_training(model, (torch.randn(2, 4),), optimizer="sgd")
    assert step.optimizer is not None
    assert step.optimizer.parameters == 4 * 4 + 4


def test_hooks_of_a_model_are_copied() -> None:
    seen: list[torch.Tensor] = []
    model = two()
    weight: Any = model[0].weight
    weight.register_hook(seen.append)
    before = list(weight._backward_hooks.items())
    gf.count_training(model, (torch.randn(2, 8),))
    assert not seen
    assert list(weight._backward_hooks.items()) == before
    assert weight.grad is None


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_is_computed_again_has_the_line_of_its_checkpoint(reentrant: bool) -> None:
    x = torch.randn(4, 8, requires_grad=True)
    step = gf.count_training(Checkpointed(reentrant=reentrant), (x,))
    calls = [record.call for part in step.parts for record in part.records]
    forward = {
        c.source_line
        for c in calls
        if c.phase is Phase.FORWARD and c.module_path.startswith("block")
    }
    again = {call.source_line for call in calls if call.phase is Phase.RECOMPUTE}
    assert again == forward
    assert all(forward)


@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True}, {"num_layers": 2}, {"bias": False}, {"batch_first": True}],
)
@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("frozen", ["none", "weight_ih", "weight_hh", "bias_hh", "weight", "_l0"])
def test_the_fused_lstm_of_a_cpu_as_its_steps(
    options: dict[str, Any], asked: bool, frozen: str
) -> None:
    # In float64 there is no fused kernel: each step's products are counted one by one.
    products = []
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(5, 3, 8, dtype=dtype, requires_grad=asked)
        model = nn.LSTM(8, 16, dtype=dtype, **options)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(frozen not in name)
        if not (asked or any(p.requires_grad for p in model.parameters())):
            pytest.skip("nothing asks for a gradient")
        step = gf.count_training(model, (x,))
        records = [
            (r.call.is_weight_gradient, r.cost.macs) for r in step.backward.records if r.cost
        ]
        products.append([sum(macs for of, macs in records if of is kind) for kind in (True, False)])
    assert products[0] == products[1]


def test_an_lstm_by_hand() -> None:
    step = gf.count_training(nn.LSTM(8, 16), (torch.randn(5, 2, 8),))
    # Four steps go back to the one before; of five, the weights' gradients are made.
    assert step.backward.macs == 2 * 4 * (4 * 16) * 16 + 2 * 5 * (4 * 16) * (8 + 16)
