"""Graphs of one more token, and the steps that run each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from graphflops.core.closed_form import sum_over
from graphflops.core.cost import OpCost
from graphflops.core.guards import holds_throughout
from graphflops.reports.report import Report


@dataclass(frozen=True, kw_only=True)
class DecodeGraph:
    """The graph of one more token.

    Attributes:
        report: Its costs, in ``K``: tokens in the cache before the step.
        cached: The number of them it was captured at.
    """

    report: Report
    cached: int

    def last(self, first: int, end: int, sizes: Mapping[str, int]) -> int:
        """Up to how many tokens in the cache the graph holds from ``first`` on, at most ``end``.

        Below ``first`` if it does not hold there.
        """

        def holds(last: int) -> bool:
            conditions = self.report.capture.assumptions
            return all(holds_throughout(c, sizes, "K", first, last) for c in conditions)

        # A graph with one token in the cache is captured with two, as all symbols are.
        low, high = (first if first == self.cached or holds(first) else first - 1), end
        while low >= first and low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if holds(middle) else (low, middle - 1)
        return low


@dataclass(frozen=True, kw_only=True)
class DecodeSegment:
    """Steps that run one graph, one for each number of tokens in the cache.

    Attributes:
        report: What a step costs, in ``K``.
        first: Tokens in the cache at the first of them.
        last: Tokens in the cache at the last.
    """

    report: Report
    first: int
    last: int

    @property
    def steps(self) -> int:
        """Number of steps."""
        return self.last - self.first + 1

    def summed(self, cost: OpCost) -> OpCost:
        """Return the sum over these steps of a cost in ``K``."""
        return cost.map(lambda value: sum_over(value, "K", self.first, self.last))

    def step(self, position: float) -> Report:
        """Return the report of a step, from 0.0 (the first) to 1.0 (the last), in numbers."""
        if "K" not in self.report.symbols:
            return self.report
        return self.report.subs(K=self.first + round(position * (self.steps - 1)))
