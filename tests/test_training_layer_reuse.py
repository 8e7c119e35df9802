"""Training steps with repeated layers run once: the same records as without."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, at_depth
from test_layer_reuse import described
from torch import nn
from torch.utils.checkpoint import checkpoint

import graphflops as gf
from graphflops.core.call_sequence import Relocation

WIDTH = 8


def compared(model: nn.Module, args: Any = (), kwargs: Any = None, *, in_order: bool = True) -> int:
    """How many layers were reused; both ways make the same records and count the same calls."""
    ours, plain = (
        gf.count_training(model, args, kwargs, reuse_layers=reuse_layers)
        for reuse_layers in (True, False)
    )
    for found, expected in zip(ours.parts, plain.parts, strict=True):
        here, there = (list(map(_described, part.records)) for part in (found, expected))
        if in_order:
            assert here == there
            assert [r.call.index for r in found.records] == [r.call.index for r in expected.records]
        assert Counter(here) == Counter(there)
    modules = [{m.path: m.calls for m in r.forward.capture.modules} for r in (ours, plain)]
    assert modules[0] == modules[1]
    assert ours.by_module_and_phase() == plain.by_module_and_phase()
    _check_dataflow(model, ours)
    return ours.forward.capture.layer_reuse.layers


def _described(record: gf.OpRecord) -> Any:
    """All of a record but the name of its node and its number."""
    call = record.call
    alike = replace(record, call=replace(call, index=0))
    return (*described(alike), call.phase, call.is_weight_gradient, call.discarded_gradients)


def _check_dataflow(model: nn.Module, report: gf.TrainingReport) -> None:
    """Each tensor that a call takes is an input, a parameter or what an earlier call has made."""
    made = {name for name, _ in report.forward.capture.inputs}
    made |= {name for name, _ in (*model.named_parameters(), *model.named_buffers())}
    calls = [record.call for part in report.parts for record in part.records]
    for call in sorted(calls, key=lambda call: call.index):
        for _, tensor in call.tensors():
            assert tensor.name in made or tensor.name.startswith("constant"), (call, tensor)
        made.update(out.name for out in call.outputs)


# Their decoders' layers share the encoder's states: sums of their gradients come in another order.
SHARED = {"t5", "bart", "whisper"}
QUICK = ["llama", "bert", "t5", "resnet", "qwen3_moe"]


@pytest.mark.parametrize("name", QUICK)
def test_records_are_the_same(name: str) -> None:
    with at_depth(4):
        case = ARCHITECTURES[name]()
    assert compared(case.model, kwargs=case.inputs, in_order=name not in SHARED) > 0


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", sorted({*ARCHITECTURES} - {"wav2vec2"}))
def test_records_of_all_architectures_are_the_same(name: str, training: bool) -> None:
    with at_depth(5):
        case = ARCHITECTURES[name]()
    case.model.train(training)
    compared(case.model, kwargs=case.inputs, in_order=name not in SHARED)


class Layer(nn.Module):
    """A residual block with enough operators to be worth repeating."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        hidden = torch.sigmoid(self.inner(self.norm(x)))
        return torch.tanh(x + self.dropout(self.outer(hidden * hidden)))


