"""Plugin for pytest: the fixtures ``assert_cost`` and ``cost_snapshot``.

A test states what a model costs, or compares a model with the report that was saved beside it.
The plugin is loaded in every run of pytest: torch is loaded only when a test counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest

if TYPE_CHECKING:
    from graphflops.saving.files import AnyReport

_UPDATE = "--update-cost-snapshots"
_FOLDER = "cost_snapshots"


class AssertCost(Protocol):
    """Fixture ``assert_cost``."""

    def __call__(
        self, model: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None, **figures: Any
    ) -> AnyReport:
        """Count a forward pass and compare figures with what is expected.

        Args:
            model: Model, or a report of any kind.
            args: Positional inputs of the model.
            kwargs: Keyword inputs of the model.
            figures: Expected figures by name: a number or expression to be equal to, or a text
                such as ``"<= 1.2 GFLOP"`` for a limit.

        Returns:
            The report.
        """


class CostSnapshot(Protocol):
    """Fixture ``cost_snapshot``."""

    def __call__(
        self,
        model: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str = "",
    ) -> AnyReport:
        """Compare with the report that is saved beside the test.

        Args:
            model: Model to count a forward pass of, or a report of any kind.
            args: Positional inputs of the model.
            kwargs: Keyword inputs of the model.
            name: Name of the snapshot, if a test has several.

        Returns:
            The report.
        """


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag that writes snapshots."""
    parser.getgroup("graphflops").addoption(
        _UPDATE,
        action="store_true",
        help="Write the reports that cost_snapshot compares with, where they differ.",
    )


@pytest.fixture
def assert_cost() -> AssertCost:
    """Return a function that counts a model and fails if a figure is not as expected."""
    return _assert_cost


@pytest.fixture
def cost_snapshot(request: pytest.FixtureRequest) -> CostSnapshot:
    """Return a function that compares a model with the report that is saved beside the test."""
    test = re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
    folder = Path(request.node.path).parent / _FOLDER / Path(request.node.path).stem
    update = request.config.getoption(_UPDATE)

    def compare(
        model: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        name: str = "",
    ) -> AnyReport:
        report = _report(model, args, kwargs)
        path = folder / f"{test}.{name}.json" if name else folder / f"{test}.json"
        difference = _difference(path, report)
        if difference and update:
            from graphflops.saving import save

            folder.mkdir(parents=True, exist_ok=True)
            save(report, path)
        elif difference:
            shown = os.path.relpath(path, request.config.rootpath)
            pytest.fail(f"{shown}: {difference}\n\nTo accept: pytest {_UPDATE}", pytrace=False)
        return report

    return compare


def _difference(path: Path, report: AnyReport) -> str:
    """Return the difference from a saved report in words; empty if there is none."""
    from graphflops.errors import GraphFlopsError
    from graphflops.saving import load

    if not path.exists():
        return "there is no snapshot yet."
    try:
        difference = load(path).diff(report)
    except GraphFlopsError as error:
        return f"it cannot be compared. {error}"
    return f"the cost is not that of the snapshot.\n\n{difference}" if difference else ""


def _assert_cost(
    model: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None, **figures: Any
) -> AnyReport:
    __tracebackhide__ = True
    from graphflops.analysis.figures import figures_of

    report = _report(model, args, kwargs)
    actual = figures_of(report)
    wrong = [
        text for name, expected in figures.items() if (text := _mismatch(name, expected, actual))
    ]
    if wrong:
        pytest.fail(f"{report.model}: {'; '.join(wrong)}", pytrace=False)
    return report


def _mismatch(name: str, expected: Any, figures: Mapping[str, Any]) -> str:
    """Return in words how a figure differs from what is expected; empty if it does not."""
    from graphflops.analysis.changes import is_same
    from graphflops.analysis.limits import UNITS, parse_quantity
    from graphflops.core.arguments import check_choice
    from graphflops.render.units import exact

    check_choice("figure", name, UNITS)
    actual = figures[name]
    if isinstance(expected, str) and expected.startswith("<="):
        exceeds = actual > parse_quantity(name, expected.removeprefix("<="))
        return f"{name} is {exact(actual)}, and should be {expected}" if exceeds else ""
    value = parse_quantity(name, expected) if isinstance(expected, str) else expected
    if is_same(actual, value):
        return ""
    return f"{name} is {exact(actual)}, and should be {expected}"


def _report(model: Any, args: Any, kwargs: Mapping[str, Any] | None) -> AnyReport:
    from graphflops.counting.forward import count
    from graphflops.reports.base import CostReport

    if isinstance(model, CostReport):
        return cast("AnyReport", model)
    return count(model, args, kwargs)
