"""Training steps: ``count_training`` against a real ``loss.backward()`` on the CPU."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

import graphflops as gf
from benchmarks.failures import reason
from benchmarks.real_runs.comparison import Row, verdict
from benchmarks.real_runs.counting_mode import (
    Contractions,
    CountingMode,
    composite_kernels,
    flop_counter,
    gaps,
)
from graphflops.core.ir import ATTENTION_SCORES

SEED = 0


@dataclass(frozen=True, kw_only=True)
class Step:
    """A training step to run and to count.

    Attributes:
        model: With values, on the CPU.
        args: Positional inputs.
        kwargs: Keyword inputs.
        loss: From its output to a scalar; ``None`` leaves it to the default.
        context: What surrounds the forward pass: autocast.
        counted: What is counted, if it is not the model itself: a compiled one.
    """

    model: nn.Module
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    loss: Callable[[Any], torch.Tensor] | None = None
    context: Callable[[], AbstractContextManager[Any]] = contextlib.nullcontext
    counted: nn.Module | None = None


Build = Callable[[], Step]


def step(model: nn.Module, *args: Any, **rest: Any) -> Step:
    """A step of a model with positional inputs."""
    return Step(model=model, args=args, **rest)


@dataclass(frozen=True)
class RealStep:
    """What a real step did."""

    forward: Contractions
    backward: Contractions
    gaps: dict[str, tuple[int, int]]
    with_gradient: int
    copy_to_meta: bool


def examine(build: Build) -> Row:
    """Run a step, count an equal one, and compare."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        began = time.perf_counter()
        try:
            ran = run(_built(build))
        except Exception as error:  # noqa: BLE001 - why it fails is a result
            return {"outcome": "run fails", "reason": reason(error)}
        seconds = {"run": round(time.perf_counter() - began, 2)}
        began = time.perf_counter()
        try:
            report = count(_built(build))
        except gf.GraphFlopsError as error:
            return {"outcome": "refused", "reason": reason(error)} | _figures(ran)
        except Exception as error:  # noqa: BLE001 - likewise
            return {"outcome": "failed", "reason": reason(error)} | _figures(ran)
        seconds["count"] = round(time.perf_counter() - began, 2)
    return _compared(ran, report) | {"seconds": seconds}


def _built(build: Build) -> Step:
    torch.manual_seed(SEED)
    return build()


def run(case: Step) -> RealStep:
    """A real forward and backward pass under the oracle."""
    forward, backward = CountingMode(), CountingMode()
    counter = flop_counter()
    with composite_kernels(), counter:
        with forward, case.context():
            loss = (case.loss or outputs_summed)(case.model(*case.args, **case.kwargs))
        with backward:
            loss.backward()  # type: ignore[no-untyped-call]  # torch's gap
    both = Contractions(
        forward.found.macs + backward.found.macs, forward.found.unpriced + backward.found.unpriced
    )
    trained = {p for p in case.model.parameters() if p.grad is not None}
    numbers = sum(parameter.numel() for parameter in trained)
    copy_to_meta = any(parameter.is_meta for parameter in case.model.parameters())
    return RealStep(forward.found, backward.found, gaps(both, counter), numbers, copy_to_meta)


def outputs_summed(output: Any) -> torch.Tensor:
    """The loss that is documented as the default: the output's own, or the sum of its elements."""
    own = getattr(output, "loss", None)
    if isinstance(own, torch.Tensor):
        return own
    leaves = pytree.tree_leaves(dict(output) if hasattr(output, "items") else output)
    tensors = [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    return torch.stack([t.sum().float() for t in tensors if t.is_floating_point()]).sum()


def count(case: Step) -> gf.TrainingReport:
    """The same step counted."""
    with case.context():
        return gf.count_training(
            case.counted or case.model,
            case.args,
            case.kwargs,
            loss=case.loss,
            optimizer="sgd",
            on_unknown="ignore",
        )


def _figures(ran: RealStep) -> Row:
    figures = {
        "run": {"forward": ran.forward.total, "backward": ran.backward.total},
        "trained": ran.with_gradient,
        "gaps": ran.gaps,
    }
    unpriced = ran.forward.unpriced + ran.backward.unpriced
    return figures | ({"unpriced": dict(unpriced)} if unpriced else {})


def _compared(ran: RealStep, report: gf.TrainingReport) -> Row:
    backward = report.backward.macs + report.recompute.macs
    if ran.copy_to_meta:  # no fused kernel runs there, whose backward computes scores again
        again = [r.cost for r in report.recompute.records if r.call.op == ATTENTION_SCORES]
        backward -= sum(cost.macs for cost in again if cost is not None)
    counted = {"forward": report.forward.macs, "backward": backward}
    row = _figures(ran)
    updated = report.optimizer.parameters if report.optimizer is not None else 0
    differences = {
        name: [ours, row["run"][name]] for name, ours in counted.items() if ours != row["run"][name]
    }
    if updated != ran.with_gradient:
        differences["trained"] = [updated, ran.with_gradient]
    both = Contractions(
        ran.forward.macs + ran.backward.macs, ran.forward.unpriced + ran.backward.unpriced
    )
    equal = report.forward.macs + backward == both.total and "trained" not in differences
    notes = report.notes
    outcome = verdict(both, ran.gaps, equal=equal, complete=report.complete, notes=notes)
    if differences and outcome in {"equal", "gap"}:
        outcome = "split"
    row |= {"outcome": outcome, "recompute": str(report.recompute.macs)}
    if differences:
        row["differences"] = {
            name: [str(ours), theirs] for name, (ours, theirs) in differences.items()
        }
    if not report.complete:
        row["unsupported"] = report.unsupported_ops()
    return row
