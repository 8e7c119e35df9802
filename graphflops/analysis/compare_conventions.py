"""Where two conventions part, and why: the same calls, priced twice."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

from graphflops import conventions
from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpRecord
from graphflops.pricing.price import price_all
from graphflops.pricing.registry import Registry
from graphflops.render.data import csv_text
from graphflops.render.escape import escape_for
from graphflops.render.explain import formula
from graphflops.render.units import exact

if TYPE_CHECKING:
    from graphflops.reports.report import Report

_WORDS = 200  # characters of a formula that a reason quotes


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Calls of one operator that two conventions price differently, for one reason.

    Attributes:
        path: The module that made them; empty where rows are not by module, or for the root.
        op: The operator.
        calls: How many there are.
        here: What they cost in the report's convention; nothing if it has no price.
        there: What they cost in the other one.
        why: The rule of each.
    """

    path: str
    op: str
    calls: int
    ours: OpCost
    theirs: OpCost
    reason: str

    @property
    def flops(self) -> Dim:
        """FLOPs that the other convention counts more; negative where it counts fewer."""
        return self.theirs.flops - self.ours.flops

    def to_dict(self) -> dict[str, Any]:
        """The row as plain data."""
        return {
            "module": self.path,
            "operator": self.op,
            "calls": self.calls,
            **_numbers(self.ours, self.theirs),
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class ConventionComparison:
    """Two conventions on one capture, the largest difference first.

    Attributes:
        model: Name of what was counted.
        conventions: Their names: the report's, and the other's.
        flops_per_mac: FLOPs that each takes for a multiply-accumulate.
        here: Total in the report's convention.
        there: Total in the other one.
        operators: Where they part, by operator and reason. The differences of all rows sum to
            the difference of the totals.
        modules: The same by module, operator and reason; a call is in its innermost module.
    """

    model: str
    conventions: tuple[str, str]
    flops_per_mac: tuple[int, int]
    ours: OpCost
    theirs: OpCost
    operators: tuple[Difference, ...]
    modules: tuple[Difference, ...]

    def summed(self, sum_up: Callable[[OpCost], OpCost], times: int) -> ConventionComparison:
        """The same for so many runs of the calls, with a function that sums a cost over them."""

        def rows(found: tuple[Difference, ...]) -> tuple[Difference, ...]:
            return tuple(
                replace(
                    row, calls=row.calls * times, ours=sum_up(row.ours), theirs=sum_up(row.theirs)
                )
                for row in found
            )

        return replace(
            self,
            ours=sum_up(self.ours),
            theirs=sum_up(self.theirs),
            operators=rows(self.operators),
            modules=rows(self.modules),
        )

    def __add__(self, other: ConventionComparison) -> ConventionComparison:
        return replace(
            self,
            ours=self.ours + other.ours,
            theirs=self.theirs + other.theirs,
            operators=_merged((*self.operators, *other.operators), lambda row: row.path),
            modules=_merged((*self.modules, *other.modules), lambda row: row.path),
        )

    def table(self, tablefmt: str = "simple_grid") -> str:
        """Totals, differences by operator, differences by module, as tables.

        Modules that differ only in a number, as the layers of a stack do, share a row.
        """
        ours, theirs = self.conventions
        lines = [f"{self.model}: {ours} and {theirs}"]
        pairs = zip(self.conventions, (self.ours, self.theirs), self.flops_per_mac, strict=True)
        for name, cost, per_mac in pairs:
            unit = "FLOP" if per_mac == 1 else "FLOPs"
            totals = f"{exact(cost.flops)} FLOPs, {exact(cost.macs)} MACs"
            lines.append(f"{name:<10} {totals} (1 MAC = {per_mac} {unit})")
        lines.append(f"{'difference':<10} {_signed(self.theirs.flops - self.ours.flops)} FLOPs")
        if not self.operators:
            lines.append("The two agree on every call.")
        # A renderer of Markdown would run lines together.
        head = ("\n\n" if tablefmt == "github" else "\n").join(map(escape_for(tablefmt), lines))
        if not self.operators:
            return head
        stacked = _merged(self.modules, lambda row: re.sub(r"\b\d+\b", "*", row.path) or "(model)")
        return "\n\n".join(
            (
                head,
                _table(self.operators, self.conventions, tablefmt, by_module=False),
                # One line a row needs no rules between rows.
                _table(stacked, self.conventions, _unruled(tablefmt), by_module=True),
            )
        )

    def to_dict(self) -> dict[str, Any]:
        """The reconciliation as plain data; expressions become strings."""
        return {
            "model": self.model,
            "ours": {"convention": self.conventions[0], "flops_per_mac": self.flops_per_mac[0]},
            "theirs": {"convention": self.conventions[1], "flops_per_mac": self.flops_per_mac[1]},
            "totals": _numbers(self.ours, self.theirs),
            "operators": [row.to_dict() for row in self.operators],
            "modules": [row.to_dict() for row in self.modules],
        }

    def to_json(self) -> str:
        """:meth:`to_dict` as JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_csv(self) -> str:
        """One line per module, operator and reason."""
        return csv_text([row.to_dict() for row in self.modules])

    def __str__(self) -> str:
        return self.table()


def compare_conventions(report: Report, other: str) -> ConventionComparison:
    """Price a report's calls by another convention and list where the two part.

    Handlers of the user's own stay in place on both sides.

    Args:
        report: A count.
        other: Name of the other convention.

    Raises:
        ModelSpecError: There is no convention of that name.
    """
    other_registry = report.registry.rebase_onto(conventions.get(other))
    # The records' calls, not the capture's: numbers may have been put in for its symbols.
    calls = (record.call for record in report.records)
    records = price_all(calls, other_registry, report.capture.fallback)
    rows = [
        Difference(
            path=own.call.module_path,
            op=own.call.op,
            calls=1,
            ours=own.cost or OpCost(),
            theirs=theirs.cost or OpCost(),
            reason=f"{_rule(own, report.registry, report.convention)} "
            f"{_rule(theirs, other_registry, other)}",
        )
        for own, theirs in zip(report.records, records, strict=True)
        if _work(own) != _work(theirs)
    ]
    return ConventionComparison(
        model=report.model,
        conventions=(report.convention, other),
        flops_per_mac=(report.registry.flops_per_mac, other_registry.flops_per_mac),
        ours=report.total,
        theirs=sum((record.cost or OpCost() for record in records), start=OpCost()),
        operators=_merged(rows, lambda _: ""),
        modules=_merged(rows, lambda row: row.path),
    )


def _work(record: OpRecord) -> tuple[Dim, Dim]:
    # Bytes move alike in every convention; what has no price adds nothing to a total.
    return (0, 0) if record.cost is None else (record.cost.flops, record.cost.macs)


def _rule(record: OpRecord, registry: Registry, name: str) -> str:
    if record.cost is None:
        return f"{name}: no price."
    words = " ".join(formula(record, registry.lookup(record.call))).removeprefix("none: ")
    return f"{name}: {shorten(words.rstrip('.') + '.', _WORDS, placeholder=' ...')}"


def _merged(
    rows: Iterable[Difference], place: Callable[[Difference], str]
) -> tuple[Difference, ...]:
    """Rows of one place, operator and reason as one, the largest difference first."""
    merged: dict[tuple[str, str, str], Difference] = {}
    for row in rows:
        key = (place(row), row.op, row.reason)
        known = merged.get(key)
        merged[key] = Difference(
            path=key[0],
            op=row.op,
            calls=row.calls + (known.calls if known else 0),
            ours=row.ours + (known.ours if known else OpCost()),
            theirs=row.theirs + (known.theirs if known else OpCost()),
            reason=row.reason,
        )
    found = tuple(merged.values())
    if all(isinstance(row.flops, int) for row in found):
        return tuple(sorted(found, key=lambda row: -abs(int(row.flops))))
    return found


def _table(
    rows: Sequence[Difference], names: tuple[str, str], tablefmt: str, *, by_module: bool
) -> str:
    headers = [
        "operator",
        "calls",
        f"FLOPs, {names[0]}",
        f"FLOPs, {names[1]}",
        "difference",
        "reason",
    ]
    headers = ["module", *headers[:-1]] if by_module else headers
    return tabulate(
        [[*map(escape_for(tablefmt), _cells(row, by_module=by_module))] for row in rows],
        headers,
        tablefmt=tablefmt,
        colalign=["left", *["left"] * by_module, *["right"] * 4, *["left"] * (not by_module)],
        maxcolwidths=None if by_module or tablefmt == "github" else [None] * 5 + [60],
        disable_numparse=True,
    )


def _unruled(tablefmt: str) -> str:
    return "simple" if tablefmt == "simple_grid" else tablefmt


def _cells(row: Difference, *, by_module: bool) -> Iterator[str]:
    if by_module:
        yield row.path
    yield from (row.op, str(row.calls), exact(row.ours.flops), exact(row.theirs.flops))
    yield _signed(row.flops)
    if not by_module:
        yield row.reason


def _signed(value: Dim) -> str:
    return f"{value:+,}" if isinstance(value, int) else str(value)


def _numbers(ours: OpCost, theirs: OpCost) -> dict[str, int | str]:
    values = {
        "flops_ours": ours.flops,
        "flops_theirs": theirs.flops,
        "flops_difference": theirs.flops - ours.flops,
        "macs_ours": ours.macs,
        "macs_theirs": theirs.macs,
    }
    return {name: v if isinstance(v, int) else str(v) for name, v in values.items()}
