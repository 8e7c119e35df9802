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
from graphflops.batch import runner
from graphflops.batch.executor import Limits
from graphflops.batch.item import Item
from graphflops.batch.local import LocalProcesses
from graphflops.batch.results import ResultsFile, read_records

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
    engine = LocalProcesses(workers, Limits())
    begin = time.perf_counter()
    zoo = engine.call(_zoo)
    names = [zoo[i * len(zoo) // models] for i in range(models)]
    seconds = {"load": time.perf_counter() - begin, "batch": 0.0, "processes": 0.0}
    chunks, loads = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.jsonl"
        for chunk in _chunks(names):
            loads.append(round(os.getloadavg()[0], 1))
            row = {"batch": _batch(chunk, engine, path), "processes": _processes(chunk, workers)}
            chunks.append({"models": len(chunk)} | row)
            for way, spent in row.items():
                seconds[way] += spent
        statuses = Counter(record["status"] for record in read_records(path))
    engine.stop()
    return {
        "environment": where | {"load": loads},
        "zoo": len(zoo),
        "models": models,
        "workers": workers,
        "statuses": dict(statuses),
        "seconds": seconds,
        "chunks": chunks,
    }


def table(data: dict[str, Any]) -> str:
    """Return both ways in Markdown, with the ratio of their times."""
    seconds, models = data["seconds"], data["models"]
    rows = [
        (name, f"{_MINUTE * models / seconds[way]:.0f}", f"{seconds[way] / seconds['batch']:.1f}")
        for way, name in (("batch", "`graphflops batch`"), ("processes", "one process per model"))
    ]
    headers = (
        f"{models} models of the zoo, {data['workers']} at a time",
        "models a minute",
        "time",
    )
    return tabulate(rows, headers, "github", disable_numparse=True)


def _zoo() -> list[str]:
    return sorted(zoo_worker.listed_models(SOURCES))


def _chunks(names: Sequence[str]) -> list[Sequence[str]]:
    """Return every so manieth name, so that chunks are alike."""
    return [names[start::CHUNKS] for start in range(CHUNKS)]


def _batch(names: Sequence[str], engine: LocalProcesses, path: Path) -> float:
    items = (Item(model=name, convention="exact") for name in names)
    begin = time.perf_counter()
    with ResultsFile(path, resume=True) as results:
        runner.run({item.key: item for item in items}, engine, results, _show)
    return time.perf_counter() - begin


def _show(record: Any) -> None:
    print(record["item"]["model"], record["status"], file=sys.stderr)


def _processes(names: Sequence[str], workers: int) -> float:
    begin = time.perf_counter()
    with ThreadPoolExecutor(workers) as threads:
        codes = [*threads.map(_count, names)]
    assert set(codes) <= {0, 2}, codes  # noqa: S101 - counted, or refused with a sentence
    return time.perf_counter() - begin


def _count(name: str) -> int:
    command = [sys.executable, "-m", "graphflops", "count", name, "--format", "json"]
    return subprocess.run(  # noqa: S603 - names of the zoo
        command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ).returncode


if __name__ == "__main__":
    main()
