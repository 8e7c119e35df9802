"""Models a minute of ``graphflops batch``: ``python -m benchmarks.batch``.

A sample of the zoo, evenly spaced over its names with those that fail, is counted twice, in chunks
that take turns: by the engine of a batch, and by ``graphflops count`` in a process for each model,
as many at a time. ``--models N`` takes a larger sample, ``--workers N`` more processes. Writes
``benchmarks/results/batch.json`` and the table of ``docs/tasks/batch.md``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks import zoo_worker
from benchmarks.results import environment, fill
from graphflops.batch.executor import Limits, Outcome
from graphflops.batch.failures import Stage, failure_of
from graphflops.batch.isolation import PRELOAD
from graphflops.batch.item import Item
from graphflops.batch.local import LocalProcesses
from graphflops.batch.record import failed_record
from graphflops.batch.results import ResultsFile, read_records
from graphflops.batch.work import count_item

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "batch.json"
PAGE = ROOT / "docs" / "tasks" / "batch.md"
SOURCES = ("hf", "timm", "torchvision")
CHUNKS = 4
_MINUTE = 60


def main() -> None:
    """Measure, and write the results and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=int, default=80, help="of the zoo (default: 80)")
    parser.add_argument("--workers", type=int, default=2, help="at a time (default: 2)")
    options = parser.parse_args()
    data = measure(options.models, options.workers)
    RESULTS.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
    fill(PAGE, "batch", table(data))
    print(table(data))


def measure(models: int, workers: int) -> dict[str, Any]:
    """Return the seconds of both ways, over a sample of so many models.

    Args:
        models: Number of models.
        workers: Processes at a time.
    """
    where = environment(("torch", "transformers", "timm", "torchvision", "pebble"))
    engine = LocalProcesses(workers, Limits(), (PRELOAD, "benchmarks.batch"))
    begin = time.perf_counter()
    zoo = engine.call(_zoo)
    load = time.perf_counter() - begin
    names = [zoo[i * len(zoo) // models] for i in range(models)]
    chunks = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        for start in range(CHUNKS):
            # Every so manieth name, so that chunks are alike.
            chunk = names[start::CHUNKS]
            row = {
                "models": len(chunk),
                "load": round(os.getloadavg()[0], 1),
                "batch": _batch(chunk, engine, path),
                "processes": _processes(chunk, workers),
            }
            chunks.append(row)
            print(row, file=sys.stderr)
        statuses = Counter(record["status"] for record in read_records(path))
    engine.stop()
    return {
        "environment": where,
        "zoo": len(zoo),
        "models": models,
        "workers": workers,
        "statuses": dict(statuses),
        "load_seconds": load,
        "chunks": chunks,
    }


def table(data: dict[str, Any]) -> str:
    """Return both ways in Markdown: wall and processor time, and their ratios."""
    models = data["models"]
    total = {way: _total(data, way) for way in ("batch", "processes")}
    rows = [
        (
            name,
            f"{_MINUTE * models / total[way]['wall']:.0f}",
            f"{total[way]['wall'] / total['batch']['wall']:.1f}",
            f"{total[way]['cpu'] / models:.2f} s",
            f"{total[way]['cpu'] / total['batch']['cpu']:.1f}",
        )
        for way, name in (("batch", "`graphflops batch`"), ("processes", "one process per model"))
    ]
    headers = (
        f"{models} models of the zoo, {data['workers']} at a time",
        *("models a minute", "time", "processor time a model", "processor time"),
    )
    return tabulate(rows, headers, "github", disable_numparse=True)


def rate(data: dict[str, Any]) -> float:
    """Return the models that workers with a free core each count in a minute, by CPU time."""
    return float(_MINUTE * data["workers"] * data["models"] / _total(data, "batch")["cpu"])


def _total(data: dict[str, Any], way: str) -> Spent:
    return {kind: sum(chunk[way][kind] for chunk in data["chunks"]) for kind in ("wall", "cpu")}


def loads(data: dict[str, Any]) -> str:
    """Return the least and the largest load average of the machine meanwhile."""
    found = [chunk["load"] for chunk in data["chunks"]]
    return f"{min(found)} to {max(found)}"


Spent = dict[str, float]
"""Seconds by the clock and of processors."""


def _zoo() -> list[str]:
    return sorted(zoo_worker.listed_models(SOURCES))


def _batch(names: Sequence[str], engine: LocalProcesses, path: Path) -> Spent:
    items = {name: Item(model=name, convention="exact") for name in names}
    begin, cpu = time.perf_counter(), -time.process_time()
    with ResultsFile(path, resume=True) as results:
        for name, outcome in engine.run(_count_item, items):
            record, spent = outcome.value or (_lost(items[name], outcome), 0.0)
            results.append(record)
            cpu += spent
            print(name, record["status"], file=sys.stderr)
    return {"wall": time.perf_counter() - begin, "cpu": cpu + time.process_time()}


def _count_item(item: Item) -> tuple[dict[str, Any], float]:
    return count_item(item), time.process_time()


def _lost(item: Item, outcome: Outcome) -> dict[str, Any]:
    error = outcome.error or RuntimeError("no value")
    return failed_record(item, failure_of(error, Stage.COUNT))


def _processes(names: Sequence[str], workers: int) -> Spent:
    begin, cpu = time.perf_counter(), _cpu_of_children()
    with ThreadPoolExecutor(workers) as threads:
        codes = [*threads.map(_count, names)]
    assert set(codes) <= {0, 2}, codes  # noqa: S101 - counted, or refused with a sentence
    return {"wall": time.perf_counter() - begin, "cpu": _cpu_of_children() - cpu}


def _cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _count(name: str) -> int:
    command = [sys.executable, "-m", "graphflops", "count", name, "--format", "json"]
    return subprocess.run(  # noqa: S603 - names of the zoo
        command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode


if __name__ == "__main__":
    main()
