"""What pricing a call costs: ``python -m benchmarks.pricing`` prints microseconds per call.

The graph of the Llama-3-8B shape is captured once; its calls are priced and rolled up again
and again. Medians of the repetitions.
"""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import graphflops as gf
from graphflops import conventions
from graphflops.core.module_tree import roll_up
from graphflops.models import Options, resolve
from graphflops.pricing.price import price_all
from graphflops.render.data import environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "pricing.json"
REPETITIONS = 31


def main() -> None:
    """Measure, print and save."""
    workload = resolve(f"hf:{ROOT}/examples/configs/llama-3-8b", Options(seq_len=2048))
    report = gf.count(workload.model, kwargs=workload.kwargs)
    calls, modules, registry = report.capture.calls, report.capture.modules, conventions.exact()
    priced, rolled = [], []
    for _ in range(REPETITIONS):
        start = time.perf_counter()
        records = price_all(calls, registry)
        middle = time.perf_counter()
        roll_up(records, modules)
        priced.append(middle - start)
        rolled.append(time.perf_counter() - middle)
    found = {
        "environment": environment(),
        "calls": len(calls),
        "price_us_per_call": round(1e6 * statistics.median(priced) / len(calls), 2),
        "roll_up_us_per_call": round(1e6 * statistics.median(rolled) / len(calls), 2),
        "repetitions": REPETITIONS,
    }
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(
        f"{found['calls']} calls: {found['price_us_per_call']} us a call to price, "
        f"{found['roll_up_us_per_call']} us to roll up (medians of {REPETITIONS})"
    )


if __name__ == "__main__":
    main()
