"""The architecture: who may import whom, how large things grow, and the voice of docstrings."""

from __future__ import annotations

import ast
import importlib
import tomllib
from pathlib import Path

import pytest

import graphflops
from benchmarks.house import House

ROOT = Path(__file__).parents[1]
HANDLERS = sorted((ROOT / "handlers").glob("*.py"))
SOURCES = sorted([*(ROOT / "graphflops").rglob("*.py"), *HANDLERS, *(ROOT / "tests").glob("*.py")])
ALLOWED = {
    "graphflops.core.cost",
    "graphflops.core.ir",
    "graphflops.pricing.registry",
    "graphflops.pricing.memory_traffic",
}
STANDARD = {
    "__future__",
    "collections.abc",
    "dataclasses",
    "functools",
    "inspect",
    "itertools",
    "math",
}
STANDARD |= {"typing", "sympy"}


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found.add(node.module or "")
    return found


@pytest.mark.parametrize("path", HANDLERS, ids=lambda path: path.stem)
def test_handlers_see_only_shapes_and_costs(path: Path) -> None:
    assert _imports(path) <= ALLOWED | STANDARD


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_is_about_one_subject(path: Path) -> None:
    limit = 410 if path.parent.name == "tests" else 400
    assert len(path.read_text("utf-8").splitlines()) <= limit


@pytest.fixture(scope="module")
def house() -> House:
    return House(ROOT)


def test_no_module_imports_in_a_circle(house: House) -> None:
    assert house.circles() == []


def test_no_import_goes_up_the_layers(house: House) -> None:
    # import-linter checks the same in `make lint`, without imports for types.
    assert house.upward() == []


def test_private_names_of_torch_stand_in_one_place(house: House) -> None:
    assert house.private_names() == {}


def test_a_docstring_states_what_it_documents(house: House) -> None:
    assert house.questions() == []


def test_a_package_says_what_comes_in_and_out_and_what_it_may_import(house: House) -> None:
    packages = [s for s in house.package if s.path.name == "__init__.py" and s.module.count(".")]
    for package in packages:
        text = " ".join((ast.get_docstring(package.tree) or "").split())
        assert all(part in text for part in ("In:", "Out:", "May import")), package.module


def test_functions_fit_a_screen(house: House) -> None:
    assert [name for name, lines, _ in house.functions() if lines > 60] == []


def test_positional_parameters_are_few(house: House) -> None:
    # Handlers take the parameters of the operator's schema.
    functions = [f for f in house.functions() if not f[0].startswith("handlers.")]
    assert [name for name, _, parameters in functions if parameters > 8] == []


def test_every_folder_ships_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folders = {path.parent.relative_to(ROOT) for path in SOURCES if path.name == "__init__.py"}
    names = {".".join(folder.parts) for folder in folders if folder.parts[0] == "graphflops"}
    assert {*names, "graphflops.handlers"} == set(project["tool"]["setuptools"]["packages"])


def test_the_core_never_names_the_handlers_statically() -> None:
    for path in (ROOT / "graphflops").rglob("*.py"):
        assert not any(name.startswith("graphflops.handlers") for name in _imports(path))


def test_every_public_name_resolves() -> None:
    for name in graphflops.__all__:
        assert getattr(graphflops, name) is not None
    assert set(graphflops.__all__) == set(dir(graphflops))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = graphflops.nothing
    assert importlib.import_module("graphflops.counting.forward").count is graphflops.count
