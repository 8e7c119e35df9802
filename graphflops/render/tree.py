"""The module tree in the style of PyTorch's own ``repr``, each line with its costs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import groupby

from graphflops.render.units import parameters, percent, quantity
from graphflops.tree import ModuleNode


def render_tree(root: ModuleNode, depth: int | None = None) -> str:
    """Render a module and its children.

    Args:
        root: The module.
        depth: How many levels below the root to show; all if ``None``.

    Returns:
        Plain text. Neighbours that are alike in every respect are folded into one entry, as
        in ``(0-31): 32 x LlamaDecoderLayer``; its figures are those of each one.
    """
    return "\n".join(_lines(root, root, depth, prefix=""))


def _lines(node: ModuleNode, root: ModuleNode, depth: int | None, prefix: str) -> Iterator[str]:
    figures = _figures(node, root)
    if not node.children or depth == 0:
        extra = f", {node.extra}" if node.extra else ""
        yield f"{prefix}{node.cls}({figures}{extra})"
        return
    yield f"{prefix}{node.cls}("
    yield f"  {figures}"
    deeper = None if depth is None else depth - 1
    for label, child in _folded(node.children):
        for line in _lines(child, root, deeper, prefix=label):
            yield f"  {line}"
    yield ")"


def _figures(node: ModuleNode, root: ModuleNode) -> str:
    if node.calls == 0 and not _ran(node):
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


def _ran(node: ModuleNode) -> bool:
    return any(below.calls != 0 for below in node.walk())


def _folded(children: tuple[ModuleNode, ...]) -> Iterator[tuple[str, ModuleNode]]:
    """Runs of equal neighbours with numbered names become one labelled child."""
    for _, run in groupby(children, key=_likeness):
        alike = list(run)
        numbered = all(child.name.isdigit() for child in alike)
        if len(alike) == 1 or not numbered:
            yield from ((f"({child.name}): ", child) for child in alike)
        else:
            first, last = alike[0].name, alike[-1].name
            yield f"({first}-{last}): {len(alike)} x ", alike[0]


def _likeness(node: ModuleNode) -> Hashable:
    children = tuple((child.name, _likeness(child)) for child in node.children)
    return (
        *(node.cls, node.extra, node.own, node.params_own, node.params_total, node.calls),
        *(node.unknown, children),
    )
