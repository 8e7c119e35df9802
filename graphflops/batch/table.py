"""Results of a batch as a table: a row for each item, a column for each figure."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflops.batch.results import read_records
from graphflops.errors import BatchError
from graphflops.render.data import csv_text

if TYPE_CHECKING:
    import pandas as pd

Row = dict[str, Any]
_TOTALS = (
    *("params", "params_trainable", "param_bytes", "macs", "flops", "transcendentals"),
    *("flops_masked", "bytes_read", "bytes_written"),
)
_PATHS: Mapping[str, tuple[str, ...]] = {
    **{name: ("totals", name) for name in _TOTALS},
    "calls": ("calls",),
    **{
        f"{phase}_{name}": ("training", phase, name)
        for phase in ("forward", "backward", "recompute")
        for name in ("macs", "flops")
    },
    "prompt_tokens": ("generation", "prompt_tokens"),
    **{
        f"{phase}_{name}": ("generation", phase, name)
        for phase in ("prefill", "decode")
        for name in ("macs", "flops")
    },
    "kv_cache_bytes": ("generation", "kv_cache_bytes"),
    "kv_cache_bytes_per_token": ("generation", "kv_cache_bytes_per_token"),
    "memory_peak": ("memory", "peak"),
    "memory_last_use_peak": ("memory", "last_use_peak"),
    "time_bound": ("time", "bound"),
    "time_expected": ("time", "expected"),
}
"""Columns of numbers, each with where its value stands in a record."""
_SECONDS = {"time_bound", "time_expected"}
_AXES_OF_NUMBERS = {"batch_size", "seq_len", "image_size", "new_tokens"}
_LARGEST_INT64 = 2**63 - 1


def read_batch(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read the results of a batch as a data frame, one row for each item.

    Columns are the axes (``model``, ``mode``, ``batch_size``, ...), ``status``,
    ``failure_class`` and ``message``, and the figures (``params``, ``macs``, ``flops``,
    ``bytes_read``, ``memory_peak`` in bytes, ``time_expected`` in seconds, ...). What an item does
    not have is missing. Figures that are expressions are missing too, and stand in
    ``expressions``. Integers are exact: a column with one beyond 64 bits has Python's.

    Args:
        path: File that ``graphflops batch`` wrote; a line that is torn is left out.

    Raises:
        BatchError: The file cannot be read or is of another schema, or pandas is not installed.

    Example:
        >>> frame = read_batch("examples/batch.jsonl")
        >>> frame[frame.status == "failed"].failure_class.unique().tolist()
        ['name']
    """
    try:
        import pandas as pd
    except ModuleNotFoundError as error:
        msg = "read_batch needs pandas. Run: pip install 'graphflops[pandas]'"
        raise BatchError(msg) from error
    rows = table_rows(read_records(Path(path)))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    return pd.DataFrame(
        {name: pd.array(values, dtype=_dtype(name, values)) for name, values in columns.items()}
    )


def parquet(path: Path) -> bytes:
    """Return the results of a batch as a Parquet file.

    Args:
        path: File that ``graphflops batch`` wrote.

    Raises:
        BatchError: The file cannot be read, or pandas or pyarrow is not installed.
    """
    frame = read_batch(path)
    for name in frame.select_dtypes("object").columns:
        # Integers of 128 bits.
        frame[name] = [None if value is None else Decimal(value) for value in frame[name]]
    try:
        content: bytes = frame.to_parquet(None, engine="pyarrow")
    except ImportError as error:
        msg = "--format parquet needs pyarrow. Run: pip install 'graphflops[pandas]'"
        raise BatchError(msg) from error
    return content


def csv(records: Sequence[Mapping[str, Any]]) -> str:
    """Return records as CSV, numbers unformatted."""
    return csv_text(table_rows(records))


def table_rows(records: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return records as flat rows with equal keys; expressions stand in a column of their own."""
    return [_row(record) for record in records]


def _row(record: Mapping[str, Any]) -> Row:
    figures = {name: _at(record, path) for name, path in _PATHS.items()}
    expressions = {name: value for name, value in figures.items() if isinstance(value, str)}
    failure = record["failure"] or {}
    environment = record["environment"]
    return {
        **record["item"],
        "set": json.dumps(record["item"]["set"]) if record["item"]["set"] else None,
        "status": record["status"],
        "failure_class": failure.get("class"),
        "message": failure.get("message"),
        "model_class": record.get("model_class"),
        **(figures | dict.fromkeys(expressions)),
        "expressions": "; ".join(_equations(expressions)) or None,
        "assumptions": " ".join(record.get("assumptions", ())) or None,
        **{name: environment.get(name) for name in ("graphflops", "torch", "transformers")},
    }


def _equations(expressions: Mapping[str, str]) -> Iterator[str]:
    return (f"{name} = {value}" for name, value in expressions.items())


def _at(record: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = record
    for key in path:
        value = None if value is None else value.get(key)
    return value


def _dtype(name: str, values: Sequence[Any]) -> str:
    if name in _SECONDS:
        return "Float64"
    if name not in _PATHS and name not in _AXES_OF_NUMBERS:
        return "string"
    fits = all(value is None or value <= _LARGEST_INT64 for value in values)
    return "Int64" if fits else "object"
