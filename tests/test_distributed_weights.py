"""Weights that are distributed over ranks: the report says whose figures it gives."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.testing._internal.distributed.fake_pg import FakeStore

import graphflops as gf


@pytest.fixture
def mesh() -> Iterator[DeviceMesh]:
    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    yield init_device_mesh("cpu", (4,))
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:2 calls have no price")
def test_tensor_parallel_products_are_global(mesh: DeviceMesh) -> None:
    model = nn.Sequential(nn.Linear(16, 64, bias=False), nn.ReLU(), nn.Linear(64, 16, bias=False))
    x = torch.zeros(8, 16)
    assert gf.count(model, (x,)).capture.notes == ()
    parallelize_module(model, mesh, {"0": ColwiseParallel(), "2": RowwiseParallel()})
    report = gf.count(model, (x,))
    assert report.macs == 2 * 8 * 16 * 64
    assert set(report.unsupported_ops()) == {
        "_c10d_functional::all_reduce",
        "_c10d_functional::wait_tensor",
    }
    (note,) = report.capture.notes
    assert "over 4 ranks" in note
    assert "whole tensors" in note
    step = gf.count_training(model, (x,))
    assert any("over 4 ranks" in note for note in step.notes)
