"""The module tree in the style of PyTorch's own ``repr``, each line with its costs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import groupby
from typing import TypeAlias

from graphflops.core.module_tree import ModuleNode
from graphflops.render.escape import visible
from graphflops.render.units import parameters, percent, quantity

Figures: TypeAlias = Callable[[ModuleNode], str]
"""What a line says of a module."""


def render_tree(root: ModuleNode, depth: int | None = None, figures: Figures | None = None) -> str:
    """Render a module and its children.

    Args:
        root: The module.
        depth: How many levels below the root to show; all if ``None``.
        figures: What to say of each; by default its parameters, MACs and FLOPs.

    Returns:
        Plain text. Neighbours that are alike in every respect are folded into one entry, as
        in ``(0-31): 32 x LlamaDecoderLayer``; its figures are those of each one.
    """
    figures = figures or (lambda node: _figures(node, root))
    return "\n".join(map(visible, _lines(root, figures, depth, prefix="")))


def _lines(node: ModuleNode, figures: Figures, depth: int | None, prefix: str) -> Iterator[str]:
    said = figures(node)
    if not node.children or depth == 0:
        extra = f", {node.extra}" if node.extra else ""
        yield f"{prefix}{node.module_class}({said}{extra})"
        return
    yield f"{prefix}{node.module_class}("
    yield f"  {said}"
    deeper = None if depth is None else depth - 1
    for label, child in _folded(node.children, figures):
        for line in _lines(child, figures, deeper, prefix=label):
            yield f"  {line}"
    yield ")"


def not_called(node: ModuleNode) -> bool:
    """Whether neither a module nor anything below it ran."""
    return node.calls == 0 and all(below.calls == 0 for below in node.walk())


def _figures(node: ModuleNode, root: ModuleNode) -> str:
    if not_called(node):
        return f"{parameters(node.params_total)} Params, not called"
    parts = (
        (parameters(node.params_total), percent(node.params_total, root.params_total), "Params"),
        (quantity(node.total.macs, "MACs"), percent(node.total.macs, root.total.macs), "MACs"),
        (quantity(node.total.flops, "FLOPs"), percent(node.total.flops, root.total.flops), "FLOPs"),
    )
    shown = [f"{value} = {share} {unit}" if share else value for value, share, unit in parts]
    if node.unknown:
        shown.append(f"{node.unknown} calls unknown")
    return ", ".join(shown)


def _folded(children: tuple[ModuleNode, ...], figures: Figures) -> Iterator[tuple[str, ModuleNode]]:
    """Runs of equal neighbours with numbered names become one labelled child."""
    for _, run in groupby(children, key=lambda child: _likeness(child, figures)):
        alike = list(run)
        numbered = all(child.name.isdigit() for child in alike)
        if len(alike) == 1 or not numbered:
            # What is no module has parentheses in its name already.
            yield from ((f"({child.name.strip('()')}): ", child) for child in alike)
        else:
            first, last = alike[0].name, alike[-1].name
            yield f"({first}-{last}): {len(alike)} x ", alike[0]


def _likeness(node: ModuleNode, figures: Figures) -> Hashable:
    children = tuple((child.name, _likeness(child, figures)) for child in node.children)
    return (
        *(node.module_class, node.extra, node.own, node.params_own, node.params_total, node.calls),
        *(node.unknown, figures(node), children),
    )
