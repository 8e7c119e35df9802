"""Check of a report against a budget, as a result that prints itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from graphflops.analysis.budgets import Budget, LimitCheck, check_limits, load_budget, parse_budget
from graphflops.errors import ModelSpecError
from graphflops.render import budget as rendering
from graphflops.render import data
from graphflops.reports.base import CostReport


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetCheck:
    """Limits of a budget and the figures that they limit; false if one is exceeded.

    Attributes:
        model: Name of what was counted.
        limits: Each limit, those of modules once for each module.
    """

    model: str
    limits: tuple[LimitCheck, ...]

    @property
    def ok(self) -> bool:
        """True if every limit is kept."""
        return all(limit.ok for limit in self.limits)

    @property
    def exceeded(self) -> tuple[LimitCheck, ...]:
        """Limits that are exceeded."""
        return tuple(limit for limit in self.limits if not limit.ok)

    def __bool__(self) -> bool:
        return self.ok

    def to_text(self, width: int | None = None) -> str:
        """Return a table of limits, figures and margins.

        Args:
            width: Columns to fit the table into; by default it is as wide as it is.
        """
        return rendering.table(self, "simple", width)

    def to_markdown(self) -> str:
        """Return the same as a Markdown table."""
        return rendering.table(self, "github")

    def to_dict(self) -> dict[str, Any]:
        """Return the check as plain data."""
        return rendering.to_dict(self)

    def to_json(self) -> str:
        """Return :meth:`to_dict` as JSON."""
        return data.json_text(self.to_dict())

    def __str__(self) -> str:
        return self.to_text()


def check(
    report: CostReport, budget: Mapping[str, Any] | str | PathLike[str], name: str | None = None
) -> BudgetCheck:
    """Check a report against a budget.

    Args:
        report: Report of any kind.
        budget: Limits by figure, such as ``{"flops": "1.2 TFLOP", "unsupported": 0}``, with
            limits of modules by pattern under ``"modules"``; or the path of a TOML file.
        name: Name of the model, if it is not to be that of the report. The file may have a table
            of either name.

    Raises:
        ModelSpecError: The budget has keys or values that mean nothing, no limits for the
            model, or a pattern that matches no module.
        UnboundSymbolError: A figure is no number.

    Example:
        >>> import torch, graphflops
        >>> report = graphflops.count(torch.nn.Linear(3, 4), (torch.empty(2, 3),))
        >>> check = graphflops.check(report, {"macs": 24, "params": "15"})
        >>> check.ok, [(limit.figure, limit.margin) for limit in check.limits]
        (False, [('macs', 0), ('params', -1)])
    """
    model = name or report.model
    limits = tuple(check_limits(report, _budget(budget, [model, report.model])))
    if not limits:
        raise ModelSpecError('the budget has no limits. Add one, such as flops = "1.2 TFLOP".')
    return BudgetCheck(model=model, limits=limits)


def _budget(budget: Mapping[str, Any] | str | PathLike[str], names: list[str]) -> Budget:
    if isinstance(budget, Mapping):
        return parse_budget(budget)
    return load_budget(Path(budget), *names)
