"""The packages that tests need are those that the project's own files install."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OURS = {"graphflops", "benchmarks", "handlers", *(file.stem for file in ROOT.glob("tests/*.py"))}


def _imported(path: Path) -> Iterator[str]:
    """The modules that a file imports when it is imported, with full names."""
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files_of_tests() -> set[Path]:
    """The files of tests and, followed through their imports, of benchmarks."""
    found: set[Path] = set()
    left = list(ROOT.glob("tests/*.py"))
    while left:
        file = left.pop()
        if file in found:
            continue
        found.add(file)
        for module in _imported(file):
            path = ROOT / module.replace(".", "/")
            left += [f for f in (path.with_suffix(".py"), path / "__init__.py") if f.is_file()]
    return found


def _installed_by(extra: str) -> set[str]:
    """The distributions that `graphflops[extra]` brings, with all that they need in turn."""
    found: set[str] = set()
    left = [("graphflops", frozenset({extra}))]
    done: set[tuple[str, frozenset[str]]] = set()
    while left:
        name, extras = left.pop()
        if (name, extras) in done:
            continue
        done.add((name, extras))
        found.add(name)
        for line in requires(name) or []:
            need = Requirement(line)
            asked = [{"extra": one} for one in extras] or [{"extra": ""}]
            if need.marker is None or any(need.marker.evaluate(one) for one in asked):
                left.append((canonicalize_name(need.name), frozenset(need.extras)))
    return found


def test_the_dev_extra_installs_what_tests_import() -> None:
    files = _files_of_tests()
    assert ROOT / "benchmarks/sweep.py" in files
    imported = {module.partition(".")[0] for file in files for module in _imported(file)}
    foreign = imported - OURS - set(sys.stdlib_module_names)
    distributions = packages_distributions()
    installed = _installed_by("dev")
    missing = {
        name: distributions.get(name)
        for name in foreign
        if not any(canonicalize_name(dist) in installed for dist in distributions.get(name, []))
    }
    assert not missing
