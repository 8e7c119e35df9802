"""Peak memory: of small models by hand, of architectures against torch's MemTracker."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, at_depth
from torch import nn
from torch.utils.checkpoint import checkpoint

import graphflops as gf
from benchmarks.memory_oracles import (
    CATEGORIES,
    Step,
    graphflops_memory,
    live_storages,
    live_storages_accumulating,
    mem_tracker,
)
from graphflops.errors import CaptureError

WIDTH = 64
FLOAT = 4
WEIGHT = WIDTH * WIDTH * FLOAT


def linear() -> nn.Linear:
    return nn.Linear(WIDTH, WIDTH, bias=False, device="meta")


def rows(count: int) -> torch.Tensor:
    return torch.empty(count, WIDTH, device="meta")


def test_a_result_is_freed_when_the_next_call_has_run() -> None:
    row = WIDTH * FLOAT
    memory = gf.count(nn.Sequential(linear(), linear(), linear()), (rows(8),)).memory
    # The input, which the caller holds, and the results of two linears at a time.
    assert memory.peak == 3 * WEIGHT + 3 * 8 * row
    assert (memory.parameters, memory.inputs, memory.activations) == (3 * WEIGHT, 8 * row, 16 * row)
    assert [point.after for point in memory.timeline] == [
        3 * WEIGHT + 8 * row,
        *(3 * WEIGHT + count * 8 * row for count in (2, 3, 3, 2)),
    ]


def test_a_variable_keeps_its_tensor() -> None:
    class Held(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            first = x + 1
            second = first + 1
            third = second + 1  # all three are alive, and the input
            return first + third

    assert gf.count(Held(), (rows(1),)).memory.peak == 5 * WIDTH * FLOAT


def test_views_and_writes_in_place_take_no_memory() -> None:
    class Views(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x.view(-1, 8).t().unsqueeze(0)
            y.add_(1).mul_(2)
            return y[..., :4]

    memory = gf.count(Views(), (rows(1),)).memory
    assert memory.peak == memory.inputs == WIDTH * FLOAT


def test_a_view_keeps_the_whole_storage() -> None:
    class Last(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + 1)[-1:] + 1

    assert gf.count(Last(), (rows(8),)).memory.peak == (8 + 8 + 1) * WIDTH * FLOAT


def test_what_autograd_saves() -> None:
    model = nn.Sequential(linear(), nn.Tanh(), linear())
    memory = gf.count_training(model, (rows(8),), optimizer="adamw").memory
    row = 8 * WIDTH * FLOAT
    state = 2 * 2 * WEIGHT  # two moments of two weights; counters lie on the CPU
    assert memory.optimizer == state
    loss = 4  # which the caller holds
    # In the step of the optimizer, the denominators of both weights.
    assert memory.peak == 4 * WEIGHT + row + state + 2 * WEIGHT + loss
    assert memory.gradients == 2 * WEIGHT


def test_what_an_optimizer_takes_on_the_cpu() -> None:
    model = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(2)))
    memory = gf.count_training(model, (torch.empty(8, WIDTH),), optimizer="adamw").memory
    row = 8 * WIDTH * FLOAT
    state = 2 * 2 * WEIGHT + 2 * 4  # two moments of two weights, and a counter for each
    assert memory.optimizer == state
    # In the step of the optimizer, the denominator of the weight before, a root and a quotient.
    assert memory.peak == 4 * WEIGHT + row + state + 3 * WEIGHT + 4


def test_the_largest_tensors_have_source_lines() -> None:
    class Large(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.expand(100, WIDTH).contiguous().sum(0)

    largest, *_ = gf.count(Large(), (rows(1),)).memory.at_peak
    assert (largest.nbytes, largest.operator) == (100 * WIDTH * FLOAT, "aten::contiguous")
    assert "test_memory.py" in largest.source_line


@pytest.mark.parametrize("name", ["llama", "bert", "resnet", "vit", "t5", "gpt2", "mamba"])
@pytest.mark.parametrize("reuse_layers", [True, False])
def test_forward_passes_against_mem_tracker(name: str, reuse_layers: bool) -> None:
    with at_depth(3):
        case = ARCHITECTURES[name]()
    step = Step(model=case.model, inputs=case.inputs, real=name == "llama")  # it reads its mask
    ours, theirs = graphflops_memory(step, reuse_layers=reuse_layers), mem_tracker(step)
    assert ours.peak == theirs["Total"] == live_storages(step)
    categories = ours.by_category()
    assert {k: categories[k] for k in CATEGORIES} == {k: theirs[v] for k, v in CATEGORIES.items()}


@pytest.mark.parametrize("name", ["llama", "bert", "resnet", "vit", "gpt2"])
@pytest.mark.parametrize(
    ("optimizer", "implementation"),
    [(None, "for-loop"), ("sgd", "for-loop"), ("adamw", "for-loop"), ("adamw", "foreach")],
)
def test_training_steps_against_mem_tracker(
    name: str, optimizer: str | None, implementation: Any
) -> None:
    with at_depth(3):
        case = ARCHITECTURES[name]()
    step = Step(
        model=case.model,
        inputs=case.inputs,
        trained=True,
        optimizer=optimizer,
        implementation=implementation,
    )
    ours, theirs = graphflops_memory(step), mem_tracker(step)
    assert ours.peak == theirs["Total"] == live_storages(step)


class Blocks(nn.Module):
    def __init__(self, *, checkpointed: bool, count: int = 4) -> None:
        super().__init__()
        self.checkpointed = checkpointed
        self.blocks = nn.ModuleList(
            nn.Sequential(linear(), nn.GELU(), linear(), nn.ReLU(inplace=True), linear())
            for _ in range(count)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            y = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
            x = x + y
        return x


class SharedGradient(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (
            nn.Parameter(torch.empty(WIDTH, device="meta")) for _ in range(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.first + self.second) * x


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class CustomFunction(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = linear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = Square.apply(self.linear(x)).tanh()  # type: ignore[no-untyped-call]  # torch's gap
        return result


class Smooth(nn.Module):
    """Activations whose backward decomposes on other devices than the CPU and CUDA."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = linear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.mish(nn.functional.silu(self.linear(x)))


