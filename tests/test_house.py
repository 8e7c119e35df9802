"""The architecture: who may import whom, and how large a file may grow."""

from __future__ import annotations

import ast
import importlib
import tomllib
from pathlib import Path

import pytest

import graphflops

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
    assert len(path.read_text("utf-8").splitlines()) <= 420


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
