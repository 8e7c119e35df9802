"""Content of a page on a report, as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphflops.analysis.call_time import CallTime
from graphflops.core.module_tree import ModuleNode
from graphflops.errors import GraphFlopsError, UnboundSymbolError
from graphflops.html.calls import FoldedCalls, seconds_number
from graphflops.html.protocols import PassRuns, ShownReport
from graphflops.render.data import number, operator_dicts
from graphflops.render.escape import visible
from graphflops.render.protocols import PeakMemory, TimedPasses
from graphflops.render.roofline import roofline_points, roofs
from graphflops.render.timing import seconds_text
from graphflops.render.timing import totals as time_totals

_NO_DEVICE = (
    "Times are those of a device, and none was chosen: give one, as in "
    'report.to_html("report.html", device="h100-sxm").'
)
_POINTS = 1200
"""Most points of a curve: about one for each pixel of its width."""
_LARGEST = 2**53
"""Integers from here on are not exact as numbers of JavaScript."""
_TENSORS = 200
"""Number of the tensors at the peak that are listed, the largest first."""

Summary = Sequence[tuple[str, str]]


def content(report: ShownReport, summary: Summary, time: TimedPasses | None) -> dict[str, Any]:
    """Return what a page shows of a report.

    What cannot be shown is in its place as ``{"why": ...}``, in a sentence.

    Args:
        report: The report.
        summary: Totals and what they cover, as ``(label, text)`` lines.
        time: Its times on a device, if one was chosen.
    """
    seconds = (
        None
        if time is None
        else {k: seconds_number(t.expected) for k, t in time.by_module().items()}
    )
    memory = _or_why(lambda: _memory_or_peak(report))
    calls = FoldedCalls(None if time is None else time.roofline)
    passes = report.passes_by_name.items()
    shown = {
        "model": report.model,
        "kind": report.kind,
        "convention": report.convention,
        "complete": report.complete,
        "unsupported": report.unsupported_ops(),
        "symbols": report.symbols,
        "summary": [
            *summary,
            *_conditions(report),
            *([] if time is None else time_totals(time)[1:]),
        ],
        "modules": module_columns(report.root, seconds, memory.pop("modules", None)),
        "operators": _operators(report, time),
        "passes": [_pass(name, part, calls) for name, part in passes if part.report.records],
        "explanations": calls.explanations,
        "time": {"why": _NO_DEVICE} if time is None else _or_why(lambda: _roofline(time)),
        "memory": memory,
    }
    exact: dict[str, Any] = in_javascript(shown)
    return exact


def in_javascript(value: Any) -> Any:
    """Return data for JavaScript: long integers as their digits, text in which all can be seen."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, int):
        return str(value) if abs(value) >= _LARGEST else value
    if isinstance(value, dict):
        return {visible(key): in_javascript(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [in_javascript(item) for item in value]
    return value


def _or_why(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a function, or why there is none."""
    try:
        return function()
    except GraphFlopsError as error:
        return {"why": str(error)}


def _memory_or_peak(report: ShownReport) -> dict[str, Any]:
    """Return the memory of a report; where sizes are symbolic, its peak as an expression."""
    try:
        return _memory(report.memory)
    except UnboundSymbolError as error:
        return {"why": f"{error} It is {report.memory.peak} bytes."}


def _conditions(report: ShownReport) -> list[tuple[str, str]]:
    """Return the conditions on symbolic sizes under which the graphs hold."""
    captures = [part.report.capture for part in report.passes_by_name.values()]
    found = {str(condition) for capture in captures for condition in capture.assumptions}
    return [("Holds for", condition) for condition in sorted(found)]


def module_columns(
    root: ModuleNode,
    seconds: dict[str, Any] | None = None,
    nbytes: dict[str, int] | None = None,
) -> dict[str, list[Any]]:
    """Return the modules in columns, parents before children.

    Args:
        root: The module tree.
        seconds: Expected seconds by path, if there are any.
        nbytes: Bytes at the peak by path, if they are known.
    """
    nodes = list(root.walk())
    columns: dict[str, list[Any]] = {
        "path": [node.path for node in nodes],
        "class": [node.module_class for node in nodes],
        "extra": [node.extra for node in nodes],
        "calls": [node.calls for node in nodes],
        "unknown": [node.unknown for node in nodes],
        "flops": [number(node.total.flops) for node in nodes],
        "macs": [number(node.total.macs) for node in nodes],
        "params": [node.params_total for node in nodes],
        "bytes": [number(node.total.bytes_read + node.total.bytes_written) for node in nodes],
        "transcendentals": [number(node.total.transcendentals) for node in nodes],
    }
    if seconds is not None:
        columns["seconds"] = [seconds.get(node.path, 0) for node in nodes]
    if nbytes is not None:
        columns["memory"] = [nbytes.get(node.path, 0) for node in nodes]
    return columns


def _operators(report: ShownReport, time: TimedPasses | None) -> list[dict[str, Any]]:
    seconds = (
        {}
        if time is None
        else {k: seconds_number(t.expected) for k, t in time.by_operator().items()}
    )
    return [{**row, "seconds": seconds.get(row["operator"])} for row in operator_dicts(report)]


def _expected(times: Mapping[str, CallTime]) -> dict[str, float | str]:
    return {name: seconds_number(time.expected) for name, time in times.items()}


def _pass(name: str, part: PassRuns, calls: FoldedCalls) -> dict[str, Any]:
    # Runs that differ in a size: of the last one, the largest.
    folded = calls.fold(part.records(1.0), part.report.registry)
    return {"name": name, "runs": part.times, **folded}


def _roofline(time: TimedPasses) -> dict[str, Any]:
    return {
        "device": time.device.title,
        "expected": seconds_text(time.expected),
        "bandwidth": time.device.bandwidth,
        "roofs": [{"rate": rate, "name": name} for rate, name in roofs(time).items()],
        "points": [point._asdict() for point in roofline_points(time)],
    }


def _memory(memory: PeakMemory) -> dict[str, Any]:
    timeline = memory.category_timeline
    shown = timeline.highest(_POINTS)
    call = memory.peak_call
    return {
        "device": memory.device,
        "kind": memory.kind,
        "peak": number(memory.peak),
        "call": memory.call,
        "backward": memory.calls.first_later,
        "operator": "" if call is None else call.op,
        "path": "" if call is None else call.module_path,
        "calls": [timeline.calls[position] for position in shown],
        "categories": {
            category.value: [column[position] for position in shown]
            for category, column in timeline.nbytes.items()
            if any(column)
        },
        "tensors": [
            [t.name, t.category.value, t.nbytes, t.dtype, t.operator, t.module_path, t.source_line]
            for t in memory.at_peak[:_TENSORS]
        ],
        "number_of_tensors": len(memory.at_peak),
        "modules": memory.by_module(),
    }
