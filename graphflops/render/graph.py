"""Answers of a graph as text: critical path, stages, calls that need not run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphflops.core.ir import OpRecord
from graphflops.graph.critical_path import CriticalPath, Generation, Weight
from graphflops.graph.stages import Stage
from graphflops.graph.waste import Waste
from graphflops.render.layout import aligned, labelled
from graphflops.render.tables import call_table
from graphflops.render.units import percent, quantity

_UNITS: dict[Weight, str] = {"flops": "FLOPs", "bytes": "B"}


def path_text(
    path: CriticalPath, depths: Sequence[Generation], by: Weight, width: int | None = None
) -> str:
    """Return a critical path: its length, the width of the graph, and its calls."""
    unit = _UNITS[by]
    calls = sum(len(depth.records) for depth in depths)
    length, total = quantity(path.length, unit), quantity(path.total, unit)
    lines = [("Critical path", f"{length} of {total} in {len(path.records)} of {calls} calls")]
    if path.length:
        gain = f"up to {path.total / path.length:.2f} times faster"
        lines.append(("Side by side", gain))
    if depths:
        lines.append(("Widest", _widest(depths, unit)))
    return f"{labelled(lines, width)}\n\n{call_table(path.records, 'simple', width)}"


def _widest(depths: Sequence[Generation], unit: str) -> str:
    number = max(range(len(depths)), key=lambda depth: len(depths[depth].records))
    calls, weight = len(depths[number].records), quantity(depths[number].weight, unit)
    place = _place(depths[number].records[0])
    return f"{calls} calls at depth {number} of {len(depths)}, {weight}, such as {place}"


def stages_text(stages: Sequence[Stage], by: Weight, width: int | None = None) -> str:
    """Return stages: their calls and weights, and what crosses the cuts."""
    unit = _UNITS[by]
    ideal = sum(stage.weight for stage in stages) / len(stages)
    rows = [
        (
            str(number),
            str(len(stage.records)),
            stage.records[-1].call.module_path or stage.records[-1].call.name,
            quantity(stage.weight, unit),
            f"{stage.weight / ideal:.1%}" if ideal else "",
            quantity(stage.bytes_in, "B"),
        )
        for number, stage in enumerate(stages)
    ]
    headers = ["stage", "calls", "up to", "cost", "of ideal", "bytes in"]
    return aligned(headers, rows, "simple", width)


def _place(record: OpRecord) -> str:
    call = record.call
    return f"{call.module_path}: {call.name}" if call.module_path else call.name


def waste_text(waste: Waste, total_flops: int, width: int | None = None) -> str:
    """Return the calls that need not run, by reason, the most expensive first."""
    earlier = {record.call.index: first for record, first in waste.repeated}
    sections = (
        ("computed twice", [record for record, _ in waste.repeated]),
        ("never used", list(waste.unused)),
        ("constant", list(waste.constant)),
    )
    lines = [
        (title, f"{len(records)} calls, {_share(records, total_flops)}")
        for title, records in sections
    ]
    rows = [
        (
            title,
            _place(record),
            record.call.op,
            _cost(record),
            _place(earlier[record.call.index]) if title == sections[0][0] else "",
        )
        for title, records in sections
        for record in sorted(records, key=_flops, reverse=True)
    ]
    text = labelled(lines, width)
    if not rows:
        return text
    table = aligned(["why", "call", "operator", "FLOPs", "as in"], rows, "simple", width)
    return f"{text}\n\n{table}"


def _flops(record: OpRecord) -> int:
    return record.cost.flops if record.cost and isinstance(record.cost.flops, int) else 0


def _cost(record: OpRecord) -> str:
    return "unsupported" if record.cost is None else quantity(record.cost.flops)


def _share(records: Iterable[OpRecord], total: int) -> str:
    flops = sum(map(_flops, records))
    return f"{quantity(flops, 'FLOPs')} ({percent(flops, total)})"
