"""Figures and tables that pages take from ``benchmarks/results``, by the name of their mark.

A page has ``<!-- NAME -->figure<!-- /NAME -->``; ``python -m benchmarks.docs_examples --update``
writes what the function of that name returns, and a test fails where a page has something else.
Figures of the speed of counts come from ``capture.json``, ``cold.json`` and ``scaling.json`` alone.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
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
from benchmarks.results import Results
from graphflops.analysis.devices import known_devices
from graphflops.models import Options, resolve

LLAMA_8B = "Llama-3-8B shape, 2,048 tokens"
_CONVENTIONS = ("exact", "torch", "calflops", "fvcore")


@functools.cache
def _capture() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(capture.RESULTS.read_text("utf-8"))
    return loaded


@functools.cache
def _scaling() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(scaling.RESULTS.read_text("utf-8"))
    return loaded


@functools.cache
def _batch() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(batch.RESULTS.read_text("utf-8"))
    return loaded


@functools.cache
def _command() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(command.RESULTS.read_text("utf-8"))
    return loaded


@functools.cache
def _cold() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(cold.RESULTS.read_text("utf-8"))
    return loaded


@functools.cache
def _diff() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(diff.RESULTS.read_text("utf-8"))
    return loaded


@functools.cache
def _viewers() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(viewers.RESULTS.read_text("utf-8"))
    return loaded


@functools.cache
def _latency() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(fit_efficiency.RESULTS.read_text("utf-8"))
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
    row: dict[str, Any] = next(row for row in _capture()["rows"] if row["model"] == LLAMA_8B)[kind]
    return row


def _growth(counter: str) -> str:
    return f"{_scaling()['126 layers over 4'][counter]:.1f}"


def _slower() -> str:
    others = [row.ratio for row in _peers().rows if row.ratio and row.peer != "graphflops"]
    slower = [ratio for ratio in others if ratio > 1]
    return f"{len(slower)} of {len(others)}"


def _range(part: str) -> str:
    ratios = [row["ratios"][part] for row in _capture()["rows"]]
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
    "batch": lambda: batch.table(_batch()),
    "batch-rate": lambda: f"{batch.rate(_batch()):.0f}",
    "batch-load": lambda: batch.loads(_batch()),
    "batch-environment": lambda: _environment(_batch()["environment"]),
    "capture": lambda: capture.table(_capture()["rows"]),
    "capture-environment": lambda: _environment(_capture()["environment"]),
    "cold": lambda: cold.table(_cold()["rows"]),
    "cold-environment": lambda: _environment(_cold()["environment"]),
    "command": lambda: command.table(_command()),
    "command-environment": lambda: _environment(_command()["environment"]),
    "scaling": lambda: scaling.table(_scaling()),
    "scaling-environment": lambda: _environment(_scaling()["environment"]),
    "diff": lambda: diff.table(_diff()),
    "diff-environment": lambda: _environment(_diff()["environment"]),
    "viewers": lambda: viewers.table(_viewers()),
    "viewers-environment": lambda: _environment(_viewers()["environment"]),
    "diff-seconds": lambda: f"{max(row['seconds'] for row in _diff()['rows']):.2f} s",
    "training": lambda: training.table(json.loads(training.RESULTS.read_text("utf-8"))["rows"]),
    "llama-seconds": lambda: f"{_llama('seconds')['graphflops']:.2f} s",
    "html": lambda: html.table(json.loads(html.RESULTS.read_text("utf-8"))["rows"]),
    "memory-budget": lambda: memory_budget.table(
        json.loads(memory_budget.RESULTS.read_text("utf-8"))["rows"]
    ),
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
        f"{max(row['alone']['peak_mib'] for row in _capture()['rows']) / 1024:.2f} GiB"
    ),
    "conventions": conventions_table,
    "devices": devices_table,
    "timm-memory": timm_memory.table,
    "published-memory": lambda: published_memory.table(
        json.loads(published_memory.RESULTS.read_text("utf-8"))["rows"]
    ),
    "time-errors": lambda: fit_efficiency.table(_latency()["summary"]),
    "time-environment": lambda: _environment(_latency()["environment"]),
}
