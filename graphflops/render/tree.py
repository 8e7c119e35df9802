"""Module tree in the style of PyTorch's own ``repr``, each line with its costs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import TypeAlias

from graphflops.core.module_tree import ModuleNode
from graphflops.render.escape import visible
from graphflops.render.layout import shortened
from graphflops.render.units import parameters, percent, quantity

Figures: TypeAlias = Callable[[ModuleNode], Sequence[str]]
"""Function from a module to the text of its line: in full, then in ever fewer words."""
_INDENT = 2


def render_tree(
    root: ModuleNode,
    depth: int | None = None,
    figures: Figures | None = None,
    width: int | None = None,
) -> str:
    """Render a module and its children.

    Args:
        root: The module.
        depth: Levels below the root to show; all if ``None``.
        figures: Text of each line; by default parameters, MACs and FLOPs with their shares.
        width: Columns to fit lines into: what a module adds to its ``repr`` goes first, then
            figures. By default lines are as long as they are.

    Returns:
        Plain text. Equal neighbours are folded into one entry, as in
        ``(0-31): 32 x LlamaDecoderLayer``; its figures are those of each one.
    """
    tree = _Tree(figures or (lambda node: _figures(node, root)), width)
    return "\n".join(map(visible, tree.lines(root, depth, prefix="", indent=0)))


class _Tree:
    """Lines of a tree.

    Args:
        figures: Text of a module's line.
        width: Columns to fit lines into, if they are to fit.
    """

    def __init__(self, figures: Figures, width: int | None) -> None:
        self._figures, self._width = figures, width

    def lines(self, node: ModuleNode, depth: int | None, prefix: str, indent: int) -> Iterator[str]:
        """Yield the lines of a module and its children."""
        full, *shorter = self._figures(node)
        margin = " " * indent
        if not node.children or depth == 0:
            with_extra = [f"{full}, {node.extra}"] if node.extra else []
            texts = [*with_extra, full, *shorter]
            yield self._fitting(f"{margin}{prefix}{node.module_class}({text})" for text in texts)
            return
        yield f"{margin}{prefix}{node.module_class}("
        yield self._fitting(f"{margin}{' ' * _INDENT}{text}" for text in (full, *shorter))
        deeper = None if depth is None else depth - 1
        for label, child in self._folded(node.children):
            yield from self.lines(child, deeper, label, indent + _INDENT)
        yield f"{margin})"

    def _fitting(self, lines: Iterable[str]) -> str:
        """Return the first of some lines that fits, or the last, abbreviated."""
        line = ""
        for line in lines:
            if self._width is None or len(line) <= self._width:
                return line
        return line if self._width is None else shortened(line, self._width)

    def _folded(self, children: tuple[ModuleNode, ...]) -> Iterator[tuple[str, ModuleNode]]:
        """Yield children with their labels, runs of equal ones with numbered names once."""
        for _, run in groupby(children, key=self._appearance):
            equal = list(run)
            numbered = all(child.name.isdigit() for child in equal)
            if len(equal) == 1 or not numbered:
                # What is no module has parentheses in its name already.
                yield from ((f"({child.name.strip('()')}): ", child) for child in equal)
            else:
                first, last = equal[0].name, equal[-1].name
                yield f"({first}-{last}): {len(equal)} x ", equal[0]

    def _appearance(self, node: ModuleNode) -> Hashable:
        """Return all that is shown of a module and its children, but its name."""
        children = tuple((child.name, self._appearance(child)) for child in node.children)
        return (
            *(node.module_class, node.extra, node.own, node.params_own, node.params_total),
            *(node.calls, node.unknown, self._figures(node)[0], children),
        )


def not_called(node: ModuleNode) -> bool:
    """Return True if neither a module nor anything below it ran."""
    return node.calls == 0 and all(below.calls == 0 for below in node.walk())


def _figures(node: ModuleNode, root: ModuleNode) -> Sequence[str]:
    params = parameters(node.params_total)
    if not_called(node):
        return (f"{params} Params, not called",)
    shares = (
        (params, percent(node.params_total, root.params_total), "Params"),
        (quantity(node.total.macs, "MACs"), percent(node.total.macs, root.total.macs), "MACs"),
        (quantity(node.total.flops, "FLOPs"), percent(node.total.flops, root.total.flops), "FLOPs"),
    )
    unsupported = [f"{node.unknown} calls unsupported"] if node.unknown else []
    full = [f"{value} = {share} {unit}" if share else value for value, share, unit in shares]
    _, macs, flops = (value for value, _, _ in shares)
    return (
        ", ".join([*full, *unsupported]),
        ", ".join([f"{params} Params", macs, full[2], *unsupported]),
        ", ".join([f"{params} Params", flops, *unsupported]),
        ", ".join([flops, *unsupported]),
    )
