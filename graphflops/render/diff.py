"""A difference between two reports as text and as data."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from graphflops.analysis.changes import (
    CallChange,
    FigureChange,
    ModuleChange,
    OperatorChange,
    PassChange,
    is_same,
)
from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpCall, OpRecord
from graphflops.render import data
from graphflops.render.escape import escape_for
from graphflops.render.layout import aligned
from graphflops.render.protocols import DiffedCosts
from graphflops.render.tables import shapes_line
from graphflops.render.units import exact

_ROOT = "(model)"
_LABELS = {
    "flops": "FLOPs",
    "macs": "MACs",
    "transcendentals": "transcendentals",
    "bytes_read": "bytes read",
    "bytes_written": "bytes written",
    "params": "parameters",
    "params_trainable": "trainable",
    "unsupported": "unsupported calls",
}
"""Figures that are shown, in this order."""
_ALWAYS = {"FLOPs", "MACs", "bytes read", "bytes written", "parameters"}
"""Figures that are shown where they do not change."""


def table(diff: DiffedCosts, tablefmt: str, width: int | None = None) -> str:
    """Return totals, and tables of passes, modules, operators and calls that differ."""
    before, after = diff.models
    names = before if before == after else f"{before} -> {after}"
    head = f"{names}: {diff.kind}, {diff.convention} convention"
    parts = [escape_for(tablefmt)(head), _totals(diff, tablefmt, width)]
    if not diff:
        return "\n\n".join([*parts, "There is no difference."])
    parts += filter(
        None,
        (
            _passes(diff.passes, tablefmt, width),
            _modules(diff.modules, tablefmt, width),
            _operators(diff.operators, tablefmt, width),
            _calls(diff.calls, tablefmt, width),
        ),
    )
    return "\n\n".join(parts)


def _totals(diff: DiffedCosts, tablefmt: str, width: int | None) -> str:
    rows = [
        (label, *_cells(change), _percent(change))
        for label, change in ((label, diff.total[name]) for name, label in _LABELS.items())
        if label in _ALWAYS or not is_same(change.before, change.after)
    ]
    return aligned(["total", "before", "after", "difference", "%"], rows, tablefmt, width)


def _passes(passes: Iterable[PassChange], tablefmt: str, width: int | None) -> str:
    rows = [(part.name, *_cost_cells(part.before, part.after)) for part in passes]
    return _table(["pass", *_COSTS], rows, tablefmt, width)


_COSTS = ("FLOPs before", "after", "difference", "bytes difference")


def _modules(modules: Iterable[ModuleChange], tablefmt: str, width: int | None) -> str:
    stacked: dict[tuple[str, ...], _Sum] = {}
    for row in modules:
        paths = dict.fromkeys(path for path in (row.before_path, row.path) if path is not None)
        name = " -> ".join(path or _ROOT for path in paths)
        key = (row.kind, _starred(name), row.module_class)
        params = row.params.after - row.params.before
        stacked[key] = stacked.get(key, _Sum(name)).plus(row.before, row.after, params)
    rows = [
        (kind, s.place(name), module_class, *s.cells(), _signed(s.params))
        for (kind, name, module_class), s in stacked.items()
    ]
    headers = ["change", "module", "class", "number", *_COSTS, "params difference"]
    return _table(headers, rows, tablefmt, width)


class _Sum(NamedTuple):
    """Sum of rows that share a line."""

    first: str
    number: int = 0
    before: OpCost = OpCost()
    after: OpCost = OpCost()
    params: Dim = 0

    def plus(self, before: OpCost, after: OpCost, params: Dim = 0) -> _Sum:
        costs = self.before + before, self.after + after
        return _Sum(self.first, self.number + 1, *costs, self.params + params)

    def place(self, starred: str) -> str:
        """Return the name of the place: that of the only row, or one with stars for numbers."""
        return self.first if self.number == 1 else starred

    def cells(self) -> tuple[str, ...]:
        return str(self.number), *_cost_cells(self.before, self.after)


def _operators(operators: Iterable[OperatorChange], tablefmt: str, width: int | None) -> str:
    rows = [
        (row.kind, row.op, _calls_line(row.calls), *_cost_cells(row.before, row.after))
        for row in operators
    ]
    return _table(["change", "operator", "calls", *_COSTS], rows, tablefmt, width)


def _calls_line(change: FigureChange) -> str:
    if change.before == change.after:
        return str(change.after)
    return f"{change.before} -> {change.after}"


def _calls(calls: Iterable[CallChange], tablefmt: str, width: int | None) -> str:
    stacked: dict[tuple[str, ...], _Sum] = {}
    for row in calls:
        both = [record.call for record in (row.before, row.after) if record]
        shapes = " => ".join(dict.fromkeys(map(shapes_line, both)))
        place = both[-1].module_path or _ROOT
        key = (row.kind, row.pass_name, _starred(place), _operator(both[-1]), shapes)
        stacked[key] = stacked.get(key, _Sum(place)).plus(row.before_cost, row.after_cost)
    several = len({key[1] for key in stacked}) > 1
    rows = [
        (kind, *([part] if several else []), s.place(place), op, shapes, *s.cells())
        for (kind, part, place, op, shapes), s in stacked.items()
    ]
    where = ["pass", "module"] if several else ["module"]
    headers = ["change", *where, "operator", "shapes", "calls", *_COSTS]
    return _table(headers, rows, tablefmt, width)


def _table(
    headers: list[str], rows: list[tuple[str, ...]], tablefmt: str, width: int | None
) -> str:
    return aligned(headers, rows, tablefmt, width) if rows else ""


def _starred(path: str) -> str:
    """Return a path in which numbers are stars, so that layers of a stack share a row."""
    return re.sub(r"\b\d+\b", "*", path)


def _operator(call: OpCall) -> str:
    return f"{call.op}.{call.overload}"


def _cost_cells(before: OpCost, after: OpCost) -> Iterator[str]:
    yield from _cells(FigureChange(before=before.flops, after=after.flops))
    traffic = [cost.bytes_read + cost.bytes_written for cost in (before, after)]
    yield _signed(FigureChange(before=traffic[0], after=traffic[1]).difference)


def _cells(change: FigureChange) -> Iterator[str]:
    yield from (exact(change.before), exact(change.after), _signed(change.difference))


def _percent(change: FigureChange) -> str:
    if change.percent is None:
        return ""
    return f"{change.percent:+.4g}%" if change.percent else "0%"


def _signed(value: Dim) -> str:
    if not isinstance(value, int):
        return str(value)
    return f"{value:+,}" if value else "0"


def to_dict(diff: DiffedCosts) -> dict[str, Any]:
    """Return a difference as plain data; expressions become strings."""
    before, after = diff.models
    return {
        "before": {"model": before},
        "after": {"model": after},
        "kind": diff.kind,
        "convention": diff.convention,
        "totals": {name: _change(change) for name, change in diff.total.items()},
        "passes": [{"name": part.name, **_costs(part.before, part.after)} for part in diff.passes],
        "modules": [
            {
                "change": row.kind,
                "before_path": row.before_path,
                "path": row.path,
                "class": row.module_class,
                "params": _change(row.params),
                **_costs(row.before, row.after),
            }
            for row in diff.modules
        ],
        "operators": [
            {
                "change": row.kind,
                "operator": row.op,
                "calls": _change(row.calls),
                **_costs(row.before, row.after),
            }
            for row in diff.operators
        ],
        "calls": [_call_dict(row) for row in diff.calls],
    }


def _call_dict(row: CallChange) -> dict[str, Any]:
    def described(record: OpRecord | None) -> dict[str, Any] | None:
        return None if record is None else data.call_dict(record)

    call = row.call
    return {
        "change": row.kind,
        "pass": row.pass_name,
        "module": call.module_path,
        "operator": call.op,
        "call_before": described(row.before),
        "call_after": described(row.after),
        **_costs(row.before_cost, row.after_cost),
    }


def _costs(before: OpCost, after: OpCost) -> dict[str, Any]:
    return {"before": data.cost_dict(before), "after": data.cost_dict(after)}


def _change(change: FigureChange) -> dict[str, Any]:
    return {
        "before": data.number(change.before),
        "after": data.number(change.after),
        "difference": data.number(change.difference),
    }
