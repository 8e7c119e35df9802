"""Protocol of the reports that a page shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from graphflops.core.ir import OpRecord
from graphflops.render.protocols import Costs, PassCosts, PeakMemory


class PassRuns(Protocol):
    """Captured pass of a report, with the number of times that it runs."""

    @property
    def report(self) -> PassCosts: ...
    @property
    def times(self) -> int: ...
    def records(self, run: float) -> Sequence[OpRecord]: ...


class ShownReport(Costs, Protocol):
    """Report of any kind."""

    @property
    def model(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def symbols(self) -> tuple[str, ...]: ...
    @property
    def passes_by_name(self) -> Mapping[str, PassRuns]: ...
    @property
    def memory(self) -> PeakMemory: ...
