"""Figures and tables that pages take from ``benchmarks/results``, by the name of their mark.

A page has ``<!-- NAME -->figure<!-- /NAME -->``; ``python -m benchmarks.docs_examples --update``
writes what the function of that name returns, and a test fails where a page has something else.
Figures of the speed of counts come from ``capture.json``, ``cold.json`` and ``scaling.json`` alone.
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
    cold,
    command,
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

LLAMA_8B = "Llama-3-8B shape, 2,048 tokens"
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


def _llama(kind: str) -> dict[str, Any]:
    row: dict[str, Any] = next(
        row for row in _load(capture.RESULTS)["rows"] if row["model"] == LLAMA_8B
    )[kind]
    return row


def _growth(counter: str) -> str:
    return f"{_load(scaling.RESULTS)['126 layers over 4'][counter]:.1f}"


def _slower() -> str:
    others = [row.ratio for row in _peers().rows if row.ratio and row.peer != "graphflops"]
    slower = [ratio for ratio in others if ratio > 1]
    return f"{len(slower)} of {len(others)}"


def _range(part: str) -> str:
    ratios = [row["ratios"][part] for row in _load(capture.RESULTS)["rows"]]
    return f"{min(ratios):.2f} to {max(ratios):.2f}"


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
    "cold": lambda: cold.table(_load(cold.RESULTS)["rows"]),
    "cold-environment": lambda: _environment(_load(cold.RESULTS)["environment"]),
    "command": lambda: command.table(_load(command.RESULTS)),
    "command-environment": lambda: _environment(_load(command.RESULTS)["environment"]),
    "generation-time": lambda: generation_time.table(rows_of(generation_time.RESULTS)[1]),
    "generation-time-environment": lambda: _environment(rows_of(generation_time.RESULTS)[0]),
    "slow-generations": lambda: generation_time.slowest(rows_of(generation_time.RESULTS)[1]),
    "scaling": lambda: scaling.table(_load(scaling.RESULTS)),
    "scaling-environment": lambda: _environment(_load(scaling.RESULTS)["environment"]),
    "diff": lambda: diff.table(_load(diff.RESULTS)),
    "diff-environment": lambda: _environment(_load(diff.RESULTS)["environment"]),
    "viewers": lambda: viewers.table(_load(viewers.RESULTS)),
    "viewers-environment": lambda: _environment(_load(viewers.RESULTS)["environment"]),
    "diff-seconds": lambda: f"{max(row['seconds'] for row in _load(diff.RESULTS)['rows']):.2f} s",
    "training": lambda: training.table(_load(training.RESULTS)["rows"]),
    "llama-seconds": lambda: f"{_llama('seconds')['graphflops']:.2f} s",
    "html": lambda: html.table(_load(html.RESULTS)["rows"]),
    "memory-budget": lambda: memory_budget.table(_load(memory_budget.RESULTS)["rows"]),
    "llama-training-seconds": lambda: f"{_llama('seconds')['graphflops, training']:.2f} s",
    "llama-ratio": lambda: f"{_llama('ratios')['']:.0%}",
    "llama-training-ratio": lambda: f"{_llama('ratios')[', training']:.0%}",
    "ratios": lambda: _range(""),
    "training-ratios": lambda: _range(", training"),
    "growth": lambda: _growth("graphflops"),
    "growth-flop-counter": lambda: _growth("FlopCounterMode"),
    "peers": lambda: page.coverage_table(_peers(), ("bert", "vit", "resnet", "llama-8b")),
    "peers-slower": _slower,
    "peak-memory": lambda: (
        f"{max(row['alone']['peak_mib'] for row in _load(capture.RESULTS)['rows']) / 1024:.2f} GiB"
    ),
    "conventions": conventions_table,
    "devices": devices_table,
    "timm-memory": timm_memory.table,
    "published-memory": lambda: published_memory.table(_load(published_memory.RESULTS)["rows"]),
    "time-errors": lambda: fit_efficiency.table(_load(fit_efficiency.RESULTS)["summary"]),
    "time-environment": lambda: _environment(_load(fit_efficiency.RESULTS)["environment"]),
}
