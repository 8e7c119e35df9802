"""Modules that were never called, runs of equal ones folded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from graphflops.core.module_tree import ModuleNode
from graphflops.render.protocols import PassCosts

_LISTED = 8
"""Modules or runs of them that are named; how many more there are is said."""


def uncalled_lines(report: PassCosts) -> list[tuple[str, str]]:
    """Return the modules never called, and those of them whose weights were used, as lines.

    ``nn.MultiheadAttention`` never calls its output projection: a function takes its weights.
    """
    uncalled = report.uncalled_modules()
    if not uncalled:
        return []
    nodes = [node for node in report.root.walk() if node.path in uncalled]
    lent = uncalled & set(_paths_of_weights(report))
    around = {parent for path in lent for parent in _parents(path)}
    idle = {node.path: node for node in nodes if node.path not in lent | around}
    topmost = [node for path, node in idle.items() if path.rpartition(".")[0] not in idle]
    lines = [("Never called", _listed(_folded(topmost)))] if topmost else []
    if lent:
        used = _listed(_folded(node for node in nodes if node.path in lent))
        lines.append(("Weights used", f"{used}: not called, functions took their weights"))
    return lines


def _listed(names: Iterable[str]) -> str:
    first, more = (everything := list(names))[:_LISTED], len(everything) - _LISTED
    return ", ".join(first) + (f" and {more} more (uncalled_modules has all)" if more > 0 else "")


def _paths_of_weights(report: PassCosts) -> Iterator[str]:
    """Paths of the modules whose own parameters are inputs of calls."""
    names = {tensor.name for record in report.records for _, tensor in record.call.tensors()}
    for module in report.capture.modules:
        for parameter in module.parameters:
            name = f"{module.path}.{parameter.name}"
            # The second is what torch.export calls it.
            if not names.isdisjoint((name, f"p_{name.replace('.', '_').lower()}")):
                yield module.path


def _parents(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition(".")[0]
        yield path


def _folded(nodes: Iterable[ModuleNode]) -> Iterator[str]:
    """Modules of one class whose paths differ in a number as one, with the range of it."""
    alike: defaultdict[tuple[str, tuple[str, ...]], list[list[str]]] = defaultdict(list)
    for node in nodes:
        parts = node.path.split(".")
        pattern = tuple("*" if part.isdecimal() else part for part in parts)
        alike[node.module_class, pattern].append(parts)
    for (kind, _), paths in alike.items():
        name = ".".join(map(_range, zip(*paths, strict=True)))
        yield name if len(paths) == 1 else f"{len(paths)} x {kind or 'module'}: {name}"


def _range(parts: tuple[str, ...]) -> str:
    if len(set(parts)) == 1:
        return parts[0]
    numbers = sorted({int(part) for part in parts})
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    return f"{numbers[0]}-{numbers[-1]}" if whole else "*"
