"""Flame graphs of modules and operators for speedscope: one profile for each figure.

The format is that of ``https://www.speedscope.app/file-format-schema.json``. A stack is the model,
the pass if there are several, the modules from the outside in, and the operator; its weight is the
figure of calls that follow each other there. Frames of equal name are one frame, so that the
sandwich view sums over the layers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from typing import Any, TypeAlias

from graphflops.analysis.call_time import CallTime
from graphflops.core.cost import Dim, OpCost
from graphflops.render.protocols import TimedPasses
from graphflops.viewers.module_labels import ModuleLabels
from graphflops.viewers.viewed import Viewed, as_number, modules_of

_SCHEMA = "https://www.speedscope.app/file-format-schema.json"
_Stack: TypeAlias = tuple[int, ...]
_Weighted: TypeAlias = tuple[_Stack, Any]

_COSTS: Mapping[str, tuple[str, Callable[[OpCost], Dim]]] = {
    "FLOPs": ("none", lambda cost: cost.flops),
    "MACs": ("none", lambda cost: cost.macs),
    "bytes read and written": ("bytes", lambda cost: cost.bytes_read + cost.bytes_written),
}
_TIMES: Mapping[str, Callable[[CallTime], Any]] = {
    "time at the peak rates": lambda time: time.bound,
    "expected time of kernels": lambda time: time.expected,
}


def speedscope(report: Viewed, times: TimedPasses | None = None) -> str:
    """Return a report as a file of speedscope.

    The weights of a profile sum to the figure of all passes: what ``by_pass()`` has.

    Args:
        report: Report of any kind.
        times: Its time on a device, for two more profiles.

    Raises:
        UnboundSymbolError: Costs are symbolic.
    """
    stacks = _Stacks(report)
    costs = list(_costs(report, stacks))
    profiles = [
        _profile(name, unit, ((stack, as_number(figure(cost))) for stack, cost in costs))
        for name, (unit, figure) in _COSTS.items()
    ]
    profiles.append(_profile("parameters", "none", _parameters(report, stacks)))
    if times is not None:
        for name, seconds in _TIMES.items():
            weighted = (
                (stacks.of(part, path, operator), float(as_number(seconds(time))))
                for part, timed in times.passes.items()
                for (path, operator), time in timed.calls.items()
            )
            title = f"{name}, {times.device.title}"
            profiles.append(_profile(title, "seconds", weighted))
    return json.dumps(
        {
            "$schema": _SCHEMA,
            "name": f"{report.model}, {report.kind}",
            "exporter": "graphflops",
            "activeProfileIndex": 0,
            "shared": {"frames": [{"name": name} for name in stacks.frames]},
            "profiles": profiles,
        },
        separators=(",", ":"),
    )


class _Stacks:
    """Stacks of the calls of a report.

    Attributes:
        frames: Names of the frames, each with its number.
    """

    def __init__(self, report: Viewed) -> None:
        self.frames: dict[str, int] = {}
        self._model = report.model
        self._has_passes = len(report.by_pass()) > 1
        self._labels = ModuleLabels(modules_of(report))
        self.of = cache(self._of)

    def _of(self, part: str, path: str = "", operator: str = "") -> _Stack:
        """Return the stack of an operator in a module of a pass; names may be empty."""
        shown = part if self._has_passes else ""
        names = [self._model, shown, *self._labels.of(path), operator]
        return tuple([self.frames.setdefault(name, len(self.frames)) for name in names if name])


def _costs(report: Viewed, stacks: _Stacks) -> Iterator[tuple[_Stack, OpCost]]:
    """Yield the costs of calls in all their runs, and of passes that have no calls."""
    for name, part in report.passes_by_name.items():
        total_of = cache(part.total_of)
        for record in part.report.records:
            if record.cost is not None:
                call = record.call
                yield stacks.of(name, call.module_path, call.op), total_of(record.cost)
    for name, cost in report.by_pass().items():
        if name not in report.passes_by_name:
            yield stacks.of(name), cost


def _parameters(report: Viewed, stacks: _Stacks) -> Iterator[_Weighted]:
    """Yield the number of parameters of each module; a tied one belongs to the first."""
    visited: set[int] = set()
    for module in modules_of(report):
        for parameter in module.parameters:
            if parameter.identity not in visited:
                visited.add(parameter.identity)
                yield stacks.of("", module.path), parameter.numel


def _profile(name: str, unit: str, weighted: Iterable[_Weighted]) -> dict[str, Any]:
    """Return a profile; neighbours with one stack are one sample, those without weight are none."""
    samples: list[_Stack] = []
    weights: list[Any] = []
    for stack, weight in weighted:
        if not weight:
            continue
        if samples and samples[-1] == stack:
            weights[-1] += weight
        else:
            samples.append(stack)
            weights.append(weight)
    return {
        "type": "sampled",
        "name": name,
        "unit": unit,
        "startValue": 0,
        "endValue": sum(weights),
        "samples": samples,
        "weights": weights,
    }
