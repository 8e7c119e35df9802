"""Reports as viewers show them: their passes, and the graphs that these run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeVar

import sympy

from graphflops.core.cost import OpCost
from graphflops.core.ir import Module
from graphflops.errors import UnboundSymbolError
from graphflops.graph.operator_graph import OperatorGraph
from graphflops.render.protocols import PassCosts, PeakMemory

T = TypeVar("T", int, float)


class GraphRun(Protocol):
    """One run of a graph."""

    @property
    def graph(self) -> OperatorGraph: ...
    @property
    def memory(self) -> PeakMemory: ...


class Execution(NamedTuple):
    """Runs of one graph.

    Attributes:
        run_of: Function from 0.0 (the first run) to 1.0 (the last) to a run.
        times: Number of runs.
        passes: Names of the passes that the graph consists of.
    """

    run_of: Callable[[float], GraphRun]
    times: int
    passes: tuple[str, ...]


class SummedPass(Protocol):
    """Pass of a report with its cost in all runs."""

    @property
    def report(self) -> PassCosts: ...
    @property
    def total_of(self) -> Callable[[OpCost], OpCost]: ...


class Viewed(Protocol):
    """Report that a viewer shows."""

    @property
    def model(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def passes_by_name(self) -> Mapping[str, SummedPass]: ...
    @property
    def executions(self) -> Mapping[str, Execution]: ...
    def by_pass(self) -> Mapping[str, OpCost]: ...


def modules_of(report: Viewed) -> Sequence[Module]:
    """Return the modules of a report's model, in their order."""
    return next(iter(report.passes_by_name.values())).report.capture.modules


def as_number(value: T | sympy.Expr) -> T:
    """Return a count or a time that is a number.

    Raises:
        UnboundSymbolError: It is an expression.
    """
    if isinstance(value, sympy.Expr):
        symbols = ", ".join(sorted(symbol.name for symbol in value.free_symbols))
        msg = (
            f"a viewer shows numbers, and costs are formulas in {symbols}: bind them by subs(), or "
            "count with concrete sizes."
        )
        raise UnboundSymbolError(msg)
    return value
