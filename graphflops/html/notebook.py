"""A report as a notebook shows it: totals, an icicle where scripts run, and the tree with bars."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape

from graphflops.core.cost import OpCost
from graphflops.core.module_tree import ModuleNode
from graphflops.html import assets
from graphflops.html.content import in_javascript, module_columns
from graphflops.render.escape import visible, visible_lines
from graphflops.render.units import parameters, percent, quantity

_OPEN = 2
"""Levels of the tree that are open when a report is shown."""
_STYLE = (
    "<style>.graphflops{font:12px/1.5 monospace}.graphflops summary{cursor:pointer}"
    ".graphflops table td{text-align:left!important;padding:0 1em 0 0}"
    ".graphflops ul{margin:0;padding-left:1.5em;list-style:none!important}"
    ".graphflops .free{color:#888}"
    ".graphflops .bar{display:inline-block;width:8em;background:#8883;margin:0 .5em}"
    ".graphflops .bar i{display:block;height:.7em;background:#4a7bd0}"
    ".graphflops iframe{width:100%;border:0}</style>"
)
_SCRIPTS = ("dom", "figures", "metrics", "tree", "chart", "icicle", "notebook")
_ROW, _AROUND = 30, 230
"""Pixels of a row of the icicle, and of what stands above and below it."""


def html(summary: Sequence[tuple[str, str]], root: ModuleNode) -> str:
    """Return a report as HTML.

    The icicle is a document of its own, with libraries of 0.3 MB, whose names and styles the
    notebook does not see. A viewer that runs no scripts, or that lets no such frame pass, shows the
    rest.

    Args:
        summary: Totals as ``(label, text)`` lines.
        root: The module tree. Children that cost nothing are folded into one line.
    """
    rows = "".join(
        f"<tr><td>{_text(label.strip())}</td><td>{_text(text)}</td></tr>" for label, text in summary
    )
    tree = "".join(_lines(root, root.total, 0))
    return f'{_STYLE}<div class="graphflops"><table>{rows}</table>{_frame(root)}{tree}</div>'


def _frame(root: ModuleNode) -> str:
    """Return the icicle in a frame; nothing where there are no numbers to draw."""
    if not isinstance(root.total.flops, int) or not (root.total.flops or root.params_total):
        return ""
    style, script = assets.style("page", "notebook"), assets.script(*_SCRIPTS)
    columns = in_javascript(module_columns(root))
    document = assets.text("notebook.html").format(
        policy=escape(assets.policy(style, script, ["charts"])),
        style=style,
        licences=assets.licences().replace("--", "-"),
        data=assets.packed(json.dumps(columns, separators=(",", ":"))),
        libraries=assets.library("charts"),
        script=script,
    )
    height = _ROW * _rows(root) + _AROUND
    return (
        f'<iframe title="Icicle of modules" sandbox="allow-scripts" height="{height}" '
        f'srcdoc="{escape(document)}"></iframe>'
    )


def _rows(node: ModuleNode) -> int:
    return 1 + max(map(_rows, node.children), default=0)


def preformatted(text: str) -> str:
    """Return plain text as HTML that keeps its columns."""
    return f"<pre>{escape(visible_lines(text))}</pre>"


def _lines(node: ModuleNode, whole: OpCost, level: int) -> Iterator[str]:
    line = _line(node, whole)
    working = [child for child in node.children if child.total != OpCost()]
    free = [child for child in node.children if child.total == OpCost()]
    if not node.children:
        yield f"<div>{line}</div>"
        return
    # Lists are indented where a viewer leaves out the styles, too.
    yield f"<details{' open' if level < _OPEN else ''}><summary>{line}</summary><ul>"
    for child in working:
        yield f"<li>{''.join(_lines(child, whole, level + 1))}</li>"
    if free:
        names = ", ".join(child.name for child in free)
        yield f'<li class="free">{len(free)} without cost: {_text(names)}</li>'
    yield "</ul></details>"


def _line(node: ModuleNode, whole: OpCost) -> str:
    share = percent(node.total.flops, whole.flops)
    bar = f'<span class="bar"><i style="width:{share}"></i></span>' if share else ""
    name = node.name or "(model)"
    return (
        f"{_text(name)}: <b>{_text(node.module_class)}</b> {bar}"
        f"{_text(quantity(node.total.flops, 'FLOPs'))} {share}, "
        f"{_text(quantity(node.total.macs, 'MACs'))}, {parameters(node.params_total)} Params"
    )


def _text(text: str) -> str:
    return escape(visible(text))
