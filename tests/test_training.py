"""Training steps of small models, with the arithmetic written out."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import (
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)

import graphflops as gf

ROWS = 5
segments: Any = checkpoint_sequential  # without types


def linear(inputs: int, outputs: int, *, frozen: bool = False) -> nn.Linear:
    layer = nn.Linear(inputs, outputs, bias=False, device="meta")
    return layer.requires_grad_(not frozen)


def x(*shape: int, requires_grad: bool = False) -> torch.Tensor:
    return torch.empty(*(shape or (ROWS, 3)), device="meta", requires_grad=requires_grad)


def macs(report: gf.TrainingReport) -> dict[str, tuple[Any, ...]]:
    """Forward, input gradient, weight gradient and recomputation, in MACs, by module."""
    return {
        path: tuple(
            cost.macs for cost in (c.forward, c.input_gradient, c.weight_gradient, c.recompute)
        )
        for path, c in report.by_module_and_phase().items()
        if c.forward.macs != 0
    }


def test_the_first_layer_hands_no_gradient_on() -> None:
    report = gf.count_training(nn.Sequential(linear(3, 4), linear(4, 7)), (x(),))
    first, second = ROWS * 3 * 4, ROWS * 4 * 7
    assert macs(report) == {
        "": (first + second, second, first + second, 0),
        "0": (first, 0, first, 0),
        "1": (second, second, second, 0),
    }
    assert report.macs == 3 * (first + second) - first
    # The sum of all outputs, and its gradient, are no arithmetic of the layers.
    assert report.forward.by_module()["(loss)"].flops == ROWS * 7 - 1
    assert report.backward.flops == 2 * report.backward.macs


def test_an_input_that_requires_a_gradient_gets_one() -> None:
    inputs = x(requires_grad=True)
    report = gf.count_training(nn.Sequential(linear(3, 4), linear(4, 7)), (inputs,))
    assert macs(report)["0"] == (ROWS * 12, ROWS * 12, ROWS * 12, 0)
    assert inputs.grad is None


def test_frozen_layers() -> None:
    layers = [linear(3, 4, frozen=True), linear(4, 7), linear(7, 2, frozen=True), linear(2, 6)]
    report = gf.count_training(nn.Sequential(*layers), (x(),))
    found = macs(report)
    # Below the lowest trainable layer nothing is propagated; above it, frozen ones pass it on.
    assert found["0"] == (ROWS * 12, 0, 0, 0)
    assert found["1"] == (ROWS * 28, 0, ROWS * 28, 0)
    assert found["2"] == (ROWS * 14, ROWS * 14, 0, 0)
    assert found["3"] == (ROWS * 12, ROWS * 12, ROWS * 12, 0)
    assert report.params_trainable == 28 + 12


class Adapted(nn.Module):
    """A frozen layer with a low-rank update beside it, LoRA."""

    def __init__(self, inputs: int, outputs: int, rank: int) -> None:
        super().__init__()
        self.base = linear(inputs, outputs, frozen=True)
        self.down, self.up = linear(inputs, rank), linear(rank, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.base(x) + self.up(self.down(x))
        return result


def test_lora_written_by_hand() -> None:
    report = gf.count_training(nn.Sequential(Adapted(3, 8, 2), Adapted(8, 6, 2)), (x(),))
    found = macs(report)
    assert found["0.base"] == (ROWS * 24, 0, 0, 0)
    assert found["0.down"] == (ROWS * 6, 0, ROWS * 6, 0)
    assert found["0.up"] == (ROWS * 16, ROWS * 16, ROWS * 16, 0)
    assert found["1.base"] == (ROWS * 48, ROWS * 48, 0, 0)
    assert found["1.down"] == (ROWS * 16, ROWS * 16, ROWS * 16, 0)
    # The input of the second is used twice: its gradients are added in the module with both uses.
    assert report.backward.by_module()["1"].flops - 2 * report.backward.by_module()["1"].macs == (
        ROWS * 8
    )


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = linear(4, 4)
        self.second = self.first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.second(self.first(x))
        return result


def test_a_shared_module_has_both_its_calls() -> None:
    report = gf.count_training(Shared(), (x(ROWS, 4),))
    once = ROWS * 16
    # It is called first under the first of its names, whatever the attribute.
    assert macs(report) == {
        "": (2 * once, once, 2 * once, 0),
        "first": (2 * once, once, 2 * once, 0),
    }
    # Both gradients of the one weight are added: 16 elements.
    assert report.backward.by_module()["first"].flops == 2 * 3 * once + 16


class Tied(nn.Module):
    def __init__(self, *, tied: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 4, device="meta")
        self.head = linear(4, 10)
        if tied:
            self.head.weight = self.embed.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.embed(tokens))
        return result


def test_a_tied_weight_adds_up_two_gradients() -> None:
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    tied, apart = (gf.count_training(Tied(tied=t), (tokens,)) for t in (True, False))
    assert macs(tied) == macs(apart)
    assert (tied.params, apart.params) == (40, 80)
    # One addition for each of its 40 elements, in the module that holds it.
    assert tied.backward.flops - apart.backward.flops == 40
    assert (
        tied.backward.by_module()["embed"].flops - apart.backward.by_module()["embed"].flops == 40
    )


class Checkpointed(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.before, self.after = linear(3, 4), linear(6, 2)
        self.block = nn.Sequential(linear(4, 5), nn.Tanh(), linear(5, 6))
        self.options = options

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.after(checkpoint(self.block, self.before(x), **self.options))
        return result


@pytest.mark.parametrize("reentrant", [False, True])
def test_a_checkpointed_block_is_computed_again(reentrant: bool) -> None:
    report = gf.count_training(Checkpointed(use_reentrant=reentrant), (x(),))
    plain = gf.count_training(
        nn.Sequential(linear(3, 4), linear(4, 5), nn.Tanh(), linear(5, 6), linear(6, 2)), (x(),)
    )
    found = macs(report)
    # Without reentrance it stops where all that is needed is there: before the last product.
    assert found["block.0"] == (ROWS * 20, ROWS * 20, ROWS * 20, ROWS * 20)
    assert found["block.2"] == (ROWS * 30, ROWS * 30, ROWS * 30, ROWS * 30 * reentrant)
    assert found["before"][3] == found["after"][3] == 0
    assert report.recompute.by_module()["block.1"].flops == ROWS * 5
    assert report.macs == plain.macs
    assert report.model_flops == plain.model_flops
    again = 2 * ROWS * 20 + ROWS * 5 + 2 * ROWS * 30 * reentrant
    assert report.hardware_flops == report.model_flops + again
    assert report.forward.root.children[2].calls == 1


def test_checkpoints_in_checkpoints() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Checkpointed(use_reentrant=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = checkpoint(self.inner, x, use_reentrant=False)
            return result

    found = macs(gf.count_training(Outer(), (x(),)))
    # Computed again for the outer one, and once more for the inner one.
    assert found["inner.before"][3] == ROWS * 12
    assert found["inner.block.0"][3] == 2 * ROWS * 20
    assert found["inner.block.0"][:3] == (ROWS * 20, ROWS * 20, ROWS * 20)


def test_checkpoint_sequential() -> None:
    class Segments(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(*(linear(4, 4) for _ in range(4)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = segments(self.layers, 2, x, use_reentrant=False)
            return result

    found = macs(gf.count_training(Segments(), (x(ROWS, 4),)))
    # All segments but the last are computed again, up to their last product.
    assert [found[f"layers.{i}"][3] for i in range(4)] == [ROWS * 16, 0, 0, 0]


def test_a_checkpoint_that_keeps_products_computes_the_rest_again() -> None:
    class Selective(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.Sequential(linear(4, 4), nn.Tanh(), linear(4, 4), nn.Tanh())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept = [torch.ops.aten.mm.default]
            contexts = functools.partial(create_selective_checkpoint_contexts, kept)
            result: torch.Tensor = checkpoint(
                self.block, x, use_reentrant=False, context_fn=contexts
            )
            return result

    report = gf.count_training(Selective(), (x(ROWS, 4),))
    # Both tanh, and none of the products.
    assert (report.recompute.macs, report.recompute.flops) == (0, 2 * ROWS * 4)
    assert report.backward.macs == 3 * ROWS * 16


class Cube(torch.autograd.Function):
    """Its own backward takes a product more than the forward's derivative would."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x * x

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        result: torch.Tensor = gradient * (3 * x * x)
        return result


