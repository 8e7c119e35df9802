"""How long a capture takes beside others: ``python -m benchmarks.capture``.

graphflops with and without repeated layers, plain ``torch.export`` and ``FlopCounterMode``
under fake tensors take turns on each model; medians after a warm-up, in one process. Peak
memory is that of a process that builds the model and counts it once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.results import environment

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "capture.json"
ROUNDS = 3
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama-3-8B shape, 2,048 tokens": (f"hf:{ROOT}/examples/configs/llama-3-8b", {"seq_len": 2048}),
    "DeepSeek-V3 shape, 512 tokens": ("hf:deepseek_v3", {"seq_len": 512}),
    "BERT-base, 128 tokens": ("hf:bert", {"seq_len": 128}),
    "ViT-B/16, 224x224": ("hf:vit", {}),
    "ResNet-50, 224x224": ("hf:resnet", {}),
}
COUNTERS = ("graphflops", "without regions", "torch.export", "FlopCounterMode")


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", metavar="MODEL", help="only count this once, print its peak")
    options = parser.parse_args()
    if options.memory:
        _counter(options.memory, "graphflops")()
        # ru_maxrss would begin with what the process had that started this one.
        status = Path("/proc/self/status").read_text(encoding="ascii")
        print(int(status.partition("VmHWM:")[2].split()[0]) / 1024)
        return
    rows = [_row(name) for name in MODELS]
    where = environment({"torch", "transformers"})
    RESULTS.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


def _row(name: str) -> dict[str, Any]:
    counters = {counter: _counter(name, counter) for counter in COUNTERS}
    seconds = medians(counters)
    peak = subprocess.run(  # noqa: S603 - this very script
        [sys.executable, "-m", "benchmarks.capture", "--memory", name],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    own, theirs = seconds["graphflops"], seconds["FlopCounterMode"]
    ratio = None if own is None or theirs is None else round(own / theirs, 2)
    row = {"model": name, "seconds": seconds, "over FlopCounterMode": ratio}
    row["peak_mib"] = round(float(peak.stdout))
    print(row)
    return row


def medians(counters: dict[str, Callable[[], Any]]) -> dict[str, float | None]:
    """Medians of counters that take turns; ``None`` for those that fail."""
    taken: dict[str, list[float]] = {
        name: [] for name, count in counters.items() if _works(name, count)
    }
    for _ in range(ROUNDS):
        for name, times in taken.items():
            start = time.perf_counter()
            counters[name]()
            times.append(time.perf_counter() - start)
    return {
        name: round(statistics.median(taken[name]), 3) if name in taken else None
        for name in counters
    }


def _works(name: str, count: Callable[[], Any]) -> bool:
    try:
        count()
    except Exception as error:  # noqa: BLE001 - that others fail is a result
        print(f"{name} fails: {type(error).__name__}", file=sys.stderr)
        return False
    return True


def _counter(name: str, counter: str) -> Callable[[], Any]:
    """A counter of a model that is built already."""
    import torch
    from torch._subclasses import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    import graphflops as gf
    from graphflops.models import Options, resolve

    source, given = MODELS[name]
    workload = resolve(source, Options(**given))
    model, inputs = workload.model, dict(workload.kwargs)

    def export() -> None:
        with torch.no_grad():
            torch.export.export(model, workload.args, inputs, strict=False)

    def flop_counter() -> None:
        mode = FakeTensorMode(allow_non_fake_inputs=True)
        with torch.no_grad(), mode, FlopCounterMode(display=False):
            model(*workload.args, **inputs)

    def graphflops() -> None:
        regions = counter == "graphflops"
        gf.count(model, workload.args, inputs, regions=regions, on_unknown="ignore")

    return {"torch.export": export, "FlopCounterMode": flop_counter}.get(counter, graphflops)


if __name__ == "__main__":
    main()
