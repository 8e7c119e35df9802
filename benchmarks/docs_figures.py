"""Figures and tables that pages take from ``benchmarks/results``, by the name of their mark.

A page has ``<!-- NAME -->figure<!-- /NAME -->``; ``python -m benchmarks.docs_examples --update``
writes what the function of that name returns, and a test fails where a page has something else.
Figures of the speed of counts come from ``capture.json`` and ``scaling.json`` alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tabulate import tabulate

import graphflops as gf
from benchmarks import (
    batch,
    capture,
    command,
    count_time,
    diff,
    fit_efficiency,
    generation_time,
    html,
    memory_budget,
    page,
    published_memory,
    scaling,
    timm_memory,
    training,
    viewers,
    vs_peers,
)
from benchmarks.results import Results, rows_of
from graphflops.analysis.devices import known_devices
from graphflops.models import Options, resolve

_CONVENTIONS = ("exact", "torch", "calflops", "fvcore")


@functools.cache
def _load(path: Path) -> dict[str, Any]:
    """Return what a benchmark has measured."""
    loaded: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return loaded


@functools.cache
def _peers() -> Results:
    return Results.load(vs_peers.RESULTS)


def _environment(where: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in where["packages"].items())
    return (
        f"{packages}, Python {where['python']}, {where['platform']}, {where['cpus']} CPUs, "
        f"{where['memory_gib']} GiB of memory, {where['date']}"
    )


def _times(title: str) -> dict[str, float]:
    """Return the warm times of a count by counter."""
    rows = _load(capture.RESULTS)["rows"]
    found: dict[str, float] = next(row["warm"] for row in rows if row["case"] == title)
    return found


def _seconds(title: str) -> str:
    return f"{_times(title)[count_time.COUNTERS[0]]:.2f} s"


def _share(title: str) -> str:
    return f"{count_time.ratio(_times(title)):.0%}"


def _slower() -> str:
    others = [row.ratio for row in _peers().rows if row.ratio and row.peer != "graphflops"]
    slower = [ratio for ratio in others if ratio > 1]
    return f"{len(slower)} of {len(others)}"


def _range(figure: str, *, is_training: bool = False) -> str:
    """Smallest and largest ratio to the quicker ``FlopCounterMode``."""
    rows = _load(capture.RESULTS)["rows"]
    ratios = [
        found
        for row in rows
        if row["case"].endswith(capture.TRAINING) == is_training
        and (found := count_time.ratio(row[figure])) is not None
    ]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


def _peak() -> str:
    rows = _load(capture.RESULTS)["rows"]
    return f"{max(row['peak_mib'][count_time.COUNTERS[0]] for row in rows):.0f} MiB"


def conventions_table() -> str:
    """Count four models under four conventions."""
    rows = []
    for name in ("hf:bert", "hf:vit", "torchvision:resnet50", "hf:llama"):
        workload = resolve(name, Options())
        totals = [
            gf.count(
                workload.model,
                workload.args,
                workload.kwargs,
                convention=convention,
                on_unknown="ignore",
            ).total
            for convention in _CONVENTIONS
        ]
        rows.append((f"`{name}`", "FLOPs", *(f"{total.flops:,}" for total in totals)))
        rows.append(("", "MACs", *(f"{total.macs:,}" for total in totals)))
    headers = ("model", "", *(f"`{name}`" for name in _CONVENTIONS))
    align = ("left", "left", *("right",) * len(_CONVENTIONS))
    return tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)


def devices_table() -> str:
    """Return all devices, as the command lists them, with the rates of every dtype."""
    rows = []
    for device in known_devices().values():
        names = ", ".join(f"`{name}`" for name in (device.name, *device.aliases))
        rates = [
            ", ".join(f"{dtype} {rate / 1e12:.10g}" for dtype, rate in by_dtype.items())
            for by_dtype in (device.matrix, device.vector)
        ]
        sizes = (device.bandwidth / 1e9, device.memory / 1e9, device.cache / 2**20)
        cells = (f"{size:.10g}" if size else "" for size in sizes)
        rows.append((names, *rates, *cells, f"{device.source} ({device.date})"))
    headers = ("device", "matrix units", "ordinary units", "GB/s", "GB", "MiB", "source")
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


FIGURES: dict[str, Callable[[], str]] = {
    "batch": lambda: batch.table(_load(batch.RESULTS)),
    "batch-rate": lambda: f"{batch.rate(_load(batch.RESULTS)):.0f}",
    "batch-load": lambda: batch.loads(_load(batch.RESULTS)),
    "batch-environment": lambda: _environment(_load(batch.RESULTS)["environment"]),
    "capture": lambda: capture.table(_load(capture.RESULTS)["rows"]),
    "capture-environment": lambda: _environment(_load(capture.RESULTS)["environment"]),
    "capture-in-full": lambda: capture.slower_table(_load(capture.RESULTS)["rows"]),
    "command": lambda: command.table(_load(command.RESULTS)),
    "command-environment": lambda: _environment(_load(command.RESULTS)["environment"]),
    "generation-time": lambda: generation_time.table(rows_of(generation_time.RESULTS)[1]),
    "generation-time-environment": lambda: _environment(rows_of(generation_time.RESULTS)[0]),
    "slow-generations": lambda: generation_time.slowest(rows_of(generation_time.RESULTS)[1]),
    "scaling": lambda: scaling.table(_load(scaling.RESULTS)["rows"]),
    "scaling-environment": lambda: _environment(_load(scaling.RESULTS)["environment"]),
    "diff": lambda: diff.table(_load(diff.RESULTS)),
    "diff-environment": lambda: _environment(_load(diff.RESULTS)["environment"]),
    "viewers": lambda: viewers.table(_load(viewers.RESULTS)),
    "viewers-environment": lambda: _environment(_load(viewers.RESULTS)["environment"]),
    "diff-seconds": lambda: f"{max(row['seconds'] for row in _load(diff.RESULTS)['rows']):.2f} s",
    "training": lambda: training.table(_load(training.RESULTS)["rows"]),
    "llama-seconds": lambda: _seconds(capture.LLAMA_8B),
    "html": lambda: html.table(_load(html.RESULTS)["rows"]),
    "memory-budget": lambda: memory_budget.table(_load(memory_budget.RESULTS)["rows"]),
    "llama-training-seconds": lambda: _seconds(capture.LLAMA_8B + capture.TRAINING),
    "llama-ratio": lambda: _share(capture.LLAMA_8B),
    "llama-training-ratio": lambda: _share(capture.LLAMA_8B + capture.TRAINING),
    "ratios": lambda: _range("warm"),
    "first-ratios": lambda: _range("first"),
    "training-ratios": lambda: _range("warm", is_training=True),
    "first-training-ratios": lambda: _range("first", is_training=True),
    "growth": lambda: f"{scaling.growth(_load(scaling.RESULTS)['rows'])[0]:.1f}",
    "growth-flop-counter": lambda: f"{scaling.growth(_load(scaling.RESULTS)['rows'])[1]:.1f}",
    "peers": lambda: page.coverage_table(_peers(), ("bert", "vit", "resnet", "llama-8b")),
    "peers-slower": _slower,
    "peak-memory": _peak,
    "conventions": conventions_table,
    "devices": devices_table,
    "timm-memory": timm_memory.table,
    "published-memory": lambda: published_memory.table(_load(published_memory.RESULTS)["rows"]),
    "time-errors": lambda: fit_efficiency.table(_load(fit_efficiency.RESULTS)["summary"]),
    "time-environment": lambda: _environment(_load(fit_efficiency.RESULTS)["environment"]),
}