@pytest.mark.parametrize("reuse_layers", [True, False])
@pytest.mark.parametrize(
    "model",
    [
        Blocks(checkpointed=False),
        Blocks(checkpointed=True),
        SharedGradient(),
        CustomFunction(),
        Smooth(),
    ],
    ids=["blocks", "checkpoints", "one gradient of two weights", "custom function", "silu"],
)
def test_training_of_small_models_against_mem_tracker(model: nn.Module, reuse_layers: bool) -> None:
    step = Step(model=model, inputs={"x": rows(16)}, trained=True)
    assert graphflops_memory(step, reuse_layers=reuse_layers).peak == mem_tracker(step)["Total"]


@pytest.mark.parametrize("reuse_layers", [True, False])
@pytest.mark.parametrize("count", [1, 16, 256])
def test_accumulated_gradients_are_there_from_the_start(count: int, reuse_layers: bool) -> None:
    model, x = Blocks(checkpointed=False).to_empty(device="cpu"), torch.zeros(count, WIDTH)
    step = gf.count_training(
        model, (x,), gradient_accumulation_steps=3, reuse_layers=reuse_layers
    ).memory
    assert step.gradients >= sum(p.nbytes for p in model.parameters())
    # Gradients that one node of autograd makes are added together; ours, one after the other.
    measured = live_storages_accumulating(model, {"x": x}, 3)
    assert step.peak == pytest.approx(measured, rel=0.01)
    once = gf.count_training(model, (x,), reuse_layers=reuse_layers).memory.peak
    assert once < 0.96 * measured


def test_an_exported_program_says_why_it_has_no_memory() -> None:
    report = gf.count(torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),)))
    with pytest.raises(CaptureError, match=r"Count the nn\.Module"):
        _ = report.memory
    step = gf.count_training(nn.Linear(2, 2), (torch.ones(1, 2),))
    with pytest.raises(CaptureError, match="report of the whole step"):
        _ = step.forward.memory


@pytest.mark.parametrize(
    ("p", "mode", "tensors"), [(0.1, True, 4), (0.1, False, 3), (0.0, True, 3)]
)
def test_dropout_that_drops_nothing_is_its_input(p: float, mode: bool, tensors: int) -> None:
    class Dropped(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y = x + 1
            dropped = nn.functional.dropout(y, p, mode)
            return y, dropped, dropped * 2

    assert gf.count(Dropped(), (rows(1),)).memory.peak == tensors * WIDTH * FLOAT


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_resized_images_take_no_memory_beside_the_result(mode: str) -> None:
    model = nn.Upsample(scale_factor=2, mode=mode)
    report = gf.count(model, (torch.empty(2, 4, 8, 8, device="meta"),))
    assert report.memory.peak == 4 * (2 * 4 * 8 * 8 + 2 * 4 * 16 * 16)


def test_a_negated_mask_is_freed_before_its_negation() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = ~(x > 0)
            return x.exp().sin().masked_fill(hidden, 0.0)

    # The input, the mask, and at the end the sine and the result; its exponential is freed.
    report = gf.count(Masked(), (torch.empty(8, 8, device="meta"),))
    assert report.memory.peak == 64 * (FLOAT + 1 + 2 * FLOAT)
