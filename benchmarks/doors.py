"""Twelve models through all doors: ``python -m benchmarks.doors [MODEL ...] [--render-only]``.

Every graph in which a compiler holds a model is counted, and compared with the count of the model
itself, whose MACs are compared with those of ``FlopCounterMode``. Writes
``benchmarks/results/doors.json`` and ``docs/evidence/doors.md``; with models named, it prints.
"""

from __future__ import annotations

import argparse
import copy
import json
import multiprocessing
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict

import torch
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf
from benchmarks.doors_graphs import DOORS
from benchmarks.doors_models import MODELS, Case, build
from benchmarks.doors_page import page
from benchmarks.doors_results import PAGE, RESULTS, Cell, Reference
from benchmarks.peers import FLOPS_PER_MAC
from benchmarks.results import environment
from graphflops.core.ir import OpRecord, Phase

_PACKAGES = ("torch", "transformers", "torchao")
_WORKERS = 2

_Macs = Counter[tuple[Phase, str]]
"""MACs by phase and module."""


def measure(model: str, doors: Iterable[str] = DOORS) -> tuple[Reference, list[Cell]]:
    """Count a model by itself and through doors."""
    case = build(model)
    expected = _expected(case)
    forward = sum(macs for (phase, _), macs in expected.items() if phase is Phase.FORWARD)
    reference = Reference(
        model=model,
        macs=forward,
        flop_counter_macs=_flop_counter_macs(case),
        backward_macs=expected.total() - forward,
    )
    return reference, [_cell(model, case, door, expected) for door in doors]


def _expected(case: Case) -> _Macs:
    training = gf.count_training(*case, loss=lambda output: output.sum())
    behind = (*training.backward.records, *training.recompute.records)
    return _macs(gf.count(*case).records) + _macs(behind)


def _macs(records: Iterable[OpRecord]) -> _Macs:
    macs: _Macs = Counter()
    for record in records:
        if record.cost is not None and record.cost.macs:
            # The backward of fused attention computes scores again, within one call.
            phase = Phase.FORWARD if record.call.phase is Phase.FORWARD else Phase.BACKWARD
            macs[phase, record.call.module_path] += int(record.cost.macs)
    return macs


def _flop_counter_macs(case: Case) -> int:
    model = copy.deepcopy(case.model).to("meta")
    args = [arg.to("meta") for arg in case.args]
    with (
        torch.no_grad(),
        FakeTensorMode(allow_non_fake_inputs=True),
        FlopCounterMode(display=False) as counter,
    ):
        model(*args)
    return int(counter.get_total_flops()) // FLOPS_PER_MAC


def _cell(model: str, case: Case, door: str, all_expected: _Macs) -> Cell:
    phases = DOORS[door].phases
    expected = Counter({key: macs for key, macs in all_expected.items() if key[0] in phases})
    try:
        reports = DOORS[door].reports(case)
    except Exception as error:  # noqa: BLE001 - the error is the result
        first_line = str(error).strip().partition("\n")[0]
        failure = f"{type(error).__name__}: {first_line}"
        return Cell(model=model, door=door, expected=expected.total(), failure=failure)
    found = sum((_macs(report.records) for report in reports), Counter())
    return Cell(
        model=model,
        door=door,
        macs=found.total(),
        expected=expected.total(),
        missing=(expected - found).total(),
        misplaced=(found - expected).total(),
        phase=tuple(report.phase.value for report in reports),
        unsupported=tuple(op for report in reports for op in report.unsupported_ops()),
    )


def _measure_quietly(model: str) -> tuple[Reference, list[Cell]]:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    return measure(model)


def main() -> None:
    """Measure, save and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=", ".join(MODELS))
    parser.add_argument("--render-only", action="store_true", help="write the page again")
    options = parser.parse_args()
    if not options.render_only:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(_WORKERS, mp_context=context) as pool:
            measured = []
            for reference, row in pool.map(_measure_quietly, options.models or MODELS):
                measured.append((reference, row))
                print(reference, *((cell, *cell.problems()) for cell in row), sep="\n", flush=True)
        if options.models:
            return
        results = {
            "environment": environment(_PACKAGES),
            "references": [asdict(reference) for reference, _ in measured],
            "cells": [asdict(cell) for _, row in measured for cell in row],
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
