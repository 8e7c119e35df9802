"""Time and size of the files of viewers for a deep model: ``python -m benchmarks.viewers``.

The model has the shape of Llama 3.1 405B, 126 layers. Its forward pass of 2,048 tokens, a training
step with checkpoints and AdamW, and a generation of 256 tokens are counted and saved; processor
seconds are those of loading a report and writing the files of a format from it. Writes
``benchmarks/results/viewers.json`` and the table of ``docs/tasks/viewers.md``.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

import graphflops as gf
from benchmarks.results import environment, fill
from graphflops.models import Options, resolve
from graphflops.models.prepare_training import TrainingOptions, prepare_training
from graphflops.saving.files import AnyReport
from graphflops.viewers.formats import FORMATS

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "viewers.json"
PAGE = ROOT / "docs" / "tasks" / "viewers.md"
_OPTIONS = Options(
    seq_len=2048,
    dtype="bfloat16",
    overrides={
        "num_hidden_layers": 126,
        "hidden_size": 16384,
        "intermediate_size": 53248,
        "num_attention_heads": 128,
    },
)
_NEW_TOKENS = 256


def count() -> dict[str, AnyReport]:
    """Count the model's forward pass, training step and generation."""
    name = "hf:examples/configs/llama-3-8b"
    forward, training = (resolve(name, _OPTIONS) for _ in range(2))
    training = prepare_training(training, TrainingOptions(checkpoint=True))
    inputs = {"input_ids": forward.kwargs["input_ids"]}
    return {
        "forward": gf.count(forward.model, forward.args, forward.kwargs),
        "training": gf.count_training(
            training.model, training.args, training.kwargs, optimizer="adamw"
        ),
        "generation": gf.count_generation(forward.model, inputs, max_new_tokens=_NEW_TOKENS),
    }


def measure(saved: Path, to: str) -> dict[str, float]:
    """Load a report, write the files of a format, and return seconds and megabytes."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        paths = gf.load(saved).view(f"{folder}/file.json", to=to, device="h100-sxm")
        seconds = time.process_time() - start
        nbytes = sum(path.stat().st_size for path in paths)
    return {"seconds": round(seconds, 2), "megabytes": round(nbytes / 1e6, 1)}


def table(found: dict[str, Any]) -> str:
    """Return seconds and megabytes by format and report."""
    rows = [
        (
            f"`{to}`",
            *(f"{cell['seconds']:.1f} s, {cell['megabytes']:.1f} MB" for cell in by_kind.values()),
        )
        for to, by_kind in found["rows"].items()
    ]
    calls = (f"{kind}, {calls:,} calls" for kind, calls in found["calls"].items())
    align = ("left", "right", "right", "right")
    return tabulate(rows, ["format", *calls], tablefmt="github", colalign=align)


def main() -> None:
    """Measure, print and save."""
    with tempfile.TemporaryDirectory() as folder:
        saved, calls = {}, {}
        for kind, report in count().items():
            saved[kind], calls[kind] = Path(folder) / f"{kind}.json", len(report.records)
            gf.save(report, saved[kind])
        rows = {to: {kind: measure(path, to) for kind, path in saved.items()} for to in FORMATS}
    found = {"environment": environment(("torch", "networkx")), "calls": calls, "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    fill(PAGE, "viewers", table(found))
    print(table(found))


if __name__ == "__main__":
    main()
