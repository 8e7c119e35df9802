"""Repeated layers: the same report with and without, and no reuse where work may differ."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES, at_depth
from calls import meta
from torch import nn
from torch.nn import functional as F

import graphflops as gf
from graphflops.core.ir import OpRecord

WIDTH = 8
QUICK = ("llama", "gemma3_text", "mixtral", "t5", "whisper", "swin", "resnet", "clip", "mamba")


def described(record: OpRecord) -> tuple[Any, ...]:
    """All of a record but the name of its node."""
    call = record.call
    return (
        *(call.op, call.overload, tuple(call.inputs.items()), tuple(call.attrs.items())),
        *(
            call.outputs,
            call.writes,
            call.is_view,
            call.module_path,
            call.module_class,
            call.source_line,
            call.torch_function,
        ),
        *(call.trip_count, call.index, record.status, record.cost),
    )


def flow(report: gf.Report) -> list[list[int]]:
    """For each call the calls that made its inputs; -1 where no call did."""
    made: dict[str, int] = {}
    found = []
    for record in report.records:
        found.append([made.get(tensor.name, -1) for _, tensor in record.call.tensors()])
        made |= {output.name: record.call.index for output in record.call.outputs if output.name}
    return found


def reused(count: Callable[[bool], gf.Report]) -> int:
    """How many layers were reused, in a report that equals the one without any."""
    found, plain = count(True), count(False)
    assert list(map(described, found.records)) == list(map(described, plain.records))
    assert found.root == plain.root
    assert flow(found) == flow(plain)
    names = [record.call.name for record in found.records]
    assert len(set(names)) == len(names)
    ours, theirs = found.capture, plain.capture
    assert (ours.method, ours.notes, ours.inputs) == (theirs.method, theirs.notes, theirs.inputs)
    assert ours.assumptions == theirs.assumptions
    assert theirs.layer_reuse.layers == 0
    return ours.layer_reuse.layers


def check_architecture(name: str, expected: bool, **changes: Any) -> None:
    with at_depth(4):
        case = ARCHITECTURES[name]()
    inputs = case.inputs | changes

    def count(reuse_layers: bool) -> gf.Report:
        return gf.count(case.model, kwargs=inputs, reuse_layers=reuse_layers)

    assert (reused(count) > 0) == expected


@pytest.mark.parametrize("name", QUICK)
def test_records_are_the_same(name: str) -> None:
    check_architecture(name, expected=True)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "t5", "whisper"])
def test_records_are_the_same_with_a_cache(name: str) -> None:
    check_architecture(name, expected=True, use_cache=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*ARCHITECTURES} - {*QUICK}))
def test_records_of_all_architectures_are_the_same(name: str) -> None:
    check_architecture(name, expected=True)


def test_sizes_may_be_symbolic() -> None:
    with at_depth(4):
        case = ARCHITECTURES["llama"]()
    axes = {"input_ids": {0: "B", 1: "S"}}

    def count(reuse_layers: bool) -> gf.Report:
        inputs = case.inputs | {"use_cache": True}
        return gf.count(case.model, kwargs=inputs, dynamic_shapes=axes, reuse_layers=reuse_layers)

    assert reused(count) == 3
    assert count(True).symbols == ("B", "S")


@pytest.mark.parametrize(
    ("name", "cache"),
    [("llama", "dynamic"), ("gemma3_text", "static"), ("t5", "dynamic")],
)
def test_a_generation_is_the_same(name: str, cache: Any) -> None:
    with at_depth(4):
        case = ARCHITECTURES[name]()
    inputs = {key: value for key, value in case.inputs.items() if key != "use_cache"}
    found, plain = (
        gf.count_generation(
            case.model, inputs, max_new_tokens=4, cache=cache, reuse_layers=reuse_layers
        )
        for reuse_layers in (True, False)
    )
    for ours, theirs in ((found.prefill, plain.prefill), (found.decode, plain.decode)):
        assert ours.total == theirs.total
    for step, other in zip(found.decode_graphs, plain.decode_graphs, strict=True):
        assert list(map(described, step.report.records)) == list(
            map(described, other.report.records)
        )
    assert found.decode_graphs[0].report.capture.layer_reuse.layers > 0


class Layer(nn.Module):
    """A residual block with enough operators to be worth repeating."""

    def __init__(self, index: int = 0) -> None:
        super().__init__()
        self.index = index
        self.norm = nn.LayerNorm(WIDTH)
        self.inner, self.outer = nn.Linear(WIDTH, 16), nn.Linear(16, WIDTH)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        hidden = F.gelu(self.inner(self.norm(x)))
        return torch.tanh(x + self.dropout(self.outer(torch.sigmoid(hidden) * hidden)))


class Stack(nn.Module):
    """Layers one after the other."""

    def __init__(self, kind: Callable[[int], nn.Module] = Layer, *given: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(kind(index) for index in range(5))
        self.given = given

    def forward(self, x: torch.Tensor) -> Any:
        for layer in self.layers:
            x = layer(x, *self.given)
        return x


def count_reused(model: nn.Module) -> int:
    def count(reuse_layers: bool) -> gf.Report:
        return gf.count(model, (meta(2, 3, WIDTH),), reuse_layers=reuse_layers)

    return reused(count)


SCALE = 1


class Alternating(Layer):
    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return super().forward(x) if self.index % 2 else super().forward(x).relu()


class Listed(Layer):
    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return super().forward(x) * [1, 2, 3, 4, 5][self.index]


class Counting(Layer):
    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        self.index += 1
        return super().forward(x)


class Hidden(Layer):
    """Looks at its attributes without naming them."""

    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return super().forward(x) * vars(self)["index"]


def helper(layer: Layer) -> int:
    return layer.index


class Helped(Layer):
    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return super().forward(x) * helper(self)


class Appending(Layer):
    def forward(self, x: torch.Tensor, *given: Any) -> Any:
        x = super().forward(x)
        given[0].append(x)
        return x * len(given[0])


class OwnList(Layer):
    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.seen: list[int] = []

    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        self.seen.append(1)
        return super().forward(x)


class Globally(Layer):
    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        global SCALE  # noqa: PLW0603 - what is tested
        SCALE += 1
        return super().forward(x) if SCALE % 2 else super().forward(x).relu()


class Making(Layer):
    """Makes a module each time."""

    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return nn.Softmax(dim=-1)(super().forward(x))


class Chancy(Layer):
    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return super().forward(x) * (random.random() < 0.5)  # noqa: S311 - no secret


class Widening(Layer):
    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return torch.cat([super().forward(x)[:, :1], x], dim=1)


class Branching(Layer):
    """A buffer decides on the way it goes."""

    which: torch.Tensor

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.register_buffer("which", torch.tensor(index))

    def forward(self, x: torch.Tensor, *_: Any) -> Any:
        return super().forward(x) if self.which.item() < 2 else super().forward(x).relu()


def closures(index: int) -> nn.Module:
    layer = Layer()
    original = layer.forward

    def forward(x: torch.Tensor, *_: Any) -> Any:
        return original(x) if index % 2 else original(x).relu()

    layer.forward = forward  # type: ignore[method-assign]  # as users do
    return layer


def sharing() -> Callable[[int], nn.Module]:
    shared = nn.Linear(16, WIDTH)

    def make(_: int) -> nn.Module:
        layer = Layer()
        layer.outer = shared
        return layer

    return make


class Normed(Layer):
    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.norm = nn.BatchNorm1d(3)  # type: ignore[assignment]  # another one


# By what is special, how many of five layers are reused.
STACKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "all alike": (Stack, 4),
    "a sequence": (lambda: nn.Sequential(*map(Layer, range(5))), 4),
    "an index that decides": (lambda: Stack(Alternating), 0),
    "an index into a list": (lambda: Stack(Listed), 0),
    "an index found by a helper": (lambda: Stack(Helped), 0),
    "an index found in the dictionary": (lambda: Stack(Hidden), 0),
    "a counter": (lambda: Stack(Counting), 0),
    "a list that all append to": (lambda: Stack(Appending, []), 0),
    "a list of its own": (lambda: Stack(OwnList), 0),
    "a global that counts": (lambda: Stack(Globally), 0),
    "another shape each time": (lambda: Stack(Widening), 0),
    "a buffer that decides": (lambda: Stack(Branching), 0),
    "closures": (lambda: Stack(closures), 0),
    "modules made on the way": (lambda: Stack(Making), 4),
    "a shared part": (lambda: Stack(sharing()), 4),
}


@pytest.mark.parametrize("name", STACKS)
def test_a_layer_is_reused_only_where_it_does_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build, expected = STACKS[name]

    def count(reuse_layers: bool) -> gf.Report:
        monkeypatch.setattr(f"{__name__}.SCALE", 1)
        torch.manual_seed(0)
        return gf.count(build().eval(), (meta(2, 3, WIDTH),), reuse_layers=reuse_layers)

    assert reused(count) == expected


def test_chance_is_not_repeated() -> None:
    model = Stack(Chancy)
    x = torch.zeros(2, 3, WIDTH)
    assert gf.count(model, (x,)).capture.layer_reuse.layers == 0


def hooked(layer: Any) -> None:
    layer.inner.register_forward_hook(lambda *_: None)


def frozen(layer: Any) -> None:
    layer.inner.weight.requires_grad = False


def wetter(layer: Any) -> None:
    layer.dropout.p = 0.1


def halved(layer: Any) -> None:
    layer.norm.register_parameter("bias", None)


def evaluating(layer: Any) -> None:
    layer.dropout.eval()


@pytest.mark.parametrize("change", [hooked, frozen, wetter, halved, evaluating])
def test_a_layer_that_differs_is_traced(change: Callable[[Any], None]) -> None:
    model = Stack().train()
    change(model.layers[2])
    assert count_reused(model) == 3


def test_training_repeats_operators_of_chance_and_statistics() -> None:
    assert count_reused(Stack().train()) == 4
    assert count_reused(Stack(Normed).train()) == 4


def test_the_model_is_left_as_it_was() -> None:
    model = Stack(Normed).train()
    state, attributes = copy.deepcopy(model.state_dict()), [dict(vars(m)) for m in model.modules()]
    call, get, set_ = nn.Module._call_impl, nn.Module.__getattribute__, nn.Module.__setattr__
    gf.count(model, (torch.randn(2, 3, WIDTH),))
    assert [dict(vars(m)) for m in model.modules()] == attributes
    assert [type(layer) for layer in model.layers] == [Normed] * 5
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    now = (nn.Module._call_impl, nn.Module.__getattribute__, nn.Module.__setattr__)
    assert now == (call, get, set_)


def test_a_report_says_how_many_layers_were_reused() -> None:
    report = gf.count(Stack(), (meta(2, 3, WIDTH),))
    assert "4 repeated layers of 1 kind not traced again" in report.table()
    assert report.to_dict()["capture"]["layer_reuse"] == {"layers": 4, "distinct": 1}
    assert {"forward", "region check", "modules", "pricing"} <= set(report.timings)
