"""Devices as people and programs read them: a table, one in full, JSON, CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from graphflops.analysis.devices import DTYPES, Device
from graphflops.render.data import csv_text
from graphflops.render.layout import aligned, labelled

_TERA, _GIGA, _MEBI, _MICRO = 1e12, 1e9, 2**20, 1e-6
_MATRIX = ("float4", "float8", "bfloat16", "float16", "tf32")
"""Dtypes of the matrix units that the table has a column for."""
_HEADERS = ("device", *_MATRIX, "vector", "GB/s", "GB", "source")
_UNITS = (
    "dense TFLOP/s that makers publish: of the matrix units by dtype, of the ordinary units "
    "(vector) in float32. All of a device, with its source: graphflops devices NAME."
)


def to_text(
    devices: Iterable[Device], width: int | None = None, columns: Sequence[str] | None = None
) -> str:
    """Return a table of devices, one a line.

    Args:
        devices: The devices.
        width: Columns to fit the table into; no limit by default.
        columns: Headers of the columns to show; all by default.

    Raises:
        ModelSpecError: The table has no such column.
    """
    table = aligned(_HEADERS, [*map(_row, devices)], "simple", width, columns)
    return f"{labelled([('Rates', _UNITS)], width)}\n\n{table}"


def _row(device: Device) -> tuple[str, ...]:
    return (
        device.name,
        *(_number(device.matrix.get(dtype), _TERA) for dtype in _MATRIX),
        _number(device.vector.get("float32"), _TERA),
        _number(device.bandwidth, _GIGA),
        _number(device.memory, _GIGA),
        device.source,
    )


def to_full_text(device: Device, width: int | None = None) -> str:
    """Return all figures of a device, with their sources.

    Args:
        device: The device.
        width: Columns to fit lines into; no limit by default.
    """
    lines = [("Device", f"{device.name}: {device.title}")]
    if device.aliases:
        lines.append(("Also called", ", ".join(device.aliases)))
    lines += [
        ("Family", device.family),
        ("Matrix units", _rates(device.matrix)),
        ("Ordinary units", _rates(device.vector)),
        ("Bandwidth", f"{_number(device.bandwidth, _GIGA)} GB/s"),
        ("Memory", f"{_number(device.memory, _GIGA)} GB"),
        ("On chip", f"{_number(device.cache, _MEBI)} MiB" if device.cache else "not published"),
        ("Launch", f"{_number(device.launch, _MICRO)} us from kernel to kernel, our estimate"),
    ]
    if device.devices_per_package > 1:
        package = f"the maker's figures are of {device.devices_per_package} such devices"
        lines.append(("Package", package))
    lines.append(("Source", device.source))
    if device.date:
        lines.append(("Date", device.date))
    return labelled(lines, width)


def _rates(rates: Mapping[str, float]) -> str:
    listed = [f"{dtype} {_number(rates[dtype], _TERA)}" for dtype in DTYPES if dtype in rates]
    return f"{', '.join(listed)} TFLOP/s, dense" if listed else "none, or no rate is published"


def _number(value: float | None, unit: float) -> str:
    return "" if value is None else f"{value / unit:.10g}"


def to_data(device: Device) -> dict[str, Any]:
    """Return a device as plain data: FLOP/s, bytes/s, bytes, seconds."""
    data = asdict(device)
    for rates in (data["matrix"], data["vector"]):
        rates.update({dtype: _whole(rate) for dtype, rate in rates.items()})
    return data | {"bandwidth": _whole(device.bandwidth)}


def _whole(value: float) -> float:
    return int(value) if value == int(value) else value


def to_json(devices: Device | Iterable[Device]) -> str:
    """Return a device as a JSON object, several as a list."""
    data = to_data(devices) if isinstance(devices, Device) else [*map(to_data, devices)]
    return json.dumps(data, indent=2)


def to_csv(devices: Iterable[Device]) -> str:
    """Return devices as CSV, with a column for each dtype of either kind of unit."""
    rows = []
    for row in map(to_data, devices):
        matrix, vector = row.pop("matrix"), row.pop("vector")
        row["aliases"] = " ".join(row["aliases"])
        row |= {f"matrix_{dtype}": matrix.get(dtype) for dtype in DTYPES}
        rows.append(row | {f"vector_{dtype}": vector.get(dtype) for dtype in DTYPES})
    return csv_text(rows)
