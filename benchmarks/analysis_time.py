"""Time of analyses as a share of the count: ``python -m benchmarks.analysis_time``.

The Llama-3-8B shape at 2,048 tokens, forward and a training step, each counted in turns with what
is asked of its report: memory (the peak, what is alive then, the timeline), and the time on a GPU
with its table, operator after operator and fused. Processor seconds, medians after a warm-up.
"""

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

import graphflops as gf
from benchmarks.results import environment
from graphflops.models import Options, resolve
from graphflops.models.optional_dependencies import repair_torchvision

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "analysis_time.json"
CONFIG = f"hf:{ROOT}/examples/configs/llama-3-8b"
DEVICE = "h100-sxm"
ROUNDS = 9
Report = gf.Report | gf.TrainingReport


def _memory(report: Report) -> object:
    memory = report.memory
    return memory.peak, memory.at_peak, memory.timeline


ANALYSES: dict[str, Callable[[Report], object]] = {
    "memory": _memory,
    "time": lambda report: report.time(DEVICE).table(),
    "time, fused": lambda report: report.time(DEVICE, fused=True).table(),
}


def counts() -> dict[str, Callable[[], Report]]:
    """Return functions that count the model."""
    workload = resolve(CONFIG, Options(seq_len=2048, dtype="bfloat16"))
    model, kwargs = workload.model, {**workload.kwargs, "use_cache": False}
    return {
        "forward": lambda: gf.count(model, kwargs=kwargs),
        "training": lambda: gf.count_training(model, kwargs=kwargs, optimizer="adamw"),
    }


def seconds_of(function: Callable[[], Any]) -> tuple[float, Any]:
    """Return the processor seconds of a call, and its result."""
    gc.collect()
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def measure(count: Callable[[], Report]) -> dict[str, float]:
    """Return the median seconds of a count and of each analysis of its report."""
    seconds: dict[str, list[float]] = {name: [] for name in ("count", *ANALYSES)}
    for _ in range(ROUNDS + 1):
        spent, report = seconds_of(count)
        seconds["count"].append(spent)
        for name, analysis in ANALYSES.items():
            seconds[name].append(seconds_of(partial(analysis, report))[0])
    return {name: round(median(values[1:]), 5) for name, values in seconds.items()}


def main() -> None:
    """Measure, print a table and write the results."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    repair_torchvision()
    rows = {name: measure(count) for name, count in counts().items()}
    shown = [
        (name, f"{row['count']:.3f}", *(f"{row[a] / row['count']:.1%}" for a in ANALYSES))
        for name, row in rows.items()
    ]
    print(tabulate(shown, ["count", "seconds", *ANALYSES], disable_numparse=True))
    results = {"environment": environment(("torch", "transformers")), "rows": rows}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
