"""Calls made from the template of one before: those that the operators themselves give."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from op_db import COUNTABLE, OPINFOS, Trained, differentiable, samples
from torch import nn
from torch.nn import functional as F

from graphflops.capture import capture
from graphflops.capture.record import call_templates
from graphflops.capture.record.call_templates import CallTemplates
from graphflops.capture.training import capture_training


@pytest.fixture(name="templates", autouse=True)
def _templates() -> Iterator[dict[Any, Any]]:
    """Templates of a process that has counted nothing yet."""
    before = dict(call_templates._TEMPLATES)
    call_templates._TEMPLATES.clear()
    yield call_templates._TEMPLATES
    call_templates._TEMPLATES.update(before)


class _Repeated(nn.Module):
    """A function called three times on the same tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *tensors: torch.Tensor) -> Any:
        return [self.function(*tensors) for _ in range(3)]


def _seen(run: Callable[[], Any]) -> Any:
    """Everything a capture has of its calls and of memory, or the error."""
    try:
        found = run()
    except Exception as error:  # noqa: BLE001 - whatever the operator refuses
        return type(error), str(error)
    events = found.storages
    memory = events and (events.items, events.allocations, events.gradients, events.caches)
    return list(map(repr, found.calls)), memory, found.outputs, found.notes, found.data_sizes


def _without_templates(run: Callable[[], Any]) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CallTemplates, "_key", lambda *_: None)
        return _seen(run)


def _is_the_same_by_templates(run: Callable[[], Any]) -> None:
    expected = _without_templates(run)
    assert _seen(run) == expected
    assert _seen(run) == expected  # all of them known


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COUNTABLE)
def test_operators_that_torch_tests(name: str) -> None:
    for sample in samples(OPINFOS[name], most=1):
        tensors = tuple(t.clone() for t in sample.tensors)
        _is_the_same_by_templates(lambda s=sample, t=tensors: capture(_Repeated(s.function), t))  # type: ignore[misc]  # bound


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COUNTABLE)
def test_many_samples_and_their_gradients(name: str) -> None:
    for sample in samples(OPINFOS[name], most=6):
        _is_the_same_by_templates(lambda s=sample: capture(_Repeated(s.function), s.tensors))  # type: ignore[misc]  # bound
        if differentiable(sample):
            model = Trained(sample)
            _is_the_same_by_templates(lambda m=model: capture_training(m, (), {}, None).capture)  # type: ignore[misc]  # bound


_X = torch.empty(2, 6, 4, 4, device="meta")
_W = torch.empty(8, 6, 3, 3, device="meta")
_S = torch.empty(2, 7, 6, device="meta")


def _in_place(x: torch.Tensor) -> torch.Tensor:
    y = x + 1
    y.mul_(2).relu_()
    return y[0].add_(y[1]) * y


def _of_one(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x + x, x + 1, torch.add(x, other=x), torch.add(x, x, alpha=2)])


def _scores(x: torch.Tensor) -> torch.Tensor:
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    scores = (x @ x.transpose(1, 2)).masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ x


def _known(x: torch.Tensor) -> torch.Tensor:
    regions = torch.zeros(4, 4)
    for number, row in enumerate((slice(0, 2), slice(2, 4))):
        regions[row, :] = number
    return x.masked_fill(regions != 0, 0.0)[:, :, int(regions.sum() > 4) :]


