"""Processor seconds of graphs of 15,000 calls: ``python -m benchmarks.graphs [--rounds N]``.

Each form is made from a report of a deep Llama on meta, by turns, in one process; what is told is
the median of the rounds.
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

RESULTS = Path(__file__).parent / "results" / "graphs.json"
LAYERS = 283
"""Layers of the model: its graph has about 15,000 calls."""


def report() -> gf.Report:
    """Return a report that nothing has been asked of yet."""
    overrides = {"num_hidden_layers": LAYERS}
    workload = resolve("hf:examples/configs/llama-3-8b", Options(seq_len=128, overrides=overrides))
    return gf.count(workload.model, workload.args, workload.kwargs)


def measure(rounds: int) -> dict[str, Any]:
    """Return the seconds of each form, and of what it is made from."""
    seconds: dict[str, list[float]] = {}
    calls = 0

    def timed(name: str, make: Callable[[], Any]) -> Any:
        gc.collect()
        start = time.process_time()
        made = make()
        seconds.setdefault(name, []).append(time.process_time() - start)
        return made

    for _ in range(rounds):
        counted = timed("count", report)
        calls = len(counted.records)
        graph = counted.graph
        timed("edges", partial(getattr, graph, "uses"))
        module = timed("to_fx", graph.to_fx)
        timed("to_fx, folded", partial(graph.to_fx, folded=True))
        timed("to_networkx", graph.to_networkx)
        timed("critical_path", graph.critical_path)
        timed("stages", partial(graph.stages, 4))
        timed("waste", graph.waste)
        timed("annotate", partial(gf.annotate, module))
    return {
        "environment": environment(("graphflops", "torch", "networkx")),
        "calls": calls,
        "rounds": rounds,
        "seconds": {name: round(median(times), 3) for name, times in seconds.items()},
    }


def table(found: dict[str, Any]) -> str:
    """Return the seconds as a table in Markdown."""
    rows = [(f"`{name}`", f"{seconds:.2f}") for name, seconds in found["seconds"].items()]
    return tabulate(rows, ("", "seconds"), tablefmt="github", disable_numparse=True)


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    found = measure(parser.parse_args().rounds)
    RESULTS.write_text(json.dumps(found, indent=2) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
