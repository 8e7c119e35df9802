"""The versions that were tested agree wherever they are named, and others are spoken of."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.utils.checkpoint
from torch import nn

import graphflops as gf
from graphflops.capture.record import forward_tape
from graphflops.runtime import versions

ROOT = Path(__file__).parents[1]
Pins = dict[str, str]


def pins(name: str) -> Pins:
    """The versions in a file of constraints."""
    return dict(re.findall(r"^([\w-]+)==([\w.]+)$", (ROOT / name).read_text("utf-8"), re.MULTILINE))


def project() -> str:
    return (ROOT / "pyproject.toml").read_text("utf-8")


LOWEST, DEVELOPMENT, LATEST = map(
    pins, ("constraints-lowest.txt", "constraints.txt", "constraints-latest.txt")
)


def numbers(version: str) -> list[int]:
    return [*map(int, version.split("."))]


def test_all_constraints_pin_the_same_packages() -> None:
    assert set(LOWEST) == set(DEVELOPMENT) == set(LATEST)


@pytest.mark.parametrize("package", DEVELOPMENT)
def test_versions_rise_from_the_lowest_to_the_latest(package: str) -> None:
    rising = [numbers(pinned[package]) for pinned in (LOWEST, DEVELOPMENT, LATEST)]
    assert rising == sorted(rising)


@pytest.mark.parametrize("package", versions.TESTED)
def test_the_tested_range_is_what_the_constraints_pin(package: str) -> None:
    assert versions.TESTED[package] == (LOWEST[package], LATEST[package])


def requirements() -> dict[str, str]:
    """What an installation asks of other packages, by their names."""
    asked = project().partition("\ndependencies = [")[2].partition("\nbench = [")[0]
    return dict(re.findall(r'^  "([a-z]+)([^"]*)"', asked, re.MULTILINE))


@pytest.mark.parametrize("package", requirements())
def test_what_an_installation_asks_for_was_tested(package: str) -> None:
    # Nothing below what was tested is let in, and nothing above is ruled out.
    assert requirements()[package] == f">={LOWEST[package]}"


ROW = re.compile(
    r"^\| `make (test[\w-]*)`[^|]*\| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (3\.\d+) "
    r"\| [^|]* passed[^|]*\| \d{4}-\d\d-\d\d \|$",
    re.MULTILINE,
)


def test_the_docs_say_what_was_tested() -> None:
    page = (ROOT / "docs" / "get_started.md").read_text("utf-8")
    rows = {target: row for target, *row in ROW.findall(page)}
    pinned = {"test": DEVELOPMENT, "test-latest": LATEST, "test-lowest": LOWEST}
    named = ("torch", "torchvision", "transformers")
    assert {target: row[:-1] for target, row in rows.items()} == {
        target: [constraints[name] for name in named] for target, constraints in pinned.items()
    }
    pythons = {python for *_, python in rows.values()}
    assert set(re.findall(r"Python :: (3\.\d+)", project())) == pythons
    assert re.findall(r'requires-python = ">=([\d.]+)"', project()) == [min(pythons)]


def test_make_runs_the_tests_on_other_versions_in_a_place_of_their_own() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for name in ("latest", "lowest"):
        assert f"test-{name}" in makefile
        assert (ROOT / f"constraints-{name}.txt").is_file()
    for ignoring in (".gitignore", "pyproject.toml"):
        assert ".venv-*" in (ROOT / ignoring).read_text("utf-8")


@pytest.fixture
def untested(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both packages are of a version that nobody has tested."""
    monkeypatch.setattr(
        versions, "_installed_version", {"torch": "2.99", "transformers": "5.99"}.get
    )


@pytest.mark.parametrize(
    ("version", "is_untested"),
    [
        ("2.12.1", True),
        ("2.13.0", False),
        ("2.13.0+cpu", False),
        ("2.14.1", False),
        ("2.15.0+cu132", False),
        ("2.15.1", True),
        ("2.16.0.dev20261125", True),
        ("3.0", True),
    ],
)
def test_what_counts_as_tested(
    version: str, is_untested: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        versions, "_installed_version", {"torch": version, "transformers": "5.23.0"}.get
    )
    assert versions.is_untested("torch") is is_untested
    assert (f"torch {version} (2.13.0 to 2.15.0 were tested)" in versions.untested_versions()) == (
        is_untested
    )


VERSION = (
    "from graphflops.runtime import versions; versions._installed_version = lambda package: '2.99'"
)
# What a later version may be like, before anything is imported.
GONE = {
    "torch.export._tree_utils.reorder_kwargs": """
import torch.export._tree_utils as home
del home.reorder_kwargs
""",
    "torch._subclasses.schema_check_mode": """
import sys, torch
sys.modules["torch._subclasses.schema_check_mode"] = None
""",
}


