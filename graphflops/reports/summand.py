"""Captured passes that a report is the weighted sum of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from graphflops.core.cost import OpCost
from graphflops.core.ir import OpRecord
from graphflops.render.protocols import PassCosts
from graphflops.reports.comparison import ConventionComparison


def once(cost: OpCost) -> OpCost:
    """Return the cost of a pass that runs once: the cost itself."""
    return cost


class CapturedPass(PassCosts, Protocol):
    """Report of one captured pass, as sums of passes see it."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbolic sizes that inputs and costs depend on."""

    def by_module_and_operator(self) -> dict[str, dict[str, OpCost]]:
        """Return the cost of each operator within each module, children included."""

    def compare_conventions(self, convention: str) -> ConventionComparison:
        """Compare with another convention."""


@dataclass(frozen=True, slots=True)
class Summand:
    """One captured pass of a report, with the number of times that it runs.

    Attributes:
        report: Report of one run.
        times: Number of runs.
        total_of: Function from the cost of something in one run to its cost in all runs.
        records_of: Function from a run, 0.0 for the first to 1.0 for the last, to its records,
            where runs differ; by default all have those of the report.
    """

    report: CapturedPass
    times: int = 1
    total_of: Callable[[OpCost], OpCost] = once
    records_of: Callable[[float], Sequence[OpRecord]] | None = None

    def records(self, run: float) -> Sequence[OpRecord]:
        """Return the records of a run, from 0.0 (the first) to 1.0 (the last)."""
        return self.report.records if self.records_of is None else self.records_of(run)
