"""Counts of models in the graphs of compilers, beside those of the models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.doors_graphs import DOORS
from graphflops.core.ir import Phase

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "doors.json"
PAGE = ROOT / "docs" / "evidence" / "doors.md"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model behind a door.

    Attributes:
        model: Key of the model.
        door: Key of the door.
        macs: MACs that are counted there.
        expected: MACs of the model's own count, in the phases that the door has.
        missing: Those of them that are not counted there.
        misplaced: MACs that are counted there in another phase or module.
        phase: Phases of the reports.
        unsupported: Operators without a price.
        failure: Error in place of a graph or of a count.
    """

    model: str
    door: str
    macs: int = 0
    expected: int
    missing: int = 0
    misplaced: int = 0
    phase: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    failure: str = ""

    def problems(self) -> Iterator[str]:
        """Yield what differs from the model's own count."""
        if self.failure:
            yield "failure"
            return
        if self.macs != self.expected:
            yield "contractions"
        if self.misplaced:
            yield "modules"
        of_backward = DOORS[self.door].phases == {Phase.BACKWARD}
        if set(self.phase) != {Phase.BACKWARD.value if of_backward else Phase.FORWARD.value}:
            yield "phase"
        if self.unsupported:
            yield "prices"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """MACs of a model by its own counts.

    Attributes:
        model: Key of the model.
        macs: Those of a forward pass.
        flop_counter_macs: The same by ``FlopCounterMode``, on meta.
        backward_macs: Those of the backward pass, with what fused attention computes again.
    """

    model: str
    macs: int
    flop_counter_macs: int
    backward_macs: int


def cells(results: dict[str, Any]) -> list[Cell]:
    """Return the cells of saved results."""

    def cell(row: dict[str, Any]) -> Cell:
        sequences = {name: tuple(row[name]) for name in ("phase", "unsupported")}
        return Cell(**{**row, **sequences})

    return [cell(row) for row in results["cells"]]
