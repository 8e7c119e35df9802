"""Generations: ``count_generation`` against a real ``model.generate`` on the CPU."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

import graphflops as gf
from benchmarks.failures import reason
from benchmarks.real_runs.comparison import Row, verdict
from benchmarks.real_runs.counting_mode import (
    Contractions,
    CountingMode,
    composite_kernels,
    flop_counter,
    gaps,
)

SEED = 0
Inputs = Callable[[int, int], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Generating:
    """A model that generates, and inputs for a batch and a length.

    Attributes:
        model: With values, on the CPU.
        inputs: Inputs of ``generate`` for so many sequences of so many tokens, images apart.
        text: Whether the length is that of a prompt which may be padded on the left.
    """

    model: Any
    inputs: Inputs
    text: bool = True


Build = Callable[[], Generating]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Sizes of a generation: sliding windows of the models are 8 tokens."""

    batch: int
    length: int
    new_tokens: int
    padded: bool = False
    static: bool = False

    def __str__(self) -> str:
        marks = (", padded" if self.padded else "") + (", static" if self.static else "")
        return f"B={self.batch} P={self.length} N={self.new_tokens}{marks}"


RUNS = (
    Run(batch=1, length=6, new_tokens=5),  # the window is crossed in decode
    Run(batch=3, length=7, new_tokens=4),
    Run(batch=3, length=12, new_tokens=3),  # and here in prefill
    Run(batch=3, length=12, new_tokens=3, padded=True),
    Run(batch=1, length=12, new_tokens=3, static=True),
)


@dataclass(frozen=True)
class RealGeneration:
    """What a real ``generate`` did: in all, and from one forward of the model to the next.

    A model whose ``generate`` is that of a part of it never runs its own forward: one step.
    """

    found: Contractions
    gaps: dict[str, tuple[int, int]]
    steps: list[int]


def examine(build: Build, runs: Sequence[Run] = RUNS) -> Row:
    """Generate in each way, count each, and compare; the outcome is the worst of them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.manual_seed(SEED)
            case = build()
            settle(case.model)
        except Exception as error:  # noqa: BLE001 - why it fails is a result
            return {"outcome": "not built", "reason": reason(error)}
        found = {str(run): _examined(case, run) for run in runs if case.text or not run.padded}
    outcomes = Counter(row["outcome"] for row in found.values())
    worst = next(outcome for outcome in SEVERITY if outcomes[outcome])
    return {"outcome": worst, "class": type(case.model).__name__, "runs": found}


SEVERITY = (
    *("differs", "failed", "refused", "incomplete", "oracle", "assumed", "split"),
    *("gap", "equal", "run fails"),
)
"""Outcomes from the worst on; a run that fails says nothing where others do not."""


def settle(model: Any) -> None:
    """Let a model generate as many tokens as it is asked for, greedily."""
    config = model.generation_config
    config.pad_token_id = 0
    unset = (
        *("eos_token_id", "forced_bos_token_id", "forced_eos_token_id", "max_length"),
        *("suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids"),
        *("temperature", "top_p", "top_k"),
    )
    for name in unset:
        setattr(config, name, None)
    config.num_beams, config.do_sample = 1, False


def _examined(case: Generating, run: Run) -> Row:
    inputs = case.inputs(run.batch, run.length)
    if run.padded and "attention_mask" in inputs:
        inputs["attention_mask"][0, :3] = 0
    began = time.perf_counter()
    try:
        ran = generate(case.model, _copied(inputs), run)
    except Exception as error:  # noqa: BLE001 - why it fails is a result
        return {"outcome": "run fails", "reason": reason(error)}
    seconds = {"run": round(time.perf_counter() - began, 2)}
    row: Row = {"run": ran.found.total, "gaps": ran.gaps, "seconds": seconds}
    began = time.perf_counter()
    try:
        report = count(case.model, inputs, run)
        row |= _compared(ran, report)
    except gf.GraphFlopsError as error:
        row |= {"outcome": "refused", "reason": reason(error)}
    except Exception as error:  # noqa: BLE001 - likewise
        row |= {"outcome": "failed", "reason": reason(error)}
    seconds["count"] = round(time.perf_counter() - began, 2)
    return row


def _copied(inputs: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.clone() if isinstance(value, torch.Tensor) else value
        for name, value in inputs.items()
    }


def generate(model: Any, inputs: dict[str, Any], run: Run) -> RealGeneration:
    """A real generation under the oracle."""
    mode, counter = CountingMode(), flop_counter()
    marks: list[int] = []

    def mark(*_: Any) -> None:
        marks.append(mode.found.total)

    options: dict[str, Any] = {"cache_implementation": "static"} if run.static else {}
    handle = model.register_forward_pre_hook(mark)
    try:
        with torch.no_grad(), composite_kernels(), counter, mode:
            model.generate(
                **inputs,
                **options,
                min_new_tokens=run.new_tokens,
                max_new_tokens=run.new_tokens,
                disable_compile=True,
            )
    finally:
        handle.remove()
    # An encoder that runs before the first forward of the model belongs to prefill.
    ends = [*marks[1:], mode.found.total]
    steps = [end - begin for begin, end in zip([0, *marks[1:]], ends, strict=True)]
    return RealGeneration(mode.found, gaps(mode.found, counter), steps)


def count(model: Any, inputs: dict[str, Any], run: Run) -> gf.GenerationReport:
    """The same generation counted."""
    return gf.count_generation(
        model,
        inputs,
        max_new_tokens=run.new_tokens,
        cache="static" if run.static else "dynamic",
        on_unknown="ignore",
    )


def _compared(ran: RealGeneration, report: gf.GenerationReport) -> Row:
    counted = [report.at(token).macs for token in range(1, report.new_tokens + 1)]
    equal = report.macs == ran.found.total
    notes = report.all_notes
    outcome = verdict(ran.found, ran.gaps, equal=equal, complete=report.complete, notes=notes)
    by_step = len(ran.steps) == len(counted)
    if outcome in {"equal", "gap"} and by_step and counted != ran.steps:
        outcome = "split"
    row: Row = {"outcome": outcome}
    if outcome not in {"equal", "gap"}:
        row |= {"counted": str(report.macs), "notes": [*notes]}
        row["steps"] = [[str(ours) for ours in counted], ran.steps]
    if ran.found.unpriced:
        row["unpriced"] = dict(ran.found.unpriced)
    if not report.complete:
        row["unsupported"] = report.unsupported_ops()
    return row
