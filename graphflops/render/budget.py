"""A check against a budget as text and as data."""

from __future__ import annotations

from typing import Any

from graphflops.render.escape import escape_for
from graphflops.render.layout import aligned
from graphflops.render.protocols import CheckedLimits
from graphflops.render.units import exact

_HEADERS = ("", "module", "figure", "limit", "actual", "margin")


def table(check: CheckedLimits, tablefmt: str, width: int | None = None) -> str:
    """Return a table of limits, figures and margins."""
    exceeded = sum(not limit.ok for limit in check.limits)
    outcome = f"{exceeded} exceeded" if exceeded else "all kept"
    number = len(check.limits)
    head = f"{check.model}: {number} limit{'s' * (number > 1)}, {outcome}"
    rows = [
        (
            "ok" if limit.ok else "EXCEEDED",
            limit.path or "(model)",
            limit.figure,
            exact(limit.limit),
            exact(limit.actual),
            f"{limit.margin:+,}" if limit.margin else "0",
        )
        for limit in check.limits
    ]
    return f"{escape_for(tablefmt)(head)}\n\n{aligned(_HEADERS, rows, tablefmt, width)}"


def to_dict(check: CheckedLimits) -> dict[str, Any]:
    """Return a check as plain data."""
    return {
        "model": check.model,
        "ok": all(limit.ok for limit in check.limits),
        "limits": [
            {
                "module": limit.path,
                "figure": limit.figure,
                "limit": limit.limit,
                "actual": limit.actual,
                "margin": limit.margin,
                "ok": limit.ok,
            }
            for limit in check.limits
        ],
    }
