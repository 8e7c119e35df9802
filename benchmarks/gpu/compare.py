"""Counts against what ran on a GPU: ``python -m benchmarks.gpu.compare [--resume]``.

For each model, mode and size of ``benchmarks/results/gpu/h200.jsonl``, the multiply-accumulates
that ``FlopCounterMode`` saw in the real step, by phase, against those of graphflops for the same
model on the meta device. Results go to ``benchmarks/results/gpu/counts.jsonl``, and with the
measured memory and times into ``docs/evidence/gpu.md``.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tabulate import tabulate

import graphflops as gf
from benchmarks.gpu.cases import CASES
from benchmarks.gpu.plan import HALF, INFERENCE, TRAINING, Row
from benchmarks.gpu.predicted import sections
from benchmarks.gpu.results import COUNTS, Record, measured, read
from benchmarks.gpu.steps import CACHELESS, classification, model_of, own_loss, work_of
from graphflops.models.optional_dependencies import repair_torchvision

PAGE = Path(__file__).parents[2] / "docs" / "evidence" / "gpu.md"
_FIELDS = ("case", "mode", "precision", "batch", "length", "attention")


def seen(record: Record) -> dict[str, int]:
    """Return the FLOPs that ``FlopCounterMode`` saw on the GPU, by phase."""
    phases = record.get("flops") or record["flops_grouped"]
    totals = {phase: sum(operators.values()) for phase, operators in phases.items()}
    return {phase: total for phase, total in totals.items() if total}


def report_of(
    row: Row, convention: str = "exact", *, optimizer: bool = False
) -> gf.Report | gf.TrainingReport:
    """Return the count of a row on the meta device, on request with the optimizer's step."""
    device: Any = SimpleNamespace(device=torch.device("meta"))
    model = model_of(row, device, tiny=False)
    work = work_of(row, model, device, tiny=False, tokens=0)
    case, inputs = CASES[row.case], dict(work.inputs)
    labels: torch.Tensor | None = None
    args: tuple[torch.Tensor, ...] = ()
    if case.library != "transformers":
        # The loss is the caller's own code: its labels are real.
        labels = torch.zeros(row.batch, dtype=torch.int64)
        args, kwargs = (inputs["pixel_values"],), {}
    else:
        kwargs = inputs | ({"use_cache": False} if case.family in CACHELESS else {})
    if row.mode == INFERENCE:
        with torch.no_grad():
            return gf.count(model, args, kwargs, convention=convention, on_unknown="ignore")

    def loss(outputs: Any) -> torch.Tensor:
        return own_loss(outputs) if labels is None else classification(outputs, labels)

    name = "adamw" if case.library == "transformers" else "momentum"
    return gf.count_training(
        model,
        args,
        kwargs,
        loss=loss,
        optimizer=name if optimizer else None,
        convention=convention,
        on_unknown="ignore",
    )


def counted(row: Row) -> dict[str, int]:
    """Return the FLOPs of the same phases by graphflops."""
    report = report_of(row, "torch")
    if isinstance(report, gf.Report):
        return {"forward": int(report.flops)}
    # A fused attention's backward computes the scores again, which the report has apart.
    backward = report.backward.flops + report.recompute.flops
    return {"forward": int(report.forward.flops), "backward": int(backward)}


def compare() -> None:
    """Count what has no result yet."""
    done = {record["key"] for record in read(COUNTS)}
    with COUNTS.open("a", encoding="utf-8") as file:
        for record in measured("h200"):
            if record["kind"] != "measurement" or record["mode"] not in {TRAINING, INFERENCE}:
                continue
            if record["precision"] != HALF or record["key"] in done:
                continue
            row = Row(**{name: record[name] for name in _FIELDS})
            result: Record = {"key": record["key"], "gpu": seen(record)}
            try:
                result["graphflops"] = counted(row)
            except gf.GraphFlopsError as error:
                result["error"] = str(error)[:300]
            file.write(json.dumps(result) + "\n")
            file.flush()
            outcome = "equal" if result.get("graphflops") == result["gpu"] else "DIFFERENT"
            print(record["key"], outcome, flush=True)


