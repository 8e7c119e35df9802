"""Time that a difference of two reports takes: ``python -m benchmarks.diff``.

Each report has 15,000 calls, in layers of 26. It is compared with itself, with one more call in
each layer, with wider layers, with a wrapped model and with another batch size, where every call
differs; then the same as graphs without modules, where all calls are one sequence. Medians and
largest of the rounds. Writes ``benchmarks/results/diff.json`` and the table of
``docs/evidence/speed.md``.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch import nn

import graphflops as gf
from benchmarks.results import environment, fill

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "diff.json"
PAGE = ROOT / "docs" / "evidence" / "speed.md"
CALLS = 15_000
ROUNDS = 5
_CALLS_OF_LAYER = 26


class Layer(nn.Module):
    """A layer of many small calls."""

    def __init__(self, width: int, *, scaled: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, width), nn.Linear(width, 8)
        self.scaled = scaled

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the layer."""
        hidden: torch.Tensor = self.down(torch.relu(self.up(self.norm(x))))
        if self.scaled:
            hidden = hidden * 2
        for _ in range(20):
            hidden = hidden + x
        return x + torch.tanh(hidden)


class Wrapper(nn.Module):
    """A module that only calls another."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the output of the model."""
        output: torch.Tensor = self.model(x)
        return output


def count_models() -> dict[str, gf.Report]:
    """Count the models; the first is what all are compared with."""

    def stack(width: int = 8, *, scaled: bool = False) -> nn.Module:
        layers = CALLS // _CALLS_OF_LAYER
        return nn.Sequential(*(Layer(width, scaled=scaled) for _ in range(layers)))

    models = {
        "the same": (stack(), 2),
        "one more call in each layer": (stack(scaled=True), 2),
        "wider layers": (stack(16), 2),
        "wrapped": (Wrapper(stack()), 2),
        "another batch size": (stack(), 3),
    }
    return {
        name: gf.count(model, (torch.empty(rows, 8),)) for name, (model, rows) in models.items()
    }


def flat(report: gf.Report) -> gf.Report:
    """Return a report of the same calls without modules."""
    records = [
        replace(record, call=replace(record.call, module_path="", same_as=None))
        for record in report.records
    ]
    return replace(report, records=records, capture=replace(report.capture, modules=()))


def measure(before: gf.Report, after: gf.Report) -> dict[str, Any]:
    """Compare two reports a few times."""
    seconds = []
    for _ in range(ROUNDS):
        # Of new reports: their module trees are built on first use.
        first, second = replace(before), replace(after)
        start = time.perf_counter()
        diff = first.diff(second, workload="any")
        seconds.append(time.perf_counter() - start)
    return {
        "calls": [len(before.records), len(after.records)],
        "changed modules": len(diff.modules),
        "changed calls": len(diff.calls),
        "seconds": round(statistics.median(seconds), 3),
        "longest": round(max(seconds), 3),
    }


def table(found: dict[str, Any]) -> str:
    """Return seconds by graph and by what it is compared with."""
    rows = [
        (
            row["graph"],
            row["after"],
            *(f"{calls:,}" for calls in row["calls"]),
            f"{row['changed calls']:,}",
            f"{row['seconds']:.2f}",
            f"{row['longest']:.2f}",
        )
        for row in found["rows"]
    ]
    headers = ["graph", "compared with", "calls", "its calls", "differ", "seconds", "longest"]
    align = ("left", "left", *("right",) * 5)
    return tabulate(rows, headers, tablefmt="github", colalign=align, disable_numparse=True)


def main() -> None:
    """Measure, print and save."""
    reports = count_models()
    graphs = {
        "modules": reports,
        "no modules": {name: flat(report) for name, report in reports.items()},
    }
    rows = [
        {"graph": graph, "after": name, **measure(by_name["the same"], report)}
        for graph, by_name in graphs.items()
        for name, report in by_name.items()
    ]
    found = {"environment": environment(("torch",)), "rounds": ROUNDS, "rows": rows}
    RESULTS.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    fill(PAGE, "diff", table(found))
    print(table(found))


if __name__ == "__main__":
    main()
