"""Lines and tables laid out in a number of columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap

from tabulate import MIN_PADDING, tabulate

from graphflops.errors import ModelSpecError
from graphflops.render.escape import escape_for, visible

_LABEL = 18  # columns of a label
_NARROWEST = 20  # columns of text beside a label, however narrow the terminal
_SHORTEST = 8  # characters that an abbreviated cell keeps
_RIGHT = {
    *("#", "calls", "params", "bytes", "MACs", "FLOPs", "% FLOPs", "read", "written", "difference"),
    *("trainable", "forward", "backward", "input gradient", "weight gradient", "recomputed"),
    *("backward / forward", "FLOPs before", "before", "after", "%", "number"),
    *("bytes difference", "params difference", "limit", "actual", "margin"),
    *("batch_size", "seq_len", "image_size", "new_tokens", "KV cache", "expected time"),
    *("float4", "float8", "bfloat16", "float16", "tf32", "vector", "GB/s", "GB", "memory"),
}
"""Headers of columns of numbers."""
_DROPPED_FIRST = (
    *("number", "params difference", "bytes difference"),
    *("read", "written", "params", "calls", "recomputed", "trainable", "backward / forward"),
    *("class", "MACs", "bytes", "source", "input gradient", "weight gradient", "% FLOPs", "shapes"),
    *("batch_size", "seq_len", "image_size", "new_tokens", "KV cache", "expected time"),
    *("float4", "tf32", "float16"),
)
"""Headers of the columns that a narrow table goes without, the least important first."""


def labelled(lines: Iterable[tuple[str, str]], width: int | None = None) -> str:
    """Return labels and texts, one below the other.

    Args:
        lines: Pairs of a label and a text.
        width: Columns to wrap texts at; by default they stay on one line.
    """
    return "\n".join(
        line for label, text in lines for line in _wrapped(visible(label), visible(text), width)
    )


def _wrapped(label: str, text: str, width: int | None) -> Iterable[str]:
    if width is None or _LABEL + len(text) <= width:
        return [f"{label:<{_LABEL - 1}} {text}"]
    first, *rest = wrap(text, max(width - _LABEL, _NARROWEST), break_on_hyphens=False)
    return [f"{label:<{_LABEL - 1}} {first}", *(" " * _LABEL + line for line in rest)]


def pairs(lines: Sequence[tuple[str, str]], tablefmt: str, width: int | None = None) -> str:
    """Return labels and texts in a table's format: in plain text without header or rules."""
    return labelled(lines, width) if tablefmt == "simple" else aligned(["", ""], lines, tablefmt)


def aligned(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    tablefmt: str,
    width: int | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """Return rows as a table, numbers flush right.

    Args:
        headers: Name of each column.
        rows: Cells of each row.
        tablefmt: Format of tabulate's.
        width: Columns of a terminal that the table is to fit into: the least important columns
            are left out, then long names are abbreviated. Plain text only.
        columns: Headers of the columns to show, in this order; all by default.

    Raises:
        ModelSpecError: The table has no such column.
    """
    escape = escape_for(tablefmt)
    table = [[escape(cell) for cell in row] for row in rows]
    shown = list(range(len(headers))) if columns is None else _selected(headers, columns)
    if width is not None and tablefmt == "simple":
        if columns is None:
            shown = _important(headers, table, shown, width)
        table = _abbreviated(headers, table, shown, width)
    return tabulate(
        [[row[i] for i in shown] for row in table],
        [headers[i] for i in shown],
        tablefmt=tablefmt,
        colalign=["right" if _is_numeric(headers[i]) else "left" for i in shown],
        disable_numparse=True,
    )


def _is_numeric(header: str) -> bool:
    return header in _RIGHT or header.startswith("FLOPs, ")


def _selected(headers: Sequence[str], columns: Sequence[str]) -> list[int]:
    for name in columns:
        if name not in headers:
            msg = f"the table has no column {name!r}. Its columns: {', '.join(headers)}."
            raise ModelSpecError(msg)
    return [list(headers).index(name) for name in columns]


def _widths(headers: Sequence[str], table: list[list[str]], shown: list[int]) -> dict[int, int]:
    return {
        i: max(len(headers[i]) + MIN_PADDING, *(len(row[i]) for row in table), 0) for i in shown
    }


def _total(widths: dict[int, int]) -> int:
    return sum(widths.values()) + 2 * (len(widths) - 1)


def _important(
    headers: Sequence[str], table: list[list[str]], shown: list[int], width: int
) -> list[int]:
    for name in _DROPPED_FIRST:
        if _total(_widths(headers, table, shown)) <= width:
            break
        shown = [i for i in shown if headers[i] != name]
    return shown


def _abbreviated(
    headers: Sequence[str], table: list[list[str]], shown: list[int], width: int
) -> list[list[str]]:
    """Shorten the cells of the widest columns of text until a table fits."""
    widths = _widths(headers, table, shown)
    texts = [i for i in shown if not _is_numeric(headers[i])]
    while texts and (excess := _total(widths) - width) > 0:
        widest = max(texts, key=lambda i: widths[i])
        room = max(widths[widest] - excess, len(headers[widest]) + MIN_PADDING, _SHORTEST)
        table = [
            [shortened(cell, room) if i == widest else cell for i, cell in enumerate(row)]
            for row in table
        ]
        widths[widest] = room
        texts.remove(widest)
    return table


def shortened(text: str, width: int) -> str:
    """Abbreviate a text in its middle.

    Example:
        >>> shortened("model.layers.0.self_attn.q_proj", 16)
        'model.la….q_proj'
        >>> shortened("lm_head", 16)
        'lm_head'
    """
    if len(text) <= width:
        return text
    left = width // 2
    return f"{text[:left]}…{text[len(text) - (width - left - 1) :]}"
