"""Difference between two reports, as a result that prints itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, get_args

from graphflops.analysis.changes import (
    CallChange,
    FigureChange,
    ModuleChange,
    OperatorChange,
    PassChange,
    is_same,
    is_same_cost,
)
from graphflops.analysis.diff import PassRecords, Side, changes, operator_changes
from graphflops.analysis.figures import figures_of
from graphflops.core.arguments import check_choice
from graphflops.core.cost import OpCost
from graphflops.core.ir import OpRecord
from graphflops.errors import ModelSpecError
from graphflops.html import notebook
from graphflops.render import data
from graphflops.render import diff as rendering
from graphflops.render.protocols import Costs

Workload: TypeAlias = Literal["same", "any"]


class RecordedPass(Protocol):
    """Report of one run of a pass, as far as a comparison reads it."""

    @property
    def records(self) -> Sequence[OpRecord]:
        """Calls with their costs."""

    @property
    def total(self) -> OpCost:
        """Cost of one run."""


class WeightedPass(Protocol):
    """A pass and how often it runs."""

    @property
    def report(self) -> RecordedPass:
        """Report of one run."""

    @property
    def times(self) -> int:
        """Number of runs."""

    @property
    def total_of(self) -> Callable[[OpCost], OpCost]:
        """Function from a cost in one run to the cost in all runs."""


class Comparable(Costs, Protocol):
    """Report that can be compared with another one of its kind."""

    @property
    def model(self) -> str:
        """Name of what was counted."""

    @property
    def kind(self) -> str:
        """Kind of report, in words."""

    @property
    def workload(self) -> Mapping[str, str]:
        """Sizes that the costs are for, by what they are sizes of."""

    @property
    def summands(self) -> Sequence[WeightedPass]:
        """Passes that the totals are the sum of."""

    @property
    def passes_by_name(self) -> Mapping[str, WeightedPass]:
        """Passes by name, also those that the totals leave out."""

    def by_pass(self) -> Mapping[str, OpCost]:
        """Cost of each pass in all runs, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostDiff:
    """Difference between two reports of one kind; false if there is none.

    Attributes:
        models: Names of what was counted, before and after.
        kind: Kind of the reports, in words.
        convention: Name of the way of counting.
        total: Totals by figure: ``"flops"``, ``"macs"``, ``"transcendentals"``,
            ``"bytes_read"``, ``"bytes_written"``, ``"bytes"`` (both), ``"params"``,
            ``"params_trainable"`` and ``"unsupported"`` (calls without a price).
        passes: Passes, such as prefill and decode, if there are several.
        modules: Modules that were added, removed, renamed or changed, parents first. What was
            added, removed or renamed with its parent is part of the parent's row.
        operators: Operators whose calls or cost differ, the largest difference first. Their
            differences sum to that of the totals.
        calls: Calls that were added, removed or changed.
    """

    models: tuple[str, str]
    kind: str
    convention: str
    total: Mapping[str, FigureChange]
    passes: tuple[PassChange, ...]
    modules: tuple[ModuleChange, ...]
    operators: tuple[OperatorChange, ...]
    calls: tuple[CallChange, ...]

    def __bool__(self) -> bool:
        return bool(
            self.modules
            or self.operators
            or self.calls
            or not all(is_same(change.before, change.after) for change in self.total.values())
            or not all(is_same_cost(change.before, change.after) for change in self.passes)
        )

    def to_text(self, width: int | None = None) -> str:
        """Return totals, and tables of modules, operators and calls that differ.

        Modules and calls that differ only in a number, as those of a stack of layers do, share
        a row.

        Args:
            width: Columns to fit the tables into; by default they are as wide as they are.
        """
        return rendering.table(self, "simple", width)

    def to_markdown(self) -> str:
        """Return the same as Markdown tables."""
        return rendering.table(self, "github")

    def to_dict(self) -> dict[str, Any]:
        """Return the difference as plain data; expressions become strings."""
        return rendering.to_dict(self)

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return data.json_text(self.to_dict())

    def __str__(self) -> str:
        return self.to_text()

    def _repr_html_(self) -> str:
        return notebook.preformatted(self.to_text())


def diff_reports(before: Comparable, after: Comparable, workload: Workload) -> CostDiff:
    """Compare two reports.

    Args:
        before: First report.
        after: Second report.
        workload: ``"same"`` to refuse reports for other inputs, ``"any"`` to compare them.

    Raises:
        ModelSpecError: The two are of different kinds, conventions or workloads.
    """
    check_choice("workload", workload, get_args(Workload))
    _check_comparable(before, after, workload)
    sides = _side(before), _side(after)
    modules, calls = changes(*sides)
    costs = before.by_pass(), after.by_pass()
    names = dict.fromkeys((*costs[0], *costs[1]))
    passes = tuple(
        PassChange(name=n, before=costs[0].get(n, OpCost()), after=costs[1].get(n, OpCost()))
        for n in names
    )
    return CostDiff(
        models=(before.model, after.model),
        kind=before.kind,
        convention=before.convention,
        total=_totals(before, after),
        passes=passes if len(passes) > 1 else (),
        modules=modules,
        operators=operator_changes(sides[0].passes, sides[1].passes),
        calls=calls,
    )


def _side(report: Comparable) -> Side:
    counted = [summand.report for summand in report.summands]
    passes = {
        name: PassRecords(
            records=part.report.records,
            times=part.times,
            total_of=part.total_of,
            in_total=any(part.report is one for one in counted),
        )
        for name, part in report.passes_by_name.items()
    }
    return Side(root=report.root, passes=passes)


def _totals(before: Comparable, after: Comparable) -> dict[str, FigureChange]:
    values = (figures_of(before), figures_of(after))
    return {
        name: FigureChange(before=value, after=values[1][name]) for name, value in values[0].items()
    }


def _check_comparable(before: Comparable, after: Comparable, workload: Workload) -> None:
    for what, one, other, advice in (
        ("kinds", before.kind, after.kind, "Count both in the same way"),
        ("conventions", before.convention, after.convention, "Count both in one convention"),
    ):
        if one != other:
            msg = f"the reports are of different {what}: {one} and {other}. {advice}."
            raise ModelSpecError(msg)
    ours, theirs = before.workload, after.workload
    # Inputs may have other names: their order and their sizes are what counts.
    if workload == "any" or list(ours.values()) == list(theirs.values()):
        return
    name = next(n for n in (*ours, *theirs) if ours.get(n) != theirs.get(n))
    sizes = (f"{name} is {values.get(name, 'missing')}" for values in (ours, theirs))
    raise ModelSpecError(
        f"the reports are for different workloads: {' in the first and '.join(sizes)} in the "
        'second. Count both for the same, or compare them anyway with workload="any" '
        "(--any-workload)."
    )