class Stack(nn.Module):
    def __init__(self, layers: list[nn.Module], run: Callable[..., Any] | None = None) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(layers)
        self.run = run or (lambda layer, x: layer(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        for layer in self.layers:
            x = self.run(layer, x)
        return x


def layers() -> list[nn.Module]:
    with torch.device("meta"):
        return [Layer() for _ in range(5)]


def freeze(layer: Any) -> None:
    layer.inner.requires_grad_(False)


def halve(layer: Any) -> None:
    layer.dropout.p = 0.25


def hook(layer: nn.Module) -> None:
    layer.register_forward_hook(lambda *_: None)


def gradient_hook(layer: Any) -> None:
    layer.inner.register_full_backward_hook(lambda *_: None)


def evaluate(layer: nn.Module) -> None:
    layer.eval()


ODD_ONES: dict[str, tuple[Callable[[nn.Module], Any], int]] = {
    "nothing": (lambda _: None, 4),
    # One of five is another kind: of four alike, three are reused.
    "frozen in part": (freeze, 3),
    "another dropout": (halve, 3),
    "a hook": (hook, 3),
    "a hook on gradients": (gradient_hook, 3),
    "in eval mode": (evaluate, 3),
}


@pytest.mark.parametrize("name", ODD_ONES)
def test_one_layer_is_another(name: str) -> None:
    change, expected = ODD_ONES[name]
    model = Stack(layers()).train()
    change(model.layers[2])
    assert compared(model, (torch.empty(3, WIDTH, device="meta"),)) == expected


def test_frozen_below() -> None:
    model = Stack(layers())
    for frozen in (model.first, *model.layers[:2]):
        frozen.requires_grad_(False)
    # The lowest trainable layer hands no gradient on, which makes it another kind.
    assert compared(model, (torch.empty(3, WIDTH, device="meta"),)) == 1 + 1


def test_gradients_that_come_in_differently() -> None:
    # The last layer gets the gradient of a sum, a number spread out, the others get tensors.
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for _ in range(3):
                x = self.linear(x).reshape(3, WIDTH)
            return x

    with torch.device("meta"):
        made: list[nn.Module] = [Plain() for _ in range(5)]
    assert compared(Stack(made), (torch.empty(3, WIDTH, device="meta"),)) == 4


def test_outputs_of_which_one_layer_uses_more() -> None:
    class Two(Layer):
        def forward(self, x: torch.Tensor, *_: Any) -> Any:
            return super().forward(x), (x * 2).exp() * 3

    class Sums(Stack):
        def forward(self, x: torch.Tensor) -> Any:
            extra = []
            x = self.first(x)
            for number, layer in enumerate(self.layers):
                x, more = layer(x)
                extra += [more] * (number == 3)
            return x + sum(extra)

    with torch.device("meta"):
        model = Sums([Two() for _ in range(5)])
    assert compared(model, (torch.empty(3, WIDTH, device="meta"),)) == 4


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_around_layers_run_twice(reentrant: bool) -> None:
    def run(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = checkpoint(layer, x, use_reentrant=reentrant)
        return result

    model = Stack(layers(), run)
    assert compared(model, (torch.empty(3, WIDTH, device="meta"),)) == 0


def test_checkpoints_within_layers() -> None:
    class Inside(Layer):
        def forward(self, x: torch.Tensor, *_: Any) -> Any:
            return checkpoint(super().forward, x, use_reentrant=False)

    with torch.device("meta"):
        model = Stack([Inside() for _ in range(4)])
    assert compared(model, (torch.empty(3, WIDTH, device="meta"),)) == 3


def test_transformers_checkpoints_are_within_layers() -> None:
    with at_depth(4):
        case = ARCHITECTURES["llama"]()
    model: Any = case.model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert compared(model, kwargs=case.inputs) == 3


def test_a_weight_that_all_layers_share() -> None:
    made: list[Any] = layers()
    for layer in made:
        layer.inner.weight = made[0].inner.weight
    # Where its gradients are added up is another order.
    model, inputs = Stack(made), (torch.empty(3, WIDTH, device="meta"),)
    assert compared(model, inputs, in_order=False) == 4


def test_a_weight_that_all_layers_use_twice() -> None:
    class Doubled(Layer):
        def __init__(self) -> None:
            super().__init__()
            self.again = nn.Linear(WIDTH, 16)

        def forward(self, x: torch.Tensor) -> Any:
            return super().forward(x + self.again(x).mean(-1, keepdim=True))

    with torch.device("meta"):
        made: list[Any] = [Doubled() for _ in range(5)]
    for layer in made:
        layer.again.weight = layer.inner.weight = made[0].inner.weight
    # Each adds up its two gradients; all sums belong to the layer that holds the weight.
    model, inputs = Stack(made), (torch.empty(3, WIDTH, device="meta"),)
    compared(model, inputs, in_order=False)


def test_states_that_all_layers_see() -> None:
    class Cross(Layer):
        def forward(self, x: torch.Tensor, *seen: Any) -> Any:
            result: torch.Tensor = super().forward(x + seen[0]) * seen[0]
            return result

    class Seeing(Stack):
        def forward(self, x: torch.Tensor) -> Any:
            seen = self.first(x)
            for layer in self.layers:
                x = layer(x, seen)
            return x

    with torch.device("meta"):
        model = Seeing([Cross() for _ in range(5)])
    inputs = torch.empty(3, WIDTH, device="meta", requires_grad=True)
    assert compared(model, (inputs,), in_order=False) == 4


def test_a_counter_in_a_layer_is_written_to_once() -> None:
    model = Stack(layers())
    for layer in model.layers:
        layer.norm = nn.BatchNorm1d(WIDTH, device="meta")
    before = {name: id(value) for name, value in model.named_buffers()}
    assert compared(model.train(), (torch.empty(3, WIDTH, device="meta"),)) == 4
    assert {name: id(value) for name, value in model.named_buffers()} == before


class Encoder(nn.Module):
    """Calls layers of torch's own, in whose files no line is the model's."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 1, 8, batch_first=True)
        self.stack = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    def forward(self, x: Any) -> Any:
        return self.stack(x)


def test_what_runs_again_for_another_layer_keeps_its_line() -> None:
    assert compared(Encoder(), (torch.randn(2, 3, WIDTH),))
    step = gf.count_training(Encoder(), (torch.randn(2, 3, WIDTH),))
    lines = {
        r.call.source_line for r in step.backward.records if r.call.module_path.startswith("stack")
    }
    assert len(lines - {""}) == 1


def test_totals_and_completeness_expand_no_repeated_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise AssertionError("a repeated layer is expanded")

    monkeypatch.setattr(Relocation, "apply", refused)
    with at_depth(4):
        case = ARCHITECTURES["llama"]()
    report = gf.count_training(case.model, kwargs=case.inputs)
    assert report.forward.capture.layer_reuse.layers
    assert report.complete
    assert report.hardware_flops >= report.flops
