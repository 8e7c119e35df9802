"""Models run as they stand: what they ask of PyTorch is answered as in a run of one's own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn

import graphflops as gf


class Compiled(nn.Module):
    """Takes another way where a compiler looks."""

    def __init__(self) -> None:
        super().__init__()
        self.compiled, self.eager = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: torch.Tensor) -> Any:
        return self.compiled(x) if torch.compiler.is_compiling() else self.eager(x)


class Cautious(Compiled):
    """Looks at a value where no compiler does."""

    def forward(self, x: torch.Tensor) -> Any:
        if not torch.compiler.is_compiling() and self.eager(x).sum() > 0:
            return self.eager(x)
        return self.compiled(x)


def test_a_model_is_not_told_that_it_is_exported() -> None:
    report = gf.count(Compiled(), (torch.zeros(5, 8),))
    assert report.macs == 5 * 8 * 2
    assert report.capture.method == "eager tracing"


def test_a_model_that_stops_at_a_value_is_told_and_the_report_says_so() -> None:
    report = gf.count(Cautious(), (torch.zeros(5, 8),))
    assert report.macs == 5 * 8 * 8
    assert report.capture.method == "eager tracing, told that it is exported"


def test_what_compilers_are_to_leave_alone_is_counted() -> None:
    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        @torch.compiler.disable(recursive=False)  # type: ignore[no-untyped-call,untyped-decorator]  # torch's gap
        def forward(self, x: torch.Tensor) -> Any:
            return self.layer(x)

    assert gf.count(Left(), (torch.zeros(2, 8),)).macs == 2 * 8 * 8


@pytest.fixture
def group() -> Iterator[None]:
    dist.init_process_group(
        "gloo", store=torch._C._distributed_c10d.HashStore(), rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_data_parallel_models_are_counted_as_what_they_hold() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    parallel, x = nn.parallel.DistributedDataParallel(model), torch.zeros(2, 8)
    report = gf.count(parallel, (x,))
    assert report.macs == gf.count(model, (x,)).macs == 2 * 8 * 8 + 2 * 8 * 4
    assert report.by_module()["module.0"].macs == 2 * 8 * 8
