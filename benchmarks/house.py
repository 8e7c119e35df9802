"""Figures of the architecture: ``python -m benchmarks.house [CHECKOUT ...]``.

Files, packages, lines, import circles, imports against the layers, private names of torch outside
of ``torch_internals``, and docstrings that begin with a question word. Given two checkouts, the
table compares them. The figures of the present one are limits in ``tests/test_house.py``.
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import networkx as nx
from tabulate import tabulate

ROOT = Path(__file__).parents[1]
_QUESTION = re.compile(r"(What|Which|Whether|How|Who|Whose|Where|When|Why)\b")
_INTERNALS = "torch_internals"


@dataclass(frozen=True)
class Source:
    """A Python file of a checkout.

    Attributes:
        module: Its dotted name.
        path: The file.
    """

    module: str
    path: Path

    @cached_property
    def text(self) -> str:
        """Its source."""
        return self.path.read_text("utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.text)


@dataclass
class House:
    """A checkout of the project.

    Attributes:
        root: Its folder.
    """

    root: Path
    sources: list[Source] = field(init=False)

    def __post_init__(self) -> None:
        self.sources = [*self._of("graphflops"), *self._of("handlers"), *self._of("benchmarks")]

    def _of(self, folder: str) -> Iterator[Source]:
        for path in sorted((self.root / folder).rglob("*.py")):
            parts = path.relative_to(self.root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            yield Source(name, path)

    @property
    def package(self) -> list[Source]:
        """Files that ship."""
        return [s for s in self.sources if not s.module.startswith("benchmarks")]

    @cached_property
    def imports(self) -> nx.DiGraph[str]:
        """Imports between modules of the project, those for types included."""
        names = {source.module for source in self.sources}
        graph: nx.DiGraph[str] = nx.DiGraph()
        graph.add_nodes_from(names)
        for source in self.sources:
            for target in _imported(source.tree, names):
                graph.add_edge(source.module, target)
        return graph

    def circles(self) -> list[list[str]]:
        """Return the groups of modules that import one another."""
        groups = nx.strongly_connected_components(self.imports)
        return [sorted(group) for group in groups if len(group) > 1]

    def upward(self) -> list[tuple[str, str]]:
        """Return the imports against the layers that ``pyproject.toml`` declares."""
        settings = tomllib.loads((self.root / "pyproject.toml").read_text("utf-8"))
        found: list[tuple[str, str]] = []
        for contract in settings["tool"]["importlinter"]["contracts"]:
            for container in contract.get("containers", ()):
                found += self._against(container, contract["layers"])
        return found

    def _against(self, container: str, layers: list[str]) -> Iterator[tuple[str, str]]:
        rank = {
            f"{container}.{name.strip()}": i
            for i, layer in enumerate(layers)
            for name in layer.split("|")
        }
        depth = container.count(".") + 2

        def layer_of(module: str) -> int | None:
            return rank.get(".".join(module.split(".")[:depth]))

        for importer, imported in self.imports.edges:
            above, below = layer_of(importer), layer_of(imported)
            if above is not None and below is not None and below < above:
                yield importer, imported

    def private_names(self) -> dict[str, set[str]]:
        """Return private names of torch outside of ``torch_internals``, with their modules."""
        found: dict[str, set[str]] = {}
        for source in self.package:
            if _INTERNALS not in source.module:
                for name in _private(source.tree):
                    found.setdefault(name, set()).add(source.module)
        return found

    def questions(self) -> list[str]:
        """Return the places of docstrings that begin with a question word."""
        return [
            f"{source.module}:{node.lineno if hasattr(node, 'lineno') else 1}"
            for source in self.package
            for node in ast.walk(source.tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and _QUESTION.match(ast.get_docstring(node) or "")
        ]

    def functions(self) -> Iterator[tuple[str, int, int]]:
        """Yield each function with the lines of its body and its positional parameters."""
        for source in self.package:
            for node in ast.walk(source.tree):
                if isinstance(node, ast.FunctionDef):
                    body = node.body[1:] if ast.get_docstring(node) else node.body
                    lines = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
                    names = [a.arg for a in (*node.args.posonlyargs, *node.args.args)]
                    parameters = [name for name in names if name not in {"self", "cls"}]
                    yield f"{source.module}.{node.name}", lines, len(parameters)

    def figures(self) -> dict[str, int]:
        """Return the figures of the table."""
        lines = {source.module: len(source.text.splitlines()) for source in self.package}
        functions = list(self.functions())
        return {
            "files that ship": len(self.package),
            "packages": len({source.path.parent for source in self.package}),
            "files at the top": len([*(self.root / "graphflops").glob("*.py")]),
            "lines": sum(lines.values()),
            "lines of the longest file": max(lines.values()),
            "lines of the longest function body": max(body for _, body, _ in functions),
            "most positional parameters": max(count for *_, count in functions),
            "import circles": len(self.circles()),
            "modules in circles": sum(map(len, self.circles())),
            "imports against the layers": len(self.upward()),
            f"private names of torch outside of {_INTERNALS}": len(self.private_names()),
            "modules with such names": len(
                {module for modules in self.private_names().values() for module in modules}
            ),
            "docstrings that begin with a question word": len(self.questions()),
        }

    def lines_by_package(self) -> dict[str, int]:
        """Return the lines of each package."""
        lines: dict[str, int] = {}
        for source in self.package:
            package = str(source.path.parent.relative_to(self.root))
            lines[package] = lines.get(package, 0) + len(source.text.splitlines())
        return lines


def _imported(tree: ast.Module, names: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            submodules = [f"{node.module}.{alias.name}" for alias in node.names]
            inside = [name for name in submodules if name in names]
            yield from inside
            if len(inside) < len(submodules) and node.module in names:
                yield node.module


def _private(tree: ast.Module) -> Iterator[str]:
    """Yield the private names that a module imports from torch, or reaches through it."""
    inner = {id(n.value) for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("torch.")]
        elif isinstance(node, ast.Attribute) and id(node) not in inner:
            names = [name for name in [_dotted(node)] if name.startswith("torch.")]
        # What lies below torch.ops are operators, whatever they are called.
        yield from (n for n in names if not n.startswith("torch.ops.") and _is_private(n))


def _is_private(name: str) -> bool:
    return any(part.startswith("_") and not part.startswith("__") for part in name.split("."))


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def main() -> None:
    """Print the tables."""
    houses = [House(Path(folder)) for folder in sys.argv[1:]] or [House(ROOT)]
    columns = [house.figures() for house in houses]
    rows = [[name, *(figures[name] for figures in columns)] for name in columns[0]]
    headers = ["", *(house.root.name for house in houses)]
    print(tabulate(rows, headers, tablefmt="github"))
    print()
    rows = [[name, lines] for name, lines in houses[-1].lines_by_package().items()]
    print(tabulate(rows, ["package", "lines"], tablefmt="github"))


if __name__ == "__main__":
    main()
