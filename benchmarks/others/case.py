"""A model of another package with inputs, counted as its users run it, and compared."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn
from torch.utils import _pytree as pytree

import graphflops as gf
from benchmarks.failures import reason
from benchmarks.real_runs import training
from benchmarks.real_runs.comparison import Row, verdict
from benchmarks.real_runs.counting_mode import (
    CountingMode,
    composite_kernels,
    flop_counter,
    gaps,
)

Placement = Literal["meta", "moved", "cpu"]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model and inputs.

    Attributes:
        model: As its package builds it.
        args: Positional inputs.
        kwargs: Keyword inputs.
        trains: Whether a training step makes sense for it.
    """

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    trains: bool = True


def model(built: nn.Module, *args: Any, **kwargs: Any) -> Model:
    """A model with positional and keyword inputs."""
    return Model(model=built, args=args, kwargs=kwargs)


class Calls(nn.Module):
    """A function of a package as a module."""

    def __init__(self, function: Callable[..., Any], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, *args: Any) -> Any:
        """Hand it the parts and the inputs."""
        return self.function(*self.parts, *args)


@dataclass(frozen=True)
class Case:
    """A model that can be built.

    Attributes:
        build: Makes it.
        on: Where it runs: built on meta, built on the CPU and moved to meta, or on the CPU,
            where values of inputs decide what it does.
    """

    build: Callable[[], Model]
    on: Placement = "meta"

    def built(self) -> Model:
        """The model where it is to run."""
        torch.manual_seed(0)
        with torch.device("meta") if self.on == "meta" else contextlib.nullcontext():
            found = self.build()
        if self.on != "moved":
            return found
        args, kwargs = pytree.tree_map_only(
            torch.Tensor, lambda tensor: tensor.to("meta"), (found.args, dict(found.kwargs))
        )
        return Model(model=found.model.to("meta"), args=args, kwargs=kwargs, trains=found.trains)


def examine(case: Case) -> Row:
    """Count a forward pass and a training step, run both, and compare."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            built = case.built()
        except Exception as error:  # noqa: BLE001 - why it fails is a result
            return {"outcome": "not built", "reason": reason(error)}
        row: Row = {"class": type(built.model).__name__, "on": case.on, "forward": _forward(built)}
        if built.trains:
            row["training"] = _training(built)
    outcomes = [row[mode]["outcome"] for mode in ("forward", "training") if mode in row]
    return row | {"outcome": " / ".join(dict.fromkeys(outcomes))}


def _forward(built: Model) -> Row:
    model = built.model.eval()
    began = time.perf_counter()
    try:
        report = gf.count(model, built.args, built.kwargs, on_unknown="ignore")
        failure: Row = {}
    except gf.GraphFlopsError as error:
        failure = {"outcome": "refused", "reason": reason(error)}
    except Exception as error:  # noqa: BLE001 - likewise
        failure = {"outcome": "failed", "reason": reason(error)}
    seconds = {"count": round(time.perf_counter() - began, 2)}
    mode, counter = CountingMode(), flop_counter()
    try:
        with torch.no_grad(), composite_kernels(), counter, mode:
            model(*built.args, **built.kwargs)
    except Exception as error:  # noqa: BLE001 - likewise
        ran: Row = {"outcome": "run fails", "reason": reason(error), "seconds": seconds}
        return failure or ran | _counted(report)
    row: Row = {"run": mode.found.total, "gaps": gaps(mode.found, counter), "seconds": seconds}
    if mode.found.unpriced:
        row["unpriced"] = dict(mode.found.unpriced)
    if failure:
        return row | failure
    equal = report.macs == mode.found.total
    notes = report.capture.notes
    outcome = verdict(mode.found, row["gaps"], equal=equal, complete=report.complete, notes=notes)
    return row | _counted(report) | {"outcome": outcome}


def _counted(report: gf.Report) -> Row:
    unsupported = report.unsupported_ops()
    more = {"unsupported": unsupported} if unsupported else {}
    return {"counted": str(report.macs), "calls": len(report.records)} | more


def _training(built: Model) -> Row:
    step = training.Step(model=built.model.train(), args=built.args, kwargs=built.kwargs)
    return training.examine(lambda: step)
