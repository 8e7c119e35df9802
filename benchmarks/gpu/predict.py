"""Predictions of what was measured on a GPU: ``python -m benchmarks.gpu.predict [--resume]``.

Each row of ``results/gpu/h100.jsonl`` and ``h200.jsonl`` is counted on the meta device, on a
machine without a GPU: its peak memory, what the allocator makes of it, and on each card the bound
and the time to expect. ``results/gpu/predictions.jsonl`` has a line for each, and
``benchmarks.gpu.compare`` sets them against what was measured.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import torch

import graphflops as gf
from benchmarks.gpu.compare import report_of
from benchmarks.gpu.plan import AUTOCAST, GENERATION, TRAINING, Row
from benchmarks.gpu.results import CARDS, PREDICTIONS, Record, measured, read
from benchmarks.gpu.steps import model_of, work_of
from graphflops.models.optional_dependencies import repair_torchvision

NEW_TOKENS = 32


def rows() -> dict[str, Row]:
    """Return the measured rows by key; autocast is a context that a count takes as it stands."""
    records = [r for card in CARDS for r in measured(card) if r["kind"] == "measurement"]
    names = Row.__dataclass_fields__
    found = {r["key"]: Row(**{name: r[name] for name in names if name in r}) for r in records}
    return {key: row for key, row in found.items() if row.precision != AUTOCAST}


def predict(row: Row) -> Record:
    """Return memory in bytes, and times in seconds by card, of a step as it was measured."""
    if row.mode == GENERATION:
        return _predict_generation(row)
    report = report_of(row, optimizer=True)
    memory = report.memory
    if row.mode == TRAINING:
        memory = memory.with_implementation("foreach")
    return {"memory": _memory(memory), "time": _times(report, fused=row.compiled)}


def _predict_generation(row: Row) -> Record:
    device: Any = SimpleNamespace(device=torch.device("meta"))
    model = model_of(row, device, tiny=False)
    work = work_of(row, model, device, tiny=False, tokens=NEW_TOKENS)
    report = gf.count_generation(model, work.inputs, max_new_tokens=NEW_TOKENS)
    return {"memory": _memory(report.memory), "time": _times(report)}


def _memory(memory: gf.MemoryReport) -> Record:
    cuda = memory.with_allocator("cuda")
    return {"live": memory.peak, "allocated": cuda.allocated, "reserved": cuda.reserved}


def _times(report: Any, *, fused: bool = False) -> Record:
    found = {}
    for card, name in CARDS.items():
        time = report.time(name, fused=fused)
        found[card] = {
            part: {"bound": passed.bound, "expected": passed.expected, "runs": passed.runs}
            for part, passed in time.passes.items()
        }
    return found


def _predictions(kept: set[str]) -> Iterator[Record]:
    for key, row in rows().items():
        if key in kept:
            continue
        try:
            yield {"key": key, **predict(row)}
        except gf.GraphFlopsError as error:
            yield {"key": key, "error": str(error)}


def main() -> None:
    """Predict what has no prediction yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resume", action="store_true", help="keep what is there")
    arguments = parser.parse_args()
    repair_torchvision()
    if not arguments.resume:
        PREDICTIONS.unlink(missing_ok=True)
    kept = {record["key"] for record in read(PREDICTIONS)}
    with PREDICTIONS.open("a", encoding="utf-8") as file:
        for record in _predictions(kept):
            print(json.dumps(record), file=file, flush=True)
            print(record["key"], record.get("error", ""), flush=True)


if __name__ == "__main__":
    main()