@pytest.mark.parametrize("piece", GONE)
def test_a_piece_that_is_gone_before_anything_is_imported_is_named(piece: str) -> None:
    program = f"{GONE[piece]}\n{VERSION}\nfrom graphflops.cli import main; main()"
    run = subprocess.run(
        [sys.executable, "-c", program, "count", "torch.nn:ReLU", "--input", "input=2x3"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith(f"graphflops: torch 2.99 has changed {piece}, which ")
    assert "was tested with torch 2.13.0 to 2.15.0: install one of these" in run.stderr
    assert run.stderr.count("\n") == 1


def test_the_package_imports_where_a_piece_is_gone() -> None:
    gone = GONE["torch.export._tree_utils.reorder_kwargs"]
    program = f"""{gone}
{VERSION}
import graphflops as gf
assert gf.__version__ and gf.OpCost and "count" in dir(gf)
try:
    gf.count
except gf.VersionError as error:
    print(error)
"""
    run = [sys.executable, "-c", program]
    said = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert said.startswith("torch 2.99 has changed torch.export._tree_utils.")


MISSING = {
    "torch.nothing": "torch.nothing",
    "torch.ops.aten.nothing": "torch.ops.aten.nothing",
    "torch.zeros(1).nothing": "torch.Tensor.nothing",
    "from torch.utils import nothing": "torch.utils.nothing",
    "import torch.nothing": "torch.nothing",
    "from torch.nothing import something": "torch.nothing",
}


def run_as(module: str, line: str) -> None:
    with versions.translate_version_errors():
        exec(line, {"torch": torch, "__name__": module})  # noqa: S102 - our own lines


@pytest.mark.usefixtures("untested")
@pytest.mark.parametrize("line", MISSING)
def test_what_graphflops_asks_for_in_vain_is_named(line: str) -> None:
    with pytest.raises(gf.VersionError, match=rf"^torch 2\.99 has changed {MISSING[line]}, which"):
        run_as("graphflops.somewhere", line)


@pytest.mark.usefixtures("untested")
@pytest.mark.parametrize("line", MISSING)
def test_what_anybody_else_asks_for_in_vain_is_not(line: str) -> None:
    with pytest.raises((AttributeError, ImportError)):
        run_as("model", line)


@pytest.mark.usefixtures("untested")
@pytest.mark.parametrize("line", ["(1).nothing", "import never_written", "int(1, 2, 3)", "1 + ''"])
def test_what_is_not_of_torch_is_no_change_of_it(line: str) -> None:
    with pytest.raises((AttributeError, ImportError, TypeError)):
        run_as("graphflops.somewhere", line)


def _NonStrictTorchFunctionHandler(strictness: int) -> None:  # noqa: N802 - as torch names it
    """A function of torch that has got a parameter."""
    raise AssertionError(strictness)


def count_forward() -> object:
    return gf.count(nn.Linear(3, 4), (torch.zeros(2, 3),))


def count_step() -> object:
    return gf.count_training(nn.Linear(3, 4), (torch.zeros(2, 3),))


@pytest.mark.usefixtures("untested")
def test_a_changed_signature_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "_NonStrictTorchFunctionHandler"
    monkeypatch.setattr(
        forward_tape, "NonStrictTorchFunctionHandler", _NonStrictTorchFunctionHandler
    )
    with pytest.raises(gf.VersionError, match=rf"2\.99 has changed {name}\(\), "):
        count_forward()


@pytest.mark.usefixtures("untested")
def test_a_missing_attribute_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.utils.checkpoint, "CheckpointFunction")
    piece = r"torch\.utils\.checkpoint\.CheckpointFunction"
    with pytest.raises(gf.VersionError, match=rf"torch 2\.99 has changed {piece}, .*2\.13\.0 to "):
        count_step()


def test_on_a_tested_version_such_a_mistake_is_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.utils.checkpoint, "CheckpointFunction")
    with pytest.raises(AttributeError, match="CheckpointFunction"):
        count_step()


class Wrong(nn.Module):
    """Asks torch for what it has not, and calls it as it cannot be called."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.line = line

    def forward(self, x: torch.Tensor) -> object:
        return eval(self.line, {"torch": torch, "nn": nn, "x": x})  # noqa: S307 - our own lines


@pytest.mark.usefixtures("untested")
@pytest.mark.parametrize(
    "line",
    ["torch.no_such_function(x)", "nn.functional.linear(x)", "nn.Linear(3, 4)(x, x)", "x.nothing"],
)
def test_a_mistake_of_the_model_is_none_of_the_version(line: str) -> None:
    with pytest.raises(gf.CaptureError, match="the forward of Wrong fails on these inputs"):
        gf.count(Wrong(line), (torch.zeros(2, 3),))


@pytest.mark.usefixtures("untested")
def test_a_model_that_cannot_be_captured_may_be_so_for_the_version() -> None:
    with pytest.raises(
        gf.CaptureError, match=r"the untested torch 2\.99 \(2\.13\.0 to 2\.15\.0 were"
    ):
        gf.count(Wrong("x if x.sum() > 0 else -x"), (torch.zeros(2, 3, device="meta"),))


@pytest.mark.usefixtures("untested")
def test_a_count_on_an_untested_version_just_works() -> None:
    assert gf.count(nn.Linear(3, 4), (torch.zeros(2, 3),)).macs == 2 * 3 * 4
