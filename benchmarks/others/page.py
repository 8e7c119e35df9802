"""The page about models of other packages: every figure comes from the results."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.real_runs.comparison import VERDICTS, Row
from benchmarks.real_runs.counting_mode import KNOWN_GAPS
from benchmarks.real_runs.page import COMPARED, NOT_COMPARED, OUTCOMES, differences, text
from benchmarks.results import rows_of

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "evidence" / "others.md"
RESULTS = ROOT / "benchmarks" / "results" / "others.jsonl"
PACKAGES = (
    *("diffusers", "open-clip-torch", "segmentation-models-pytorch", "ultralytics"),
    *("efficientnet-pytorch", "kornia", "vit-pytorch", "monai", "torch-geometric", "e3nn"),
    *("x-transformers", "mambapy", "speechbrain", "torchaudio"),
)
_MODES = {"forward": "Forward passes, in eval mode", "training": "Training steps"}

_PAGE = """\
# Models of other packages

<!-- Written by `python -m benchmarks.others`; edit the script, not this page. -->

Models of {number} packages as their users build them, with random weights: a forward pass and a
training step (the sum of all outputs, or the loss that the model returns) are counted, and run
under a counting mode with one line of arithmetic for each kernel that contracts, with
`FlopCounterMode` beside it: on meta tensors, or on the CPU where values of inputs decide what a
model does. {cases} cases, {packages}, torch {torch}, {date}.
{sections}
## What `FlopCounterMode` does not see

{gaps}

## All cases

Multiply-accumulates of the forward pass and of the training step, recomputation included.

{table}
"""


def render() -> str:
    """The whole page."""
    where, rows = rows_of(RESULTS)
    packages = dict(where["packages"])
    gaps = Counter(
        name for row in rows for mode in _MODES for name in row.get(mode, {}).get("gaps", {})
    )
    lines = [(f"`{name}`", KNOWN_GAPS.get(name, "**unknown**"), n) for name, n in gaps.items()]
    return _PAGE.format(
        number=len(PACKAGES),
        cases=len(rows),
        torch=packages.pop("torch"),
        date=where["date"],
        packages=", ".join(f"{name} {version}" for name, version in packages.items()),
        sections="\n".join(_section(mode, rows) for mode in _MODES),
        gaps=tabulate(lines, ("operator", "`FlopCounterMode`", "cases"), tablefmt="github"),
        table=tabulate(
            [_line(row) for row in rows], ("model", "forward", "training"), tablefmt="github"
        ),
    )


def _section(mode: str, rows: list[Row]) -> str:
    found = [
        {"name": row["name"]} | row.get(mode, {"outcome": row["outcome"]} | row)
        for row in rows
        if mode in row or (row["outcome"] not in VERDICTS and "forward" not in row)
    ]
    compared = [row for row in found if row["outcome"] not in NOT_COMPARED]
    equal = sum(row["outcome"] in COMPARED for row in compared)
    counted = sum("counted" in row or row["outcome"] in COMPARED for row in found)
    tally = Counter(row["outcome"] for row in found)
    lines = [(said, tally[outcome]) for outcome, said in OUTCOMES.items() if tally[outcome]]
    return "\n\n".join(
        (
            f"\n## {_MODES[mode]}",
            f"Counted: **{counted} of {len(found)}**.",
            f"Equal to the last digit: **{equal} of {len(compared)}** that run.",
            tabulate(lines, ("", "cases"), tablefmt="github"),
            differences(found),
            "",
        )
    )


def _line(row: Row) -> tuple[str, ...]:
    return (f"`{row['name']}`", *(_figure(row.get(mode)) for mode in _MODES))


def _figure(found: dict[str, Any] | None) -> str:
    if found is None or "run" not in found:
        return "" if found is None else text(found["outcome"])
    macs = found["run"]
    total = sum(macs.values()) if isinstance(macs, dict) else macs
    return f"{total:,}" + ("" if found["outcome"] in COMPARED else f" ({found['outcome']})")
