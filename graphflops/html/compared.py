"""Difference of two reports, as a page shows it."""

from __future__ import annotations

from typing import Any

from graphflops.analysis.changes import CallChange
from graphflops.html.content import in_javascript
from graphflops.render import diff as rendering
from graphflops.render.data import cost_dict
from graphflops.render.protocols import DiffedCosts
from graphflops.render.tables import shapes_line


def compared(diff: DiffedCosts) -> dict[str, Any]:
    """Return how two reports differ.

    Args:
        diff: Their difference.
    """
    shown = {**rendering.to_dict(diff), "calls": list(map(_call, diff.calls))}
    exact: dict[str, Any] = in_javascript(shown)
    return exact


def _call(row: CallChange) -> dict[str, Any]:
    sides = [record.call for record in (row.before, row.after) if record is not None]
    return {
        "change": row.kind,
        "pass": row.pass_name,
        "module": row.call.module_path,
        "operator": row.call.op,
        "shapes": " => ".join(dict.fromkeys(map(shapes_line, sides))),
        "before": cost_dict(row.before_cost),
        "after": cost_dict(row.after_cost),
    }
