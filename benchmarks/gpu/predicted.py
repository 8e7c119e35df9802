"""Sections of the page: memory and time as predicted, against what was measured."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from statistics import mean, median
from typing import Any, NamedTuple

from tabulate import tabulate

from benchmarks.gpu import operators
from benchmarks.gpu.cases import CASES
from benchmarks.gpu.plan import GENERATION, TRAINING
from benchmarks.gpu.results import PREDICTIONS, RESULTS, Record, read

MIB = 1 << 20
_BUSY = 0.4
"""Share of the bound in the time of a row from which on it does not wait for the host."""


class _Pair(NamedTuple):
    row: Record
    prediction: Record
    card: str


def sections(cards: Mapping[str, Mapping[str, Record]]) -> str:
    """Return the sections.

    Args:
        cards: Rows that were measured, by key, by card.
    """
    predictions = {r["key"]: r for r in read(PREDICTIONS) if "error" not in r}
    pairs = [
        _Pair(row, predictions[key], card)
        for card, rows in cards.items()
        for key, row in rows.items()
        if row["kind"] == "measurement" and key in predictions
    ]
    eager = [pair for pair in pairs if not pair.row.get("compiled")]
    compiled = [pair for pair in pairs if pair.row.get("compiled")]
    return _TEXT.format(
        memory=_memory_table(eager),
        time=_time_table(eager, compiled),
        llava=_llava(),
        operators=_operators(),
    )


def _peak(row: Record, counter: str) -> int:
    return int(max(phase[f"peak_{counter}"] for phase in row["memory"]["steady"].values()))


def _workspaces(row: Record) -> int:
    """Return what cuBLAS takes on Hopper: 32 MiB a thread that calls it, 1 MiB for biases."""
    return (65 if row["mode"] == TRAINING else 33) * MIB


def _errors(pairs: Iterable[_Pair], predicted: str, counter: str) -> list[float]:
    found = []
    for row, prediction, _ in pairs:
        nbytes = prediction["memory"][predicted] + _workspaces(row)
        found.append(nbytes / _peak(row, counter) - 1)
    return found


def _kind(row: Record) -> str:
    family = "convolutional" if CASES[row["case"]].family == "images" else "transformers"
    return f"{row['mode']}, {family}"


def _grouped(pairs: Iterable[_Pair], key: Callable[[Record], str]) -> dict[str, list[_Pair]]:
    groups: defaultdict[str, list[_Pair]] = defaultdict(list)
    for pair in pairs:
        groups[key(pair.row)].append(pair)
    return dict(sorted(groups.items()))


def _memory_table(pairs: Iterable[_Pair]) -> str:
    rows = []
    for kind, group in _grouped(pairs, _kind).items():
        live = list(map(abs, _errors(group, "live", "requested")))
        reserved = list(map(abs, _errors(group, "reserved", "reserved")))
        within = (sum(error < limit for error in live) for limit in (0.001, 0.01, 0.05))
        rows.append((kind, len(group), f"{median(live):.2%}", *within, f"{median(reserved):.1%}"))
    headers = ["step", "rows", "median error", "0.1%", "1%", "5%", "of reserved"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _seconds(pair: _Pair) -> tuple[float, float, float]:
    """Return measured, bound and expected seconds of a step."""
    row, time = pair.row, pair.prediction["time"][pair.card]
    if row["mode"] == GENERATION:
        decode = [part for name, part in time.items() if name != "prefill"]
        runs = sum(part["runs"] for part in decode)
        figures = (sum(part[name] for part in decode) / runs for name in ("bound", "expected"))
        return (row["time"]["decode"]["median"] / 1e3, *figures)
    parts = [part for name, part in time.items() if name != "optimizer"]
    spent = row["time"]["step"]["median"] - row["time"].get("optimizer", {}).get("median", 0.0)
    bound, expected = (sum(part[name] for part in parts) for name in ("bound", "expected"))
    return spent / 1e3, bound, expected


def _time_table(eager: Iterable[_Pair], compiled: Iterable[_Pair]) -> str:
    def kind(row: Record) -> str:
        step = "a decoded token" if row["mode"] == GENERATION else row["mode"]
        return f"{step}, {row['precision']}" + (", compiled" if row.get("compiled") else "")

    rows = []
    for name, group in _grouped([*eager, *compiled], kind).items():
        seconds = list(map(_seconds, group))
        held = sum(bound <= spent for spent, bound, _ in seconds)
        busy = [abs(exp / spent - 1) for spent, bound, exp in seconds if bound > _BUSY * spent]
        every = [abs(expected / spent - 1) for spent, _, expected in seconds]
        rows.append(
            (
                *(name, f"{held} of {len(group)}", f"{median(every):.0%}"),
                *(len(busy), f"{mean(busy):.0%}" if busy else ""),
            )
        )
    headers = ["step", "bound holds", "median error", "busy rows", "mean error of these"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


def _llava() -> str:
    found: dict[str, Any] = json.loads((RESULTS / "llava_onevision.json").read_text("utf-8"))
    rows = [
        ("published, `torch` and transformers of 2024", "17.4525"),
        ("this run: `max_memory_allocated`", f"{found['generate']['peak_allocated'] / 1e9:.4f}"),
        ("bytes requested", f"{found['generate']['peak_requested'] / 1e9:.4f}"),
        ("read where modules begin and end", f"{found['at_module_boundaries'] / 1e9:.4f}"),
    ]
    return tabulate(rows, ["peak", "GB"], tablefmt="github", disable_numparse=True)


def _operators() -> str:
    found: dict[str, Any] = json.loads(operators.RESULTS.read_text("utf-8"))
    rows = [
        (name, f"{found['peaks'][name]:,}", f"{operators.predict(*case):,}")
        for name, case in operators.CASES.items()
    ]
    headers = ["training step", f"bytes on the {found['device'].split()[1]}", "counted"]
    return tabulate(rows, headers, tablefmt="github", disable_numparse=True)


_TEXT = """\
## Predicted memory