CASES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "writes in place": (_in_place, (_X,)),
    "one tensor twice": (_of_one, (_X,)),
    "masked scores": (_scores, (_S,)),
    "known values": (_known, (_X,)),
    "convolutions": (
        lambda x, w: F.conv2d(x, w, padding=1) + F.conv2d(x, w, None, 1, "same"),
        (_X, _W),
    ),
    "a convolution without a batch": (lambda x, w: F.conv2d(x[0], w, padding=1), (_X, _W)),
    "channels last": (
        lambda x, w: F.conv2d(x.contiguous(memory_format=torch.channels_last), w),
        (_X, _W),
    ),
    "norms": (lambda x: F.instance_norm(F.group_norm(F.layer_norm(x, [4]), 2)), (_X,)),
    "linear layers": (lambda x: F.linear(F.linear(x, x[0, :6]), x[0, :6], x[0, 0]), (_S,)),
    "products": (lambda x: torch.einsum("bij,bkj->bik", x, x) @ (x @ x[0, 0])[..., None], (_S,)),
    "lists": (
        lambda x: (
            torch.cat([*x.chunk(2, 1), *x.unbind(0)[:1]], 0)
            if x.dim() < 3
            else torch.cat(x.split(3, 1), 1)
        ),
        (_S,),
    ),
    "reshapes": (lambda x: x.permute(2, 0, 1).reshape(6, 14).flatten().to(torch.float64), (_S,)),
    "views of views": (
        lambda x: (x[:, 1:, ::2].transpose(0, 1)[1:], x.select(1, 2).unsqueeze(-1)),
        (_S,),
    ),
    "whole and broken numbers": (lambda x: (x * 2, x * 2.0, x.int() * 2, x.int() * 2.0), (_S,)),
    "no tensor of the model": (lambda x: x + torch.arange(6) * torch.tensor(2), (_S,)),
    "a bound on the number of values": (
        lambda x: torch.unique(x.topk(2, -1).indices.to(torch.int32)),
        (_S,),
    ),
    "a mask and its negation": (
        lambda x: torch.cat([x.isnan(), ~x.isnan()]).to(torch.bool).nonzero(),
        (_S,),
    ),
    "dropout": (
        lambda x: F.dropout(x, 0.5, training=True) + F.dropout(x, 0.5, training=False),
        (_S,),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_function_called_again(case: str, templates: dict[Any, Any]) -> None:
    function, tensors = CASES[case]
    _is_the_same_by_templates(lambda: capture(_Repeated(function), tensors))
    assert templates


class _Layers(nn.Module):
    """Layers of many kinds, each twice."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(6, 6, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList((nn.BatchNorm2d(6), nn.GroupNorm(2, 6), nn.LayerNorm(4)))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(96, 5), nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for conv in self.convs:
            for norm in self.norms:
                x = F.gelu(norm(conv(x))) + x
        return F.log_softmax(self.head(x), -1)


@pytest.mark.parametrize("training", [False, True])
def test_a_training_step(training: bool) -> None:
    with torch.device("meta"):
        model = _Layers().train(training)
    _is_the_same_by_templates(lambda: capture_training(model, (_X,), {}, None).capture)


def test_operators_of_another_mode_are_seen_by_it() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    def counted(x: torch.Tensor) -> torch.Tensor:
        with FlopCounterMode(display=False) as counter:
            y = x @ x.transpose(1, 2)
        return torch.mul(y, counter.get_total_flops())

    _is_the_same_by_templates(lambda: capture(_Repeated(counted), (_S,)))


def test_functions_are_seen_by_a_mode_around_the_count() -> None:
    def on_default_device(x: torch.Tensor) -> torch.Tensor:
        return torch.zeros(3).sum() + x.to(torch.zeros(1).device)

    with torch.device("meta"):
        calls = capture(_Repeated(on_default_device), (_X,)).calls
    assert [call.attrs["device"] for call in calls if call.op == "aten::zeros"] == ["meta"] * 6


def test_a_written_tensor_has_a_new_version() -> None:
    def write(x: torch.Tensor) -> torch.Tensor:
        y = x + 1
        y.add_(1).relu_()
        return torch.mul(y, y._version)

    calls = capture(_Repeated(write), (_X,)).calls
    assert [call.attrs["other"] for call in calls if call.op == "aten::mul"] == [2, 2, 2]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.lists(
        st.sampled_from(["slice", "transpose", "add", "unsqueeze", "mul_", "sum"]), max_size=5
    ),
)
def test_any_chain_of_operators(shape: list[int], steps: list[str]) -> None:
    def chain(x: torch.Tensor) -> torch.Tensor:
        x = x * 2
        for step in steps:
            if step == "slice":
                x = x[..., 1:] if x.dim() and x.shape[-1] > 1 else x
            elif step == "transpose":
                x = x.transpose(0, -1) if x.dim() else x
            elif step == "add":
                x = x + x
            elif step == "unsqueeze":
                x = x.unsqueeze(0)
            elif step == "mul_":
                x.mul_(2)
            elif x.dim():
                x = x.sum(0)
        return x

    tensors = (torch.empty(shape, device="meta"),)
    _is_the_same_by_templates(lambda: capture(_Repeated(chain), tensors))