def page() -> str:
    """Return the page."""
    cards = {card: {row["key"]: row for row in measured(card)} for card in ("h200", "h100")}
    counts = read(COUNTS)
    equal = sum(count.get("graphflops") == count["gpu"] for count in counts)
    environment = cards["h200"]["environment"]
    rows = [_row(key, cards) for key, row in cards["h200"].items() if _is_shown(row, cards)]
    headers = ["model", "mode", "precision", "batch x size", "peak GiB", "H200 ms", "H100 ms"]
    return _PAGE.format(
        equal=equal,
        compared=len(counts),
        different=_differences(counts),
        measured=sum(row["kind"] == "measurement" for row in cards["h200"].values()),
        on_h100=sum(row["kind"] == "measurement" for row in cards["h100"].values()),
        versions=_versions(environment),
        table=tabulate(rows, headers, tablefmt="github", disable_numparse=True),
        predicted=sections(cards),
    )


# Known causes of a difference, by phase and models.
_CAUSES = {
    ("forward", ("llama", "qwen3", "mixtral")): (
        "rotary angles: transformers 5.17, which ran there, computes them by a matrix product of "
        "depth one, and 5.23, counted here, by a multiplication"
    ),
    ("backward", ("efficientnet", "mobilenet", "convnext", "mamba")): (
        "depthwise convolutions: `FlopCounterMode` counts their weight gradients too often, by a "
        "known gap; on the meta device it gives the figures of the GPU"
    ),
    ("backward", ("t5",)): (
        "the position bias of transformers 5.17, which ran there, is no contiguous tensor, so that "
        "a GPU writes attention out; with 5.23, counted here, it is one kernel, whose backward "
        "computes the scores again"
    ),
}


def _cause(key: str, phase: str) -> str:
    causes = (
        c for (where, models), c in _CAUSES.items() if where == phase and key.startswith(models)
    )
    return next(causes, "**unknown**")


def _differences(counts: list[Record]) -> str:
    rows: dict[str, list[str]] = {}
    for count in counts:
        for phase, gpu in count["gpu"].items():
            if count.get("graphflops", {}).get(phase) != gpu:
                cause = count.get("error") or _cause(count["key"], phase)
                rows.setdefault(f"{phase}: {cause}", []).append(count["key"])
    if not rows:
        return "Nothing differs."
    listed = [(cause, str(len(keys))) for cause, keys in rows.items()]
    return tabulate(listed, ["difference", "rows"], tablefmt="github", disable_numparse=True)


def _is_shown(row: Record, cards: dict[str, dict[str, Record]]) -> bool:
    return row["kind"] == "measurement" and "step" in row["time"] and row["key"] in cards["h100"]


def _row(key: str, cards: dict[str, dict[str, Record]]) -> tuple[str, ...]:
    row, other = cards["h200"][key], cards["h100"][key]
    peak = max(phase["peak_allocated"] for phase in row["memory"]["steady"].values())
    attention = "" if row["attention"] == "default" else f", {row['attention']} attention"
    return (
        row["case"] + attention,
        row["mode"],
        row["precision"],
        f"{row['batch']} x {row['length']}",
        f"{peak / (1 << 30):.2f}",
        f"{row['time']['step']['median']:.2f}",
        f"{other['time']['step']['median']:.2f}",
    )


def _versions(environment: Record) -> str:
    versions = environment["versions"]
    return ", ".join(f"{name} {version}" for name, version in versions.items())


_PAGE = """\
# On a GPU

<!-- Written by `python -m benchmarks.gpu.compare`; edit the script, not this page. -->

Models with random weights were run on an H200 and an H100: memory by phase, time, FLOPs by
operator, and for some the allocator's events and the time of each operator. The files in
`benchmarks/results/gpu/` have {measured} rows of the first card and {on_h100} of the second;
`benchmarks/gpu/` says what each field means and measures them again
(`python -m benchmarks.gpu.measure --output DIR`). {versions}.

## Counts

What `FlopCounterMode` saw in the real steps, fused attention kernels included, against
`count` and `count_training` of the same models on the meta device, forward and backward apart:
**{equal} of {compared} equal** to the last digit, the others with a cause:

{different}

{predicted}

## Memory and time

Peak of allocated memory and median time of a steady step; a training step is forward, backward
and optimizer.

{table}
"""


def main() -> None:
    """Compare, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--resume", action="store_true", help="keep results, count what has none")
    parser.add_argument("--render-only", action="store_true", help="write the page alone")
    arguments = parser.parse_args()
    if not arguments.render_only:
        if not arguments.resume:
            COUNTS.unlink(missing_ok=True)
        repair_torchvision()
        compare()
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
