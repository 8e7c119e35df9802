"""Page of a report: text that reads without scripts, and the data of charts and tables."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from graphflops.html import assets
from graphflops.render.data import environment
from graphflops.render.escape import visible
from graphflops.render.units import quantity

_SCRIPTS = (
    *("dom", "figures", "metrics", "tree", "chart", "icicle", "table", "unfold", "modules"),
    *("operators", "calls", "roofline", "memory", "compare", "tabs", "main"),
)
"""Scripts of the page, each before those that use it."""
_LIBRARIES = ("charts", "tables")
_DEPTH = 2
"""Levels of modules that are shown without scripts."""


def page(reports: Sequence[Mapping[str, Any]], diff: Mapping[str, Any] | None = None) -> str:
    """Return a page.

    Nothing in it is fetched, and its policy forbids that anything be. What others named is text,
    in its markup as in its scripts.

    Args:
        reports: One report or two, as :func:`graphflops.html.content.content` has them.
        diff: How the second differs from the first.
    """
    style, script = assets.style("page"), assets.script(*_SCRIPTS)
    names = dict.fromkeys(str(report["model"]) for report in reports)
    data = json.dumps({"reports": reports, "diff": diff}, separators=(",", ":"))
    return assets.text("page.html").format(
        policy=escape(assets.policy(style, script, _LIBRARIES)),
        title=text(" and ".join(names)),
        style=style,
        subtitle=text(_subtitle(reports)),
        warnings="".join(_warnings(reports)),
        summaries="".join(_summaries(reports)),
        modules="".join(_module_rows(reports[0]["modules"])),
        environment=text(", ".join(" ".join(item) for item in environment().items())),
        licences=escape(assets.licences()),
        data=assets.packed(data),
        libraries="\n".join(map(assets.library, _LIBRARIES)),
        script=script,
    )


def text(content: str) -> str:
    """Return text as markup that shows it as it is."""
    return escape(visible(content))


def summary_list(lines: Iterable[Sequence[str]]) -> str:
    """Return ``(label, text)`` lines as a list of descriptions.

    Args:
        lines: The lines; a label that begins with a space belongs to the one before it.
    """
    rows = "".join(
        f'<div class="{"part" if label.startswith(" ") else "whole"}">'
        f"<dt>{text(label.strip())}</dt><dd>{text(line)}</dd></div>"
        for label, line in lines
    )
    return f'<dl class="summary">{rows}</dl>'


def _subtitle(reports: Sequence[Mapping[str, Any]]) -> str:
    first = reports[0]
    compared = f", {len(reports)} reports compared" if len(reports) > 1 else ""
    return f"{first['kind']}, {first['convention']} convention{compared}"


def _summaries(reports: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for name, report in zip(("Before", "After"), reports, strict=False):
        if len(reports) > 1:
            yield f"<h3>{name}: {text(report['model'])}</h3>"
        yield summary_list(report["summary"])


def _warnings(reports: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what a reader must know before any figure."""
    for report in reports:
        if report["complete"]:
            continue
        names = ", ".join(f"{op} x {calls}" for op, calls in report["unsupported"].items())
        yield (
            f'<p class="warning" role="note"><strong>Lower bounds.</strong> All figures of '
            f"{text(report['model'])} lack operators without a price: {text(names)}.</p>"
        )


def _module_rows(modules: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    figures = zip(*(modules[key] for key in ("path", "class", "flops", "params")), strict=True)
    for path, module_class, flops, params in figures:
        if path.count(".") < _DEPTH:
            cells = (module_class, _figure(flops, "FLOPs"), _figure(params, ""))
            columns = "".join(f"<td>{text(cell)}</td>" for cell in cells)
            yield f'<tr><th scope="row">{text(path or "(model)")}</th>{columns}</tr>'


def _figure(value: int | str, unit: str) -> str:
    if isinstance(value, str) and not value.isdecimal():
        return value
    return quantity(int(value), unit)
