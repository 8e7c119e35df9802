"""What cannot be trained: each a sentence that names the cause and what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graphflops as gf


class Calls(nn.Module):
    """A layer, and what is done with its result."""

    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3, device="meta")
        self.function = function

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(self.layer(x))


class Inner(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], Any]) -> None:
        super().__init__()
        self.deep = Calls(function)

    def forward(self, x: torch.Tensor) -> Any:
        return self.deep(x)


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(*_: Any) -> torch.Tensor:
        raise RuntimeError("no way back")


@torch.library.custom_op("graphflops_tests::opaque", mutates_args=())
def opaque(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


@opaque.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


LIBRARY: Any = torch.library
FRAGMENT = LIBRARY.Library("graphflops_tests", "FRAGMENT")
FRAGMENT.define("silent(Tensor x) -> Tensor")
FRAGMENT.impl("silent", lambda x: x.clone(), "CPU")
FRAGMENT.impl("silent", torch.empty_like, "Meta")


def silent(x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = torch.ops.graphflops_tests.silent(x)
    return result


def refusal(model: nn.Module, *, loss: Any = None, kind: type[Exception] = gf.CaptureError) -> str:
    before = {name: p.requires_grad for name, p in model.named_parameters()}
    with pytest.raises(kind) as refused:
        gf.count_training(model, (torch.empty(2, 3),), loss=loss)
    assert {name: p.requires_grad for name, p in model.named_parameters()} == before
    assert all(p.grad is None for p in model.parameters())
    return str(refused.value)


NOTHING_TO_DIFFERENTIATE: list[tuple[Callable[[], nn.Module], str]] = [
    (lambda: nn.ReLU(), "ReLU has no parameters: there is nothing to train."),
    (lambda: Calls(lambda x: x).requires_grad_(requires_grad=False), "all 2 parameters of Calls"),
    (
        lambda: Calls(lambda x: x.argmax()),
        "the model returns no floating-point tensor, but one of torch.int64",
    ),
    (lambda: Calls(lambda _: None), "the model returns no floating-point tensor, but nothing"),
    (lambda: Calls(lambda x: x.detach()), "does not depend on any parameter"),
    (
        lambda: Inner(lambda x: torch.special.zeta(x, x)),
        "the backward pass fails in deep at tests/test_training_errors.py:",
    ),
    (lambda: Inner(Broken.apply), "the backward pass fails in deep"),
    (
        lambda: Inner(lambda x: torch.ops.graphflops_tests.opaque(x)),
        "the backward pass fails in deep",
    ),
    (lambda: Inner(silent), "an operator that deep calls (at tests/test_training_errors.py:"),
    (lambda: Calls(lambda x: x @ x), "the forward of Calls fails on these inputs"),
]


@pytest.mark.parametrize(("build", "sentence"), NOTHING_TO_DIFFERENTIATE)
def test_what_has_no_backward_is_refused(build: Callable[[], nn.Module], sentence: str) -> None:
    assert sentence in refusal(build())


def test_the_causes_are_named() -> None:
    assert "no way back" in refusal(Inner(Broken.apply))
    assert "derivative for 'zeta' is not implemented" in refusal(
        Inner(lambda x: torch.special.zeta(x, x))
    )
    assert "register_autograd" in refusal(Inner(lambda x: torch.ops.graphflops_tests.opaque(x)))


def test_inference_mode() -> None:
    model = Calls(lambda x: x)
    with torch.inference_mode():
        assert "outside of torch.inference_mode()" in refusal(model)
        made_in_it = Calls(lambda x: x)
    assert "outside of torch.inference_mode()" in refusal(made_in_it)


LOSSES: list[tuple[Callable[[torch.Tensor], Any], str]] = [
    (lambda _: 3.0, "loss returned a float, no tensor"),
    (lambda out: out, "loss returned a tensor of shape [2, 3], no scalar"),
    (lambda out: out.argmax(), "loss returned a torch.int64 tensor"),
]


@pytest.mark.parametrize(("loss", "sentence"), LOSSES)
def test_a_loss_is_a_scalar(loss: Callable[[torch.Tensor], Any], sentence: str) -> None:
    assert sentence in refusal(Calls(lambda x: x), loss=loss, kind=gf.ModelSpecError)


def test_a_loss_that_forgets_the_model() -> None:
    message = refusal(Calls(lambda x: x), loss=lambda _: torch.zeros(()))
    assert "does not depend on any parameter" in message


ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    (
        {"gradient_accumulation_steps": 0},
        "gradient_accumulation_steps is 0. Give a whole number, 1 or more.",
    ),
    ({"steps": -1}, "steps is -1. Give a whole number, 1 or more."),
    ({"optimizer": "adamv"}, "Did you mean adam or adamw?"),
    ({"convention": "fvcore"}, "fvcore has no backward of its own"),
    ({"convention": "fvcor"}, "'fvcor' is no convention"),
]


@pytest.mark.parametrize(("options", "sentence"), ARGUMENTS)
def test_arguments_that_make_no_sense(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(gf.ModelSpecError) as refused:
        gf.count_training(nn.Linear(3, 3), (torch.empty(2, 3),), **options)
    assert sentence in str(refused.value)


def test_a_graph_cannot_be_trained() -> None:
    program = torch.export.export(nn.Linear(3, 3), (torch.empty(2, 3),))
    with pytest.raises(gf.ModelSpecError, match="this is of type ExportedProgram"):
        gf.count_training(program, (torch.empty(2, 3),))


def test_a_measurement_has_a_time() -> None:
    report = gf.count_training(nn.Linear(3, 3), (torch.empty(2, 3),))
    with pytest.raises(gf.ModelSpecError, match="is no measurement"):
        report.mfu(0, 1e12)
    with pytest.raises(gf.ModelSpecError, match="is no device known here"):
        gf.peak_flops("h101")
    with pytest.raises(gf.ModelSpecError, match="no peak rate of a100-sxm-80gb for float8"):
        gf.peak_flops("a100", "float8")
