"""Captured passes that a report is the weighted sum of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from graphflops.core.cost import OpCost
from graphflops.core.ir import OpRecord
from graphflops.render.protocols import PassCosts
from graphflops.reports.comparison import ConventionComparison
from graphflops.reports.memory import MemoryReport


def once(cost: OpCost) -> OpCost:
    """Return the cost of a pass that runs once: the cost itself."""
    return cost


class CapturedPass(PassCosts, Protocol):
    """Report of one captured pass, as sums of passes see it."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbolic sizes that inputs and costs depend on."""

    @property
    def memory(self) -> MemoryReport:
        """Memory that the pass takes."""

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
        run_of: Function from a run, 0.0 for the first to 1.0 for the last, to its report in
            numbers, where runs differ; by default all are that one run.
    """

    report: CapturedPass
    times: int = 1
    total_of: Callable[[OpCost], OpCost] = once
    run_of: Callable[[float], CapturedPass] | None = None

    def run(self, position: float) -> CapturedPass:
        """Return the report of a run, from 0.0 (the first) to 1.0 (the last)."""
        return self.report if self.run_of is None else self.run_of(position)

    def records(self, position: float) -> Sequence[OpRecord]:
        """Return the records of a run, from 0.0 (the first) to 1.0 (the last)."""
        return self.run(position).records