`python -m benchmarks.gpu.predict` counts each row on the meta device, without a GPU. Live tensors
against the bytes that were requested of the allocator at the peak (`peak_requested`), with what
cuBLAS keeps on these cards: 32 MiB for each thread that calls it, and 1 MiB for biases. *Of
reserved* is the median error of `with_allocator("cuda")` against `max_memory_reserved`.

{memory}

Rows that are off by more than a hundredth are mostly convolutional: cuDNN's workspaces are no
tensors, and take up to half of the memory of an inference (VGG in float32). Those of T5 ran with
transformers 5.17, whose position bias is no contiguous tensor, so that a GPU writes attention out;
with that version the training of T5 is predicted to 0.01%, and with 5.23, counted here, attention
is one kernel.

### Operators that a decomposition hides

Steps of single operators that torch's fake tensors decompose in Python, and a real step does not
(`python -m benchmarks.gpu.operators --output DIR`, `--predict`):

{operators}

### The published generation

LLaVA-OneVision-7B, 16 crops, 7,405 prompt tokens, 7 new ones
(`python -m benchmarks.gpu.llava --output DIR`):

{llava}

The count says 17.7159 GB for transformers 5.23, which keeps three tensors more than the 5.17 that
ran (105,636,864 bytes: features of the image twice, and the states of the vision tower). Without
them, and with the mask of the prompt and cuBLAS's workspaces, it is equal to the bytes requested
in the pass over the prompt but for 4. The published figure is below what is alive then.

## Predicted time

Bound and expected time on the card, of the forward and backward pass; of a generation, for each
token. *Busy* are rows whose bound is more than 40% of what was measured; the others wait for the
host, whose speed is that of the machine at hand.

{time}

The bfloat16 constants are fitted on busy rows of transformers among these; those of float32 on
other GPUs ([Time](../tasks/time.md))."""
