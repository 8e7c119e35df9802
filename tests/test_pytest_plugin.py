"""The plugin for pytest, in runs of pytest on files of their own."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch
from torch import nn

import graphflops as gf

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[1]
NAME = "graphflops.pytest_plugin"

MODEL = """
import torch
from torch import nn

def model(width=4):
    # 3 rows: 12 MACs, 27 FLOPs and 5 parameters for each column.
    return nn.Linear(4, width), (torch.zeros(3, 4),)
"""


@pytest.fixture(scope="module", autouse=True)
def _imported() -> None:
    """Import what a count does: modules that are new in an inner run are lost after it."""
    report = gf.count(nn.Linear(4, 4), (torch.zeros(3, 4),), dynamic_shapes=({0: "B"},))
    gf.check(report.subs(B=3), {"flops": 108})
    assert callable(gf.save)


def _run(pytester: pytest.Pytester, test: str, *arguments: str) -> pytest.RunResult:
    pytester.makepyfile(test_costs=MODEL + test)
    return pytester.runpytest_inprocess(*_plugins(), *arguments)


def _plugins() -> list[str]:
    """Options that load the plugin, of which an older installation has no entry point."""
    installed = {entry.value for entry in entry_points(group="pytest11")}
    # The second one collects garbage for seconds at the end of a run.
    left_out = ("no:cacheprovider", "no:unraisableexception")
    names = left_out if NAME in installed else (*left_out, NAME)
    return [word for name in names for word in ("-p", name)]


def test_the_plugin_is_an_entry_point() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"graphflops": NAME}


def test_costs_as_expected(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        """
def test_numbers(assert_cost):
    report = assert_cost(*model(), flops=108, macs="0.048 K", params="<= 20", bytes="<= 1 KiB")
    assert_cost(report, macs=48)

def test_symbols(assert_cost):
    import graphflops
    report = graphflops.count(*model(), dynamic_shapes=({0: "B"},))
    (B,) = report.macs.free_symbols
    assert_cost(report, macs=16 * (B + 1) - 16, params=20)
""",
    )
    result.assert_outcomes(passed=2)


def test_a_figure_that_is_not_as_expected(pytester: pytest.Pytester) -> None:
    result = _run(
        pytester,
        """
def test_wrong(assert_cost):
    assert_cost(*model(), flops=107, macs="<= 47", params=20)

def test_nonsense(assert_cost):
    assert_cost(*model(), flop=1)
""",
    )
    result.assert_outcomes(failed=2)
    result.stdout.fnmatch_lines(
        [
            "Linear: flops is 108, and should be 107; macs is 48, and should be <= 47",
            "*ModelSpecError: figure is 'flop'. Did you mean 'flops'*",
        ]
    )


SNAPSHOT = """
import os

def test_snapshot(cost_snapshot):
    assert cost_snapshot(*model(int(os.environ.get("WIDTH", "4")))).macs % 12 == 0
"""


def test_a_snapshot_is_written_compared_and_updated(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pytester.path / "cost_snapshots" / "test_costs" / "test_snapshot.json"
    result = _run(pytester, SNAPSHOT)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "cost_snapshots/test_costs/test_snapshot.json: there is no snapshot yet.",
            "To accept: pytest --update-cost-snapshots",
        ]
    )
    assert not path.exists()
    _run(pytester, SNAPSHOT, "--update-cost-snapshots").assert_outcomes(passed=1)
    written = path.read_bytes()
    assert json.loads(written)["format"] == "graphflops report"
    _run(pytester, SNAPSHOT).assert_outcomes(passed=1)
    # What is as it was is not written again.
    _run(pytester, SNAPSHOT, "--update-cost-snapshots").assert_outcomes(passed=1)
    assert path.read_bytes() == written

    monkeypatch.setenv("WIDTH", "5")
    result = _run(pytester, SNAPSHOT)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*: the cost is not that of the snapshot.", "FLOPs * 108 * 135 * +27 * +25%"]
    )
    _run(pytester, SNAPSHOT, "--update-cost-snapshots").assert_outcomes(passed=1)
    _run(pytester, SNAPSHOT).assert_outcomes(passed=1)


def test_snapshots_have_names_and_parameters(pytester: pytest.Pytester) -> None:
    test = """
import pytest

@pytest.mark.parametrize("width", [4, 5])
def test_two(cost_snapshot, width):
    cost_snapshot(*model(width))
    cost_snapshot(*model(width + 1), name="wider")
"""
    _run(pytester, test, "--update-cost-snapshots").assert_outcomes(passed=2)
    names = {path.name for path in (pytester.path / "cost_snapshots" / "test_costs").iterdir()}
    assert names == {f"test_two-{width}{end}" for width in "45" for end in (".json", ".wider.json")}


def test_a_snapshot_that_cannot_be_compared(pytester: pytest.Pytester) -> None:
    folder = pytester.mkdir("cost_snapshots") / "test_costs"
    folder.mkdir()
    (folder / "test_snapshot.json").write_text("{")
    result = _run(pytester, SNAPSHOT)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*: it cannot be compared. *is no JSON, or was cut off*"])
    _run(pytester, SNAPSHOT, "--update-cost-snapshots").assert_outcomes(passed=1)


def test_the_plugin_loads_no_torch(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
import sys
def test_nothing():
    assert not {"torch", "sympy"} & set(sys.modules)
""")
    pytester.runpytest_subprocess(*_plugins()).assert_outcomes(passed=1)
