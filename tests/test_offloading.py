"""Models whose weights accelerate brings for each call: counted as without."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import accelerate
import pytest
import torch
from torch import nn

import graphflops as gf


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Sequential(nn.Linear(16, 4))
    )


def _several_hooks(model: nn.Sequential, _: Path) -> None:
    accelerate.cpu_offload(model, execution_device=torch.device("cpu"))
    accelerate.hooks.add_hook_to_module(model[0], accelerate.hooks.ModelHook(), append=True)


_WAYS: dict[str, Callable[[nn.Sequential, Path], Any]] = {
    "cpu": lambda model, _: accelerate.cpu_offload(model, torch.device("cpu")),
    "with buffers": lambda model, _: accelerate.cpu_offload(
        model, torch.device("cpu"), offload_buffers=True
    ),
    "disk": lambda model, folder: accelerate.disk_offload(model, folder, torch.device("cpu")),
    "several hooks": _several_hooks,
    "by a map": lambda model, folder: accelerate.dispatch_model(
        model, {"0": "cpu", "1": "disk", "2": "cpu", "3": "disk"}, "cpu", offload_dir=folder
    ),
}


@pytest.mark.filterwarnings("ignore:A parameter name that contains")
@pytest.mark.parametrize("way", _WAYS)
def test_offloaded_weights(way: str, tmp_path: Path) -> None:
    model, x = _model(), torch.randn(3, 8)
    model.eval()
    expected, trained = gf.count(model, (x,)), gf.count_training(model, (x,))
    value = model(x)
    _WAYS[way](model, tmp_path)
    places = [tensor.device for tensor in model.state_dict().values()]
    assert torch.device("meta") in places

    report = gf.count(model, (x,))
    assert (report.flops, report.params) == (expected.flops, expected.params)
    assert report.by_module() == expected.by_module()
    assert report.bytes_read == expected.bytes_read
    assert gf.count_training(model, (x,)).flops == trained.flops
    # It is as it was, and runs.
    assert [tensor.device for tensor in model.state_dict().values()] == places
    assert torch.equal(model(x), value)
