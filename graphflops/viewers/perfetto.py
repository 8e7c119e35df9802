"""Predicted time lines for Perfetto and ``chrome://tracing``.

The format is the Trace Event Format: ``B`` and ``E`` open and close slices of a thread, ``C`` sets
a counter, ``M`` names a thread; ``ts`` is in microseconds. Slices with a length (``X``) would
overlap by a nanosecond where a reader rounds start and length, and Perfetto drops those that do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from graphflops.analysis.call_time import CallTime
from graphflops.core.ir import OpRecord
from graphflops.errors import CaptureError
from graphflops.render.protocols import PeakMemory, TimedPasses
from graphflops.viewers.module_labels import ModuleLabels
from graphflops.viewers.viewed import Execution, GraphRun, Viewed, as_number

_THREAD = {"pid": 1, "tid": 1}
_Event = dict[str, Any]


def perfetto(report: Viewed, times: TimedPasses) -> str:
    """Return the time line of a report as a trace.

    Kernels follow each other without gaps; calls that start none are left out. Of a graph that
    runs several times the first and the last run are shown, and what is between them as one
    slice. Where the host takes longer to start the kernels, the rest of its time follows. The
    whole is as long as is expected of all passes.

    Args:
        report: Report of any kind.
        times: Its time on a device.

    Raises:
        UnboundSymbolError: Costs are symbolic.
    """
    as_number(times.total.expected)
    line = _TimeLine(times)
    for name, execution in report.executions.items():
        line.add_execution(name, execution)
    in_graphs = {part for execution in report.executions.values() for part in execution.passes}
    for name, timed in times.passes.items():
        if name not in in_graphs:
            line.add_slice(name, float(timed.expected))
    device = times.device.title
    names = {"process_name": f"{report.model}, {report.kind}", "thread_name": device}
    events: list[_Event] = [
        {"ph": "M", **_THREAD, "name": kind, "args": {"name": name}} for kind, name in names.items()
    ]
    events += sorted(line.events, key=lambda event: event["ts"])
    facts = {"time": f"predicted for {device}", **line.facts}
    trace = {"traceEvents": events, "otherData": facts}
    # Some versions of Perfetto read no escapes of characters that need none.
    return json.dumps(trace, separators=(",", ":"), ensure_ascii=False)


class _TimeLine:
    """Slices of one thread, and a counter of live bytes.

    Attributes:
        events: The events, those of the thread in order.
        facts: Sentences that a reader of the trace must know.
    """

    def __init__(self, times: TimedPasses) -> None:
        self.events: list[_Event] = []
        self.facts: dict[str, str] = {}
        self._times = times
        self._now = 0.0
        self._open: list[str] = []

    def add_execution(self, name: str, execution: Execution) -> None:
        """Add the runs of a graph."""
        passes = [self._times.passes[part] for part in execution.passes]
        remaining = sum(float(part.total.expected) for part in passes)
        last = execution.run_of(1.0) if execution.times > 1 else None
        remaining -= self._add_run(_run_name(name, 1, execution.times), execution.run_of(0.0))
        if last is not None:
            remaining -= sum(self._seconds(record) for record in last.graph.records)
            if execution.times > 2:  # noqa: PLR2004 - the first and the last
                self.add_slice(f"{name}, runs 2 to {execution.times - 1:,}", remaining)
            self._add_run(_run_name(name, execution.times, execution.times), last)
        idle = sum(float(part.expected) - float(part.total.expected) for part in passes)
        self.add_slice(f"{name}: waiting for the host", idle)

    def add_slice(self, name: str, seconds: float) -> None:
        """Add a slice without parts, if it takes any time."""
        if round(seconds * 1e9) > 0:
            self._begin(name, {})
            self._now += seconds
            self._end()

    def _add_run(self, name: str, run: GraphRun) -> float:
        """Add the calls of one run in the slices of their modules, and return its seconds."""
        start = self._now
        labels = ModuleLabels(run.graph.capture.modules)
        phases = {record.call.phase for record in run.graph.records}
        starts: dict[int, float] = {}
        for record in run.graph.records:
            call, time = record.call, self._times.roofline.time(record)
            starts[call.index] = self._now
            if time.kernels:
                phase = (call.phase.value,) if len(phases) > 1 else ()
                self._enter((name, *phase, *labels.of(call.module_path)))
                self._begin(call.op, _call_facts(record, time))
                self._now += float(time.expected)
                self._end()
        self._enter(())
        try:
            memory = run.memory
        except CaptureError as error:
            self.facts["memory"] = str(error)
        else:
            self._count_bytes(memory, starts)
        return self._now - start

    def _count_bytes(self, memory: PeakMemory, starts: Mapping[int, float]) -> None:
        """Add the counters of live bytes: at each moment the most that is alive."""
        timeline = memory.category_timeline
        highest: dict[int, tuple[int, ...]] = {}
        moment = self._moment(min(starts.values(), default=self._now))
        rows = zip(*timeline.nbytes.values(), strict=True)
        for call, row in zip(timeline.calls, rows, strict=True):
            moment = self._moment(starts[call]) if call in starts else moment
            highest[moment] = max(row, highest.get(moment, row), key=sum)
        categories = [category.value.replace("_", " ") for category in timeline.nbytes]
        previous: tuple[int, ...] = ()
        for moment, row in highest.items():
            if row != previous:
                by_category = dict(zip(categories, row, strict=True))
                self._add_counter("live bytes", moment, {"all": sum(row)})
                self._add_counter("live bytes by category", moment, by_category)
            previous = row

    def _add_counter(self, name: str, moment: int, values: Mapping[str, int]) -> None:
        event = {"ph": "C", "pid": 1, "name": name, "ts": moment / 1e3, "args": values}
        self.events.append(event)

    def _seconds(self, record: OpRecord) -> float:
        return float(self._times.roofline.time(record).expected)

    def _enter(self, labels: tuple[str, ...]) -> None:
        """Close and open slices until those with these labels are open."""
        pairs = zip(self._open, labels, strict=False)
        common = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        while len(self._open) > common:
            self._end()
        for label in labels[common:]:
            self._begin(label, {})

    def _begin(self, name: str, facts: Mapping[str, Any]) -> None:
        self._open.append(name)
        event = {"ph": "B", **_THREAD, "name": name, "ts": self._moment(self._now) / 1e3}
        self.events.append({**event, "args": facts} if facts else event)

    def _end(self) -> None:
        name, ts = self._open.pop(), self._moment(self._now) / 1e3
        self.events.append({"ph": "E", **_THREAD, "name": name, "ts": ts})

    @staticmethod
    def _moment(seconds: float) -> int:
        """Return a time in nanoseconds, the finest that viewers know."""
        return round(seconds * 1e9)


def _run_name(name: str, run: int, times: int) -> str:
    return name if times == 1 else f"{name}, run {run:,} of {times:,}"


def _call_facts(record: OpRecord, time: CallTime) -> dict[str, Any]:
    call, cost = record.call, record.cost
    facts: dict[str, Any] = {
        "call": call.name,
        "module": call.module_path,
        "source": call.source_line,
        "phase": call.phase.value,
        "bound by": "arithmetic" if time.compute_bound else "memory traffic",
        "seconds at the peak rates": time.bound,
    }
    if cost is not None:
        nbytes = cost.bytes_read + cost.bytes_written
        facts |= {"FLOPs": cost.flops, "MACs": cost.macs, "bytes": nbytes}
    return facts