def test_a_custom_function_runs_its_own_backward() -> None:
    class Cubed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = Cube.apply(self.layer(x))  # type: ignore[no-untyped-call]  # torch's gap
            return result

    report = gf.count_training(Cubed(), (x(),))
    assert report.forward.root.own.flops == 2 * ROWS * 4
    assert report.backward.root.own.flops == 3 * ROWS * 4


def test_a_sum_of_gradients_belongs_to_the_module_with_all_uses() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = linear(4, 4), linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = x + self.a(x) + self.b(x)
            return result

    model = nn.Sequential(linear(3, 4), Residual(), Residual())
    report = gf.count_training(model, (x(),))
    own = {node.path: node.own.flops for node in report.backward.root.walk()}
    # Three uses, two additions for each of ROWS x 4 elements.
    assert (own["1"], own["2"]) == (2 * ROWS * 4, 2 * ROWS * 4)
    assert own[""] == 0


def test_gradients_stop_where_the_model_detaches() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower, self.head = linear(3, 4), linear(4, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                features = self.tower(x)
            result: torch.Tensor = self.head(features)
            return result

    found = macs(gf.count_training(Detached(), (x(),)))
    assert found["tower"] == (ROWS * 12, 0, 0, 0)
    assert found["head"] == (ROWS * 20, 0, ROWS * 20, 0)


def test_a_fused_kernel_makes_gradients_that_nobody_asks_for() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(x, x, self.value(x))

    found = gf.count_training(Attention(), (x(2, 3, 16, 8),))
    product = 2 * 3 * 16 * 16 * 8
    # Only that of the values is asked for: one product. The kernel computes the scores again
    # and makes three more: of the weights, of the queries, of the keys.
    assert found.forward.root.own.macs == 2 * product
    assert found.backward.root.own.macs == product
    assert found.recompute.root.own.macs == 4 * product


CONVOLUTIONS: list[tuple[Callable[[], nn.Module], tuple[int, ...], int]] = [
    (lambda: nn.Conv2d(3, 8, 3, padding=1, device="meta"), (2, 3, 6, 6), 2 * 8 * 36 * 27),
    (lambda: nn.Conv2d(8, 8, 3, groups=8, padding=1, device="meta"), (2, 8, 6, 6), 2 * 8 * 36 * 9),
    (lambda: nn.Conv1d(4, 6, 5, groups=2, device="meta"), (2, 4, 9), 2 * 6 * 5 * 2 * 5),
    (
        lambda: nn.ConvTranspose2d(4, 4, 3, 2, 1, 1, groups=4, device="meta"),
        (2, 4, 8, 8),
        2 * 4 * 64 * 9,
    ),
]


@pytest.mark.parametrize(("build", "shape", "forward"), CONVOLUTIONS)
def test_a_convolution_costs_its_forward_for_each_gradient(
    build: Callable[[], nn.Module], shape: tuple[int, ...], forward: int
) -> None:
    report = gf.count_training(build(), (x(*shape, requires_grad=True),))
    assert macs(report)[""] == (forward, forward, forward, 0)
    first = gf.count_training(build(), (x(*shape),))
    assert macs(first)[""] == (forward, 0, forward, 0)
