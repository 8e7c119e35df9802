"""The tape of an eager run holds what ``torch.export`` traces, call by call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import torchvision
from architectures import ARCHITECTURES
from torch import nn

import graphflops as gf
from benchmarks.layer_reuse import TYPES, built
from graphflops.capture.record import forward_tape
from graphflops.capture.record.forward_tape import ForwardTape, HigherOrderError
from graphflops.capture.torch_internals.count_flags import model_running

QUICK = ("llama", "t5", "swin", "mamba")
# A constant of the code, which export copies for good.
_LIFTED = {"aten::lift_fresh", "aten::lift_fresh_copy"}


def described(report: gf.Report) -> Iterator[tuple[Any, ...]]:
    """What was called by whom, on what, and what it costs; of what makes tensors."""
    for record in report.records:
        call = record.call
        if call.op not in _LIFTED and (call.outputs or call.writes):
            yield (
                *(call.op, call.overload, call.module_path, call.module_class, call.torch_function),
                *(tuple(call.inputs.items()), call.outputs, call.trip_count, record.cost),
            )


def told(**_: Any) -> Any:
    """What an export tells a model: that it is exported."""
    return model_running(exporting=True)


def check(model: nn.Module, *args: Any, axes: Any = None, **kwargs: Any) -> None:
    with mock.patch.object(forward_tape, "model_running", told):
        taped = gf.count(model, args, kwargs, dynamic_shapes=axes, reuse_layers=False)
    with mock.patch.object(ForwardTape, "recording", side_effect=HigherOrderError):
        exported = gf.count(model, args, kwargs, dynamic_shapes=axes)
    assert (taped.capture.method, exported.capture.method) == ("eager tracing", "torch.export")
    assert list(described(taped)) == list(described(exported))
    for ours, theirs in zip(taped.root.walk(), exported.root.walk(), strict=True):
        assert (ours.path, ours.calls, ours.params_total) == (
            *(theirs.path, theirs.calls, theirs.params_total),
        )
    assert taped.capture.inputs == exported.capture.inputs
    assert taped.capture.notes == exported.capture.notes
    assert taped.capture.assumptions == exported.capture.assumptions


@pytest.mark.parametrize(
    "name",
    [
        name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)
        for name in ARCHITECTURES
    ],
)
def test_architectures(name: str) -> None:
    case = ARCHITECTURES[name]()
    check(case.model, **case.inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(TYPES) - set(ARCHITECTURES)))
def test_types(name: str) -> None:
    workload = built(name)
    check(workload.model, *workload.args, **workload.kwargs)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "bert"])
def test_symbolic_sizes(name: str) -> None:
    case = ARCHITECTURES[name]()
    check(case.model, axes={"input_ids": {0: "B", 1: "S"}}, **case.inputs)


def test_resnet() -> None:
    with torch.device("meta"):
        check(torchvision.models.resnet18().eval(), torch.empty(1, 3, 64, 64))


class Unusual(nn.Module):
    """Views, writing in place, a batch of instances, sizes that follow from data."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor, n: torch.Tensor) -> Any:
        rows = torch.vmap(self.linear)(x[:, None])
        x[0].mul_(2)
        some = x[x[:, 0] > 0]
        parts = torch.split(x, n.tolist())
        return rows, some @ some.T, [part @ part.T for part in parts], x[: n[0]], max(len(x), 3)


def test_what_is_unusual() -> None:
    check(Unusual(), torch.ones(5, 4), torch.tensor([2, 3]))
