"""Forward passes: ``count`` of models by name against a real run of them on the CPU."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import graphflops as gf
from benchmarks.failures import kind, reason
from benchmarks.real_runs.comparison import Row, verdict
from benchmarks.real_runs.counting_mode import (
    CountingMode,
    composite_kernels,
    flop_counter,
    gaps,
)
from benchmarks.zoo_worker import shallow

SEED = 0
MOST_PARAMETERS = 400_000_000


@dataclass(frozen=True)
class Named:
    """A model by name, with four layers where its config says how many there are."""

    name: str


def examine(case: Named) -> Row:
    """Count a model as ``graphflops count NAME`` does, run it with values, and compare."""
    from graphflops.models import Options, resolve

    try:
        workload = resolve(case.name, Options(overrides=shallow(case.name)))
        report = gf.count(workload.model, workload.args, workload.kwargs, on_unknown="ignore")
    except Exception as error:  # noqa: BLE001 - why a model is not counted is a result
        return {"outcome": kind(error), "reason": reason(error)}
    row: Row = {"class": type(workload.model).__name__, "counted": str(report.macs)}
    if report.params > MOST_PARAMETERS:
        return row | {"outcome": "too large", "parameters": report.params}
    mode, counter = CountingMode(), flop_counter()
    began = time.perf_counter()
    try:
        torch.manual_seed(SEED)
        model = _with_values(case.name, workload.model).eval()
        args, kwargs = _inputs((workload.args, dict(workload.kwargs)))
        with torch.no_grad(), composite_kernels(), counter, mode:
            model(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - likewise
        return row | {"outcome": "run fails", "reason": reason(error)}
    row |= {
        "run": mode.found.total,
        "gaps": gaps(mode.found, counter),
        "method": report.capture.method,
        "seconds": {"run": round(time.perf_counter() - began, 2)},
    }
    if mode.found.unpriced:
        row["unpriced"] = dict(mode.found.unpriced)
    equal = report.macs == mode.found.total
    notes = report.capture.notes
    outcome = verdict(mode.found, row["gaps"], equal=equal, complete=report.complete, notes=notes)
    if not equal:
        row["differences"] = {"forward": [str(report.macs), mode.found.total]}
    return row | {"outcome": outcome}


def _with_values(name: str, model: nn.Module) -> nn.Module:
    """The same model with random weights and the buffers that it makes itself."""
    source, _, what = name.partition(":")
    built: nn.Module
    if source == "timm":
        import timm

        built = timm.create_model(what)
    elif source == "torchvision":
        import torchvision

        options = {"weights": None}
        if what.partition("_")[0] in {"deeplabv3", "fcn", "lraspp"}:
            options["weights_backbone"] = None
        built = torchvision.models.get_model(what, **options)
    else:
        of_config: Any = model
        built = type(of_config)._from_config(of_config.config)
    return built


def _inputs(inputs: Any) -> Any:
    """Inputs that have values already, and numbers for those that have none."""
    return pytree.tree_map_only(torch.Tensor, _valued, inputs)


def _valued(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.is_meta:
        return tensor
    if tensor.is_floating_point():
        return torch.randn(tensor.shape, dtype=tensor.dtype)
    return torch.ones(tensor.shape, dtype=tensor.dtype)
