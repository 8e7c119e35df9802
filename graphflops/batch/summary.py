"""Summary of a batch: what was counted, and what failed and why."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from graphflops.batch.table import Row, table_rows
from graphflops.core.cost import Dim
from graphflops.render.layout import aligned, labelled
from graphflops.render.units import parameters, quantity

_AXES = ("mode", "batch_size", "seq_len", "image_size", "dtype", "set")
_AXES_OF_MODES = ("convention", "device", "new_tokens")
"""Axes that items of some modes do not have."""
_LONGEST = 200
"""Characters of a message; the file has all of it."""


def summary(
    records: Sequence[Mapping[str, Any]], tablefmt: str = "simple", width: int | None = None
) -> str:
    """Return the table of items that were counted, the failures by class, and each failure.

    Args:
        records: Records of the batch.
        tablefmt: Format of tabulate's.
        width: Columns of a terminal that tables are to fit into.
    """
    rows = table_rows(records)
    axes = [*_varying(rows, _AXES, set()), *_varying(rows, _AXES_OF_MODES, {None})]
    counted = [row for row in rows if row["status"] != "failed"]
    failed = [row for row in rows if row["failure_class"] is not None]
    parts = [_counts(rows, failed)]
    if counted:
        parts.append(_counted_table(counted, axes, tablefmt, width))
    if failed:
        parts.append(_failures(failed, tablefmt, width))
    return "\n\n".join(parts)


def _counts(rows: Sequence[Row], failed: Sequence[Row]) -> str:
    statuses = Counter(row["status"] for row in rows)
    classes = Counter(row["failure_class"] for row in failed)
    by_status = ", ".join(f"{count:,} {status}" for status, count in statuses.most_common())
    by_class = ", ".join(f"{name} {count:,}" for name, count in classes.most_common())
    versions = sorted({(row["graphflops"], row["torch"], row["transformers"]) for row in rows})
    line = f"{len(rows):,} items: {by_status}." + (f" Failures: {by_class}." if failed else "")
    if len(versions) > 1:
        line += f" They were counted with {len(versions)} sets of versions."
    return line


def _counted_table(
    rows: Sequence[Row], axes: Sequence[str], tablefmt: str, width: int | None
) -> str:
    figures = {
        header: show
        for header, (key, show) in _FIGURES.items()
        if any(_value(row, key) is not None for row in rows)
    }
    complete = all(row["status"] == "ok" for row in rows)
    table = [
        [
            row["model"],
            *(_cell(row[axis]) for axis in axes),
            *(_shown(_value(row, _FIGURES[header][0]), show) for header, show in figures.items()),
            *([] if complete else [row["status"]]),
        ]
        for row in rows
    ]
    headers = ["model", *axes, *figures, *([] if complete else ["status"])]
    return aligned(headers, table, tablefmt, width)


def _failures(rows: Sequence[Row], tablefmt: str, width: int | None) -> str:
    """Return each failure once, however many items of a model it is of."""
    counts = Counter((row["failure_class"], row["model"], row["message"]) for row in rows)
    lines = [
        (failure, f"{model} ({items} items)" if items > 1 else model, _abbreviated(message))
        for (failure, model, message), items in sorted(counts.items())
    ]
    if tablefmt == "simple":
        return labelled(((failure, f"{model}: {text}") for failure, model, text in lines), width)
    return aligned(["failure", "model", "message"], lines, tablefmt)


def _varying(rows: Sequence[Row], axes: Sequence[str], ignored: set[None]) -> list[str]:
    return [axis for axis in axes if len({row[axis] for row in rows} - ignored) > 1]


def _abbreviated(message: str) -> str:
    return textwrap.shorten(message, _LONGEST, placeholder=" ...")


def _value(row: Row, key: str) -> Any:
    if key != "bytes":
        return row[key]
    parts = (row["bytes_read"], row["bytes_written"])
    return None if None in parts else sum(parts)


def _cell(value: Any) -> str:
    return "" if value is None else str(value)


def _shown(value: Any, show: Callable[[Any], str]) -> str:
    return "" if value is None else show(value)


def _seconds(value: float) -> str:
    return f"{1000 * value:.4g} ms"


def _bytes(value: Dim) -> str:
    return quantity(value, "B")


_FIGURES: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "params": ("params", parameters),
    "MACs": ("macs", quantity),
    "FLOPs": ("flops", quantity),
    "bytes": ("bytes", _bytes),
    "KV cache": ("kv_cache_bytes", _bytes),
    "memory": ("memory_peak", _bytes),
    "expected time": ("time_expected", _seconds),
}
"""Figures by header: the column they are of, and what is shown of it."""
