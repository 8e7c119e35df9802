"""How the time of a count grows with depth: ``python -m benchmarks.scaling``.

The Llama-3-8B shape at 2,048 tokens with 2 to 128 layers; the depths take turns, medians after
a warm-up.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graphflops as gf
from benchmarks.capture import medians
from benchmarks.results import environment
from graphflops.models import Options, resolve

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "scaling.json"
LAYERS = (2, 4, 8, 16, 32, 64, 126, 128)


def main() -> None:
    """Measure, print and save."""
    counters: dict[str, Callable[[], Any]] = {}
    for layers in LAYERS:
        options = Options(seq_len=2048, overrides={"num_hidden_layers": layers})
        workload = resolve(f"hf:{ROOT}/examples/configs/llama-3-8b", options)
        counters[str(layers)] = functools.partial(gf.count, workload.model, kwargs=workload.kwargs)
    seconds: dict[str, Any] = medians(counters)
    found = {
        "environment": environment({"torch", "transformers"}),
        "seconds": seconds,
        "126 over 4": round(seconds["126"] / seconds["4"], 2),
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(found)


if __name__ == "__main__":
    main()
