"""A comparison of conventions as text and as data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from tabulate import tabulate

from graphflops.analysis.compare_conventions import Difference, merge
from graphflops.core.cost import Dim, OpCost
from graphflops.render.escape import escape_for
from graphflops.render.layout import aligned
from graphflops.render.protocols import ComparedCosts
from graphflops.render.units import exact

_REASON, _NARROWEST = 60, 20  # columns of a reason


def table(compared: ComparedCosts, tablefmt: str, width: int | None = None) -> str:
    """Return totals, differences by operator and differences by module as tables."""
    lines = list(_totals(compared))
    # A renderer of Markdown would run lines together.
    head = ("\n\n" if tablefmt == "github" else "\n").join(map(escape_for(tablefmt), lines))
    if not compared.operators:
        return head
    stacked = merge(compared.modules, lambda row: re.sub(r"\b\d+\b", "*", row.path) or "(model)")
    names = compared.conventions
    by_operator = _by_operator(compared.operators, names, tablefmt, width)
    return "\n\n".join((head, by_operator, _by_module(stacked, names, tablefmt, width)))


def _totals(compared: ComparedCosts) -> Iterator[str]:
    ours, theirs = compared.conventions
    yield f"{compared.model}: {ours} and {theirs}"
    costs, units = (compared.ours, compared.theirs), compared.flops_per_mac
    for name, cost, per_mac in zip(compared.conventions, costs, units, strict=True):
        unit = "FLOP" if per_mac == 1 else "FLOPs"
        totals = f"{exact(cost.flops)} FLOPs, {exact(cost.macs)} MACs"
        yield f"{name:<10} {totals} (1 MAC = {per_mac} {unit})"
    yield f"{'difference':<10} {_signed(compared.theirs.flops - compared.ours.flops)} FLOPs"
    if not compared.operators:
        yield "The two agree on every call."


def _by_operator(
    rows: Sequence[Difference], names: tuple[str, str], tablefmt: str, width: int | None
) -> str:
    escape = escape_for(tablefmt)
    headers, cells = _headers(names), [[*map(escape, _cells(row))] for row in rows]
    reason = _REASON
    if width is not None:
        figures = sum(max(map(len, column)) + 3 for column in zip(headers, *cells, strict=True))
        reason = min(_REASON, max(width - figures - 4, _NARROWEST))
    return tabulate(
        [[*row, escape(difference.reason)] for row, difference in zip(cells, rows, strict=True)],
        [*headers, "reason"],
        tablefmt=tablefmt,
        colalign=["left", *["right"] * 4, "left"],
        maxcolwidths=None if tablefmt == "github" else [None] * 5 + [reason],
        disable_numparse=True,
    )


def _by_module(
    rows: Sequence[Difference], names: tuple[str, str], tablefmt: str, width: int | None
) -> str:
    # One line a row needs no rules between rows.
    plain = "simple" if tablefmt == "simple_grid" else tablefmt
    cells = [(row.path, *_cells(row)) for row in rows]
    return aligned(["module", *_headers(names)], cells, plain, width)


def _headers(names: tuple[str, str]) -> list[str]:
    return ["operator", "calls", f"FLOPs, {names[0]}", f"FLOPs, {names[1]}", "difference"]


def _cells(row: Difference) -> Iterator[str]:
    yield from (row.op, str(row.calls), exact(row.ours.flops), exact(row.theirs.flops))
    yield _signed(row.flops)


def _signed(value: Dim) -> str:
    return f"{value:+,}" if isinstance(value, int) else str(value)


def to_dict(compared: ComparedCosts) -> dict[str, Any]:
    """Return a comparison as plain data; expressions become strings."""
    (ours, theirs), (our_unit, their_unit) = compared.conventions, compared.flops_per_mac
    return {
        "model": compared.model,
        "ours": {"convention": ours, "flops_per_mac": our_unit},
        "theirs": {"convention": theirs, "flops_per_mac": their_unit},
        "totals": _numbers(compared.ours, compared.theirs),
        "operators": [row_dict(row) for row in compared.operators],
        "modules": [row_dict(row) for row in compared.modules],
    }


def row_dict(row: Difference) -> dict[str, Any]:
    """Return a difference as plain data."""
    return {
        "module": row.path,
        "operator": row.op,
        "calls": row.calls,
        **_numbers(row.ours, row.theirs),
        "reason": row.reason,
    }


def _numbers(ours: OpCost, theirs: OpCost) -> dict[str, int | str]:
    values = {
        "flops_ours": ours.flops,
        "flops_theirs": theirs.flops,
        "flops_difference": theirs.flops - ours.flops,
        "macs_ours": ours.macs,
        "macs_theirs": theirs.macs,
    }
    return {name: v if isinstance(v, int) else str(v) for name, v in values.items()}
