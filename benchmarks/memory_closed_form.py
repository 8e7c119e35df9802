"""Peak memory in closed form: ``python -m benchmarks.memory_closed_form [MODEL ...]``.

Counts models once with a symbolic batch, in a forward pass and a training step with AdamW, and
compares the peak for eight batch sizes with that of a count of each. The models are those of the
tests, two layers deep. Writes ``benchmarks/results/memory_closed_form.json``.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn
from torch.utils import _pytree as pytree

import graphflops as gf
from benchmarks.results import environment

RESULTS = Path(__file__).parent / "results" / "memory_closed_form.json"
TESTS = Path(__file__).parents[1] / "tests"
BATCHES = (2, 3, 4, 7, 8, 32, 100, 256)
"""Batch sizes. Graphs for a batch of one are special: axes of one broadcast."""
SAMPLE = 4


def with_batch(inputs: Mapping[str, Any], batch: int) -> dict[str, Any]:
    """Return inputs with another size of the first axis."""

    def resize(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.new_empty((batch, *tensor.shape[1:])) if tensor.dim() else tensor

    resized: dict[str, Any] = pytree.tree_map_only(torch.Tensor, resize, dict(inputs))
    return resized


def symbolic_batch(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``dynamic_shapes`` of inputs whose first axis is the batch, B."""

    def axes(leaf: object) -> dict[int, str] | None:
        return {0: "B"} if isinstance(leaf, torch.Tensor) and leaf.dim() else None

    shapes: dict[str, Any] = pytree.tree_map(axes, dict(inputs))
    return shapes


def compare(
    model: nn.Module, inputs: Mapping[str, Any], batches: Iterable[int], *, trained: bool
) -> dict[str, Any]:
    """Return the peak as an expression, and the batch sizes for which a fresh count differs."""

    def count(batch: int, shapes: Any = None) -> Any:
        given = with_batch(inputs, batch)
        if trained:
            return gf.count_training(model, (), given, dynamic_shapes=shapes, optimizer="adamw")
        return gf.count(model, (), given, dynamic_shapes=shapes)

    start = time.process_time()
    memory = count(SAMPLE, symbolic_batch(inputs)).memory
    counted = time.process_time()
    peak = str(memory.peak)
    seconds = time.process_time() - counted
    wrong = [b for b in batches if memory.subs(B=b).peak != count(b).memory.peak]
    return {
        "peak": peak,
        "differs": wrong,
        "count s": round(counted - start, 2),
        "peak s": round(seconds, 2),
    }


def main(names: Iterable[str] = ()) -> None:
    """Compare, print, and save."""
    warnings.simplefilter("ignore")
    sys.path.insert(0, str(TESTS))
    from architectures import ARCHITECTURES, at_depth

    rows = []
    for name in names or ARCHITECTURES:
        for trained in (False, True):
            with at_depth(2):
                case = ARCHITECTURES[name]()
            row = {"model": name, "pass": "training" if trained else "forward"}
            try:
                row |= compare(case.model, case.inputs, BATCHES, trained=trained)
            except gf.GraphFlopsError as error:
                row |= {"peak": "", "differs": str(error)}
            rows.append(row)
            print(row, flush=True)
    print(tabulate([{**row, "peak": row["peak"][:60]} for row in rows], headers="keys"))
    if not names:
        where = environment(("torch", "transformers"))
        RESULTS.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
