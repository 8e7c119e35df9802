"""Processor time of a count in a fresh process, of graphflops and of ``FlopCounterMode``.

A process imports what it needs and builds the model before the clock starts; what the count itself
would import, it knows from a process before. It then counts once with empty caches, and again
until the time of a warm count is known. No counter pays for garbage
collection, which graphflops pauses while it captures. ``FlopCounterMode`` is timed on the meta
device and under fake tensors; comparisons are with the quicker of the two.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf
from graphflops.capture.record.loss import loss_of
from graphflops.models import Options, resolve
from graphflops.models.prepare_training import TrainingOptions, prepare_training
from graphflops.models.workload import Workload

ROOT = Path(__file__).parents[1]
COUNTERS = ("graphflops", "FlopCounterMode on meta", "FlopCounterMode, fake tensors")
"""Counters that take turns, graphflops first."""
OWN_SLOWER = ("graphflops --no-reuse-layers", "torch.export")
"""What takes longer for the same calls: every layer captured, and the export of the model."""
_WARM_ROUNDS, _WARM_SECONDS = 7, 3.0
Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A count that is timed.

    Attributes:
        build: Function that returns the model and its inputs.
        is_training: True for a training step, False for a forward pass.
        counters: Counters that take turns.
    """

    build: Callable[[], Workload]
    is_training: bool = False
    counters: tuple[str, ...] = COUNTERS


def named(model: str, **options: Any) -> Callable[[], Workload]:
    """Return a function that builds a model by its name."""
    return lambda: resolve(model, Options(**options))


def measured(module: str, title: str, case: Case, rounds: int) -> Row:
    """Time the counters of a case, which take turns, each time in a process of its own.

    Args:
        module: Name of the module whose ``CASES`` has the case.
        title: Title of the case there.
        case: The case.
        rounds: How often each counter is timed.

    Returns:
        Medians of the first and of the warm count in seconds, and the peak of memory over that
        of the process before its first count in MiB, by counter; ``None`` where one fails.
    """
    taken: dict[str, list[dict[str, Any]]] = {counter: [] for counter in case.counters}
    first = {counter: _in_fresh_process(module, title, counter, ()) for counter in taken}
    for _ in range(rounds):
        for counter, times in taken.items():
            if (before := first[counter]) is None:
                continue
            found = _in_fresh_process(module, title, counter, before["imports"])
            if found is not None:
                times.append(found)
    row: Row = {"case": title, "rounds": rounds}
    for figure in ("first", "warm", "peak_mib"):
        row[figure] = {
            counter: round(statistics.median(once[figure] for once in times), 4) if times else None
            for counter, times in taken.items()
        }
    return row


def ratio(seconds: Mapping[str, float | None]) -> float | None:
    """Time of graphflops over that of the quicker ``FlopCounterMode``."""
    ours, theirs = seconds[COUNTERS[0]], quicker(seconds)
    return None if ours is None or theirs is None else ours / theirs


def quicker(seconds: Mapping[str, float | None]) -> float | None:
    """Time of the quicker ``FlopCounterMode``."""
    return min((t for name in COUNTERS[1:] if (t := seconds[name]) is not None), default=None)


def shown(value: float | None, unit: str = "") -> str:
    """Text of a figure; none for what could not be counted."""
    return "" if value is None else f"{value:.3f}{unit}"


def arguments(description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Return the options that benchmarks of counts share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--only", metavar="PART", help="measure only cases with this in the title")
    parser.add_argument(
        "--rounds", type=int, default=rounds, help="how often counters take turns (%(default)s)"
    )
    return parser


def _in_fresh_process(
    module: str, title: str, counter: str, imports: Sequence[str]
) -> dict[str, Any] | None:
    """Return what a process prints that counts; ``None`` if it fails."""
    # Modules that are imported late come from bytecode, as in any installed package.
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(  # noqa: S603 - this very script
        [sys.executable, "-m", "benchmarks.count_time", module, title, counter],
        input=" ".join(imports),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=variables,
    )
    if done.returncode:
        print(f"{counter}, {title}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Time one counter of one case in this process."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("module", "title", "counter"):
        parser.add_argument(name)
    options = parser.parse_args(given)
    case: Case = importlib.import_module(options.module).CASES[options.title]
    workload = case.build()
    if case.is_training:
        workload = prepare_training(workload, TrainingOptions(evaluating=True))
    for name in sys.stdin.read().split():
        with contextlib.suppress(ImportError):  # made by another module, which is among them
            importlib.import_module(name)
    known = set(sys.modules)
    gc.collect()
    gc.disable()
    before = _restart_peak()
    first = _seconds(workload, options.counter, is_training=case.is_training)
    peak = _memory("VmHWM") - before
    imports = [name for name in sys.modules if name not in known]
    warm: list[float] = []
    while len(warm) < _WARM_ROUNDS and sum(warm) < _WARM_SECONDS:
        gc.collect()
        warm.append(_seconds(workload, options.counter, is_training=case.is_training))
    found = {"first": first, "warm": statistics.median(warm), "peak_mib": peak}
    print(json.dumps({**found, "imports": imports}))


def _seconds(workload: Workload, counter: str, *, is_training: bool) -> float:
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, lambda tensor: tensor.to("meta"), (workload.args, dict(workload.kwargs))
    )
    start = time.process_time()
    _count(workload.model, args, kwargs, counter, is_training=is_training)
    return time.process_time() - start


def _count(
    model: torch.nn.Module, args: Any, kwargs: Any, counter: str, *, is_training: bool
) -> None:
    if counter.startswith("graphflops"):
        count = gf.count_training if is_training else gf.count
        reuse = "no-reuse" not in counter
        _ = count(model, args, kwargs, reuse_layers=reuse, on_unknown="ignore").total
        return
    if counter == "torch.export":
        with torch.no_grad():
            torch.export.export(model, args, kwargs, strict=False)
        return
    # Masks of transformers read values: fake tensors let code pass that meta ones do not.
    fake = (
        FakeTensorMode(allow_non_fake_inputs=True)
        if "fake" in counter
        else contextlib.nullcontext()
    )
    with torch.set_grad_enabled(is_training), fake, FlopCounterMode(display=False) as flops:
        out = model(*args, **kwargs)
        if is_training:
            loss_of(out, None)[0].backward()  # type: ignore[no-untyped-call]  # torch's gap
    for parameter in model.parameters():
        parameter.grad = None
    flops.get_total_flops()


def _restart_peak() -> float:
    """Return the memory in use, from which the peak counts on."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _memory("VmRSS")


def _memory(entry: str) -> float:
    """Return an entry of this process's status in MiB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition(f"{entry}:")[2].split()[0]) / 1024


if __name__ == "__main__":
    main()
