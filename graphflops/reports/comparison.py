"""Two conventions on one capture, as a result that prints itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from graphflops.analysis.compare_conventions import Difference, merge
from graphflops.core.cost import OpCost
from graphflops.render import comparison, data


@dataclass(frozen=True, slots=True, kw_only=True)
class ConventionComparison:
    """Two conventions on one capture, the largest difference first.

    Attributes:
        model: Name of what was counted.
        conventions: Names of the report's convention and of the other one.
        flops_per_mac: FLOPs that each takes for a multiply-accumulate.
        ours: Total in the report's convention.
        theirs: Total in the other one.
        operators: Differences by operator and reason. Those of all rows sum to the difference
            of the totals.
        modules: Differences by module, operator and reason; a call is in its innermost module.
    """

    model: str
    conventions: tuple[str, str]
    flops_per_mac: tuple[int, int]
    ours: OpCost
    theirs: OpCost
    operators: tuple[Difference, ...]
    modules: tuple[Difference, ...]

    def summed(self, total_of: Callable[[OpCost], OpCost], times: int) -> ConventionComparison:
        """Return the comparison for several runs of the calls.

        Args:
            total_of: Function from a cost in one run to the cost in all runs.
            times: Number of runs.
        """

        def rows(differences: tuple[Difference, ...]) -> tuple[Difference, ...]:
            return tuple(
                replace(
                    row,
                    calls=row.calls * times,
                    ours=total_of(row.ours),
                    theirs=total_of(row.theirs),
                )
                for row in differences
            )

        return replace(
            self,
            ours=total_of(self.ours),
            theirs=total_of(self.theirs),
            operators=rows(self.operators),
            modules=rows(self.modules),
        )

    def __add__(self, other: ConventionComparison) -> ConventionComparison:
        return replace(
            self,
            ours=self.ours + other.ours,
            theirs=self.theirs + other.theirs,
            operators=merge((*self.operators, *other.operators), lambda row: row.path),
            modules=merge((*self.modules, *other.modules), lambda row: row.path),
        )

    def table(self, tablefmt: str = "simple_grid", width: int | None = None) -> str:
        """Return totals, differences by operator and differences by module as tables.

        Modules that differ only in a number, as the layers of a stack do, share a row.

        Args:
            tablefmt: Format of tabulate's.
            width: Columns to fit the tables into; by default they are as wide as they are.
        """
        return comparison.table(self, tablefmt, width)

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as plain data; expressions become strings."""
        return comparison.to_dict(self)

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return data.json_text(self.to_dict())

    def to_csv(self) -> str:
        """Return one line per module, operator and reason."""
        return data.csv_text([comparison.row_dict(row) for row in self.modules])

    def __str__(self) -> str:
        return self.table()
