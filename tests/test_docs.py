"""What README and pages show is what graphflops prints; what they link to and name exists."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import docs_examples, doors_page, doors_results, fuzz_page, vs_peers, zoo
from benchmarks.docs_examples import CONSOLE, PAGES, PYTHON, Block
from benchmarks.docs_figures import FIGURES
from benchmarks.gpu import compare as gpu_page
from benchmarks.others import page as others_page
from benchmarks.page import render as vs_peers_page
from benchmarks.real_runs import page as real_runs_page
from benchmarks.results import Results, rows_of
from benchmarks.zoo_page import render as zoo_page

ROOT = Path(__file__).parents[1]
BUILT = ROOT / "docs" / "how_it_is_built.md"


def _with(languages: tuple[str, ...]) -> list[Path]:
    return [page for page in PAGES if docs_examples.languages_of(page) & set(languages)]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _fresh(blocks: list[Block]) -> None:
    stale = [block.difference() for block in blocks if block.stale]
    assert not stale, "\n\n".join(stale)


@pytest.mark.parametrize("page", _with(PYTHON), ids=_name)
def test_python_examples_run_and_print_what_is_shown(page: Path) -> None:
    _fresh(docs_examples.run_python(page))


@pytest.mark.parametrize("page", _with(CONSOLE), ids=_name)
def test_commands_print_what_is_shown(page: Path) -> None:
    _fresh(docs_examples.run_console(page))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_figures_are_those_of_the_results(page: Path) -> None:
    _fresh(list(docs_examples.figures(page)))


def test_every_figure_is_on_a_page() -> None:
    text = "".join(page.read_text("utf-8") for page in PAGES)
    assert [name for name in FIGURES if f"<!-- {name} -->" not in text] == []


@pytest.mark.parametrize(
    ("page", "render"),
    [
        (doors_results.PAGE, doors_page.page),
        (fuzz_page.PAGE, fuzz_page.page),
        (others_page.PAGE, others_page.render),
        (gpu_page.PAGE, gpu_page.page),
        (real_runs_page.PAGE, real_runs_page.render),
        (vs_peers.PAGE, lambda: vs_peers_page(Results.load(vs_peers.RESULTS))),
        (zoo.PAGE, lambda: zoo_page(*rows_of(zoo.RESULTS))),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "",
)
def test_pages_of_sweeps_are_what_the_scripts_write(page: Path, render: Callable[[], str]) -> None:
    assert page.read_text("utf-8") == render()


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_a_page_says_where_output_comes_from(page: Path) -> None:
    # Blocks without a language would not be checked.
    fences = re.findall(r"^```(.*)$", page.read_text("utf-8"), re.MULTILINE)
    assert all(fences[::2]), page


def test_the_budget_on_the_page_is_the_example() -> None:
    page = (ROOT / "docs" / "tasks" / "diff.md").read_text("utf-8")
    shown = page.partition("```toml\n")[2].partition("```")[0]
    example = (ROOT / "examples" / "ci" / "budgets.toml").read_text("utf-8")
    assert tomllib.loads(shown) == tomllib.loads(example)


def test_the_devices_on_the_page_are_the_example() -> None:
    page = (ROOT / "docs" / "reference" / "devices.md").read_text("utf-8")
    shown = page.partition("```toml\n")[2].partition("```")[0]
    assert shown == (ROOT / "examples" / "devices.toml").read_text("utf-8")


def _defined(path: Path) -> set[str]:
    tree = ast.parse(path.read_text("utf-8"))
    definitions = {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assigned = (
        target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets
    )
    return definitions | {target.id for target in assigned if isinstance(target, ast.Name)}


def _answers() -> list[tuple[str, str, tuple[str, ...]]]:
    table = BUILT.read_text("utf-8").partition("## Where is ...")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| `(.+?)` \| (.*?) \|$", table, re.MULTILINE)
    return [(what, path, tuple(re.findall(r"`(\w+)`", names))) for what, path, names in rows]


def test_twelve_questions_are_answered() -> None:
    assert len(_answers()) >= 12


@pytest.mark.parametrize(("what", "path", "names"), _answers(), ids=lambda value: str(value)[:40])
def test_what_the_architecture_page_names_exists(
    what: str, path: str, names: tuple[str, ...]
) -> None:
    assert (ROOT / path).exists(), what
    assert names
    assert set(names) <= _defined(ROOT / path), what


@pytest.mark.parametrize("page", [BUILT, ROOT / "CONTRIBUTING.md"], ids=_name)
def test_paths_in_pages_about_the_code_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    paths = re.findall(r"`((?:graphflops|handlers|benchmarks|tests|docs|examples)/[\w./-]*)`", text)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_paths_in_the_drawing_exist() -> None:
    drawing = (ROOT / "docs" / "data_flow.svg").read_text("utf-8")
    paths = re.findall(r">((?:graphflops|handlers)/[\w/.]*)<", drawing)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_the_layers_on_the_page_are_those_of_the_contract() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contract = next(
        contract
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["name"] == "Data flows one way"
    )
    section = BUILT.read_text("utf-8").partition("## Who may import whom")[2]
    assert section.partition("```text\n")[2].partition("\n```")[0].split("\n") == contract["layers"]
