"""Operators' device time and the allocator's events in steady steps of a few rows."""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu.device import Device
from benchmarks.gpu.observe import Limits, Step
from benchmarks.gpu.plan import Row
from benchmarks.gpu.steps import main_step, model_of, nothing, work_of

WARM_UPS = 3
STEPS = 2
MOST_OPERATORS = 60


def fill_trace(
    record: dict[str, Any], row: Row, device: Device, limits: Limits, *, tiny: bool
) -> dict[str, Any]:
    """Put operators into a record and return the allocator's events."""
    model = model_of(row, device, tiny=tiny)
    work = work_of(row, model, device, tiny=tiny, tokens=limits.tokens)
    step = partial(main_step(row), work)
    for _ in range(WARM_UPS):
        step(nothing)
    device.synchronize()
    history = device.history(lambda: step(nothing))
    record["events"] = len(history["events"])
    record["steps"] = STEPS
    record["operators"], record["milliseconds"] = operators(device, step)
    return history


def operators(device: Device, step: Step) -> tuple[list[dict[str, Any]], float]:
    """Device time and calls by ATen operator, the most first, and the time of all of them."""
    with profile(activities={ProfilerActivity.CPU, device.activity}) as profiler:
        for _ in range(STEPS):
            step(nothing)
        device.synchronize()
    found = [
        {
            "name": str(event.key),
            "calls": int(event.count),
            "milliseconds": round(device.operator_milliseconds(event), 5),
        }
        for event in profiler.key_averages()
        if event.device_type == DeviceType.CPU and str(event.key).startswith("aten::")
    ]
    found.sort(key=_milliseconds, reverse=True)
    return found[:MOST_OPERATORS], round(sum(map(_milliseconds, found)), 5)


def _milliseconds(operator: dict[str, Any]) -> float:
    return float(operator["milliseconds"])


def read_histories(path: Path) -> dict[str, Any]:
    """Histories that a file holds by key of their row; none where there is no file."""
    if not path.exists():
        return {}
    histories: dict[str, Any] = json.loads(gzip.decompress(path.read_bytes()))
    return histories


def write_histories(path: Path, histories: dict[str, Any]) -> None:
    """Write all histories anew."""
    text = json.dumps(histories, separators=(",", ":"))
    path.write_bytes(gzip.compress(text.encode()))
