"""Training calls the operators that a real step calls, not what torch decomposes them into."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import graphflops as gf
from benchmarks.gpu import operators

ALLOCATIONS = {"aten::empty_strided"}
TARGET = torch.tensor([0, 1, 2, 3])
MODES = ("nearest", "nearest-exact", "bilinear", "bicubic")
VECTORS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "multi_margin_loss": lambda y: F.multi_margin_loss(y, TARGET),
    "multilabel_margin_loss": lambda y: F.multilabel_margin_loss(y, TARGET.expand(4, 4)),
    "linear upsampling": lambda y: F.interpolate(y[None], scale_factor=2, mode="linear"),
    **{
        f"{mode} upsampling": lambda y, mode=mode: F.interpolate(  # type: ignore[misc]  # its default
            y.view(1, 4, 2, 2), scale_factor=2, mode=mode
        )
        for mode in MODES
    },
}


class Called(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's gap
        self.names: set[str] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.names.add(func._schema.name)
        return func(*args, **(kwargs or {}))


class Vectors(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(4, 4), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.linear(x)).sum()


@pytest.mark.parametrize("name", VECTORS)
def test_operators_are_those_of_a_real_step(name: str) -> None:
    model, x = Vectors(VECTORS[name]), torch.randn(4, 4)
    with Called() as real:
        model(x).backward()
    report = gf.count_training(model, (x,))
    ours = {record.call.op for record in report.records}
    assert ours - ALLOCATIONS == real.names - {"aten::detach"} - ALLOCATIONS


@pytest.mark.parametrize("name", operators.CASES)
def test_memory_of_a_step_is_that_of_a_gpu(name: str) -> None:
    measured = json.loads(operators.RESULTS.read_text("utf-8"))["peaks"]
    assert operators.predict(*operators.CASES[name]) == measured[name]
