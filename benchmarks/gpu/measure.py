"""Measure memory and time on a GPU: ``python -m benchmarks.gpu.measure --output DIR``.

What the files hold is said in the package's docstring. Rows are appended as they are done, the
most important first; whatever does not fit into ``--minutes`` is left out, and ``--resume``
goes on behind the rows that are there without an error.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from benchmarks.gpu import observe, plan
from benchmarks.gpu.cases import CASES
from benchmarks.gpu.device import Cpu, Cuda, Device
from benchmarks.gpu.machine import fill_environment, roofline, settle
from benchmarks.gpu.observe import DRY, Limits
from benchmarks.gpu.plan import GENERATION, TRAINING, Row
from benchmarks.gpu.steps import (
    decode_steps,
    generate_step,
    main_step,
    model_of,
    prefill_step,
    work_of,
)
from benchmarks.gpu.traces import fill_trace, read_histories, write_histories

RESERVED = 0.15  # of the minutes, for traces, which slow down what is launched after them
MOST_LETTERS = 400
GIBI = 1 << 30
Record = dict[str, Any]
Fill = Callable[[Record], None]


def fill(record: Record, row: Row, device: Device, limits: Limits, *, tiny: bool) -> None:
    """Put all measurements of a row into its record, each as soon as it is there."""
    memory = record["memory"] = {"baseline": device.memory()}
    model = model_of(row, device, tiny=tiny)
    record |= _size(model)
    device.clean()  # what building needed beside the weights
    memory["model"] = device.memory()
    work = work_of(row, model, device, tiny=tiny, tokens=limits.tokens)
    record["inputs"] = {
        name: [str(value.dtype).removeprefix("torch."), list(value.shape)]
        for name, value in work.inputs.items()
    }
    optimizer = work.optimizer
    record["optimizer"] = type(optimizer).__name__ if optimizer is not None else None
    memory["inputs"] = device.memory()
    step = partial(main_step(row), work)
    memory["first"] = observe.memory_by_phase(device, step)
    if row.mode == TRAINING:
        memory["second"] = observe.memory_by_phase(device, step)
    memory["steady"] = observe.memory_by_phase(device, step)
    if row.mode == GENERATION:
        prefill, decode = partial(prefill_step, work), partial(decode_steps, work)
        memory["prefill"] = observe.memory_by_phase(device, prefill)
        record["time"] = observe.times(device, prefill, limits)
        record["time"] |= _generation_times(device, decode, partial(generate_step, work))
        _count(record, prefill)
        return
    record["time"] = observe.times(device, step, limits)
    if not row.compiled:  # whose operators no mode sees
        _count(record, step)


def _count(record: Record, step: observe.Step) -> None:
    """Put FLOPs into a record; where torch refuses, why, and what grouped heads amount to."""
    for name, grouped in (("flops", False), ("flops_grouped", True)):
        try:
            record[name] = observe.flops(step, grouped=grouped)
        except Exception as error:  # noqa: BLE001 - what was measured before stands without it
            record.setdefault("flops_error", _sentence(error))
        else:
            return


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".strip()[:MOST_LETTERS]


def _size(model: nn.Module) -> Record:
    """How large a model is, and the attention that it has chosen."""
    parameters, buffers = list(model.parameters()), list(model.buffers())
    config = getattr(model, "config", None)
    return {
        "parameters": sum(parameter.numel() for parameter in parameters),
        "parameter_tensors": len(parameters),
        "parameter_bytes": sum(parameter.nbytes for parameter in parameters),
        "buffer_bytes": sum(buffer.nbytes for buffer in buffers),
        "attention_used": getattr(config, "_attn_implementation", None),
        "experts_used": getattr(config, "_experts_implementation", None),
    }


def _generation_times(device: Device, decode: observe.Step, generate: observe.Step) -> Record:
    """Milliseconds per decoded token, and of a whole generation by the clock."""
    phases = observe.phase_milliseconds(device, decode, 1)
    tokens = [values[0] for phase, values in phases.items() if phase.startswith("decode")]
    return {
        "decode": observe.spread(tokens[1:] or tokens),
        "generate_wall": observe.spread([observe.seconds_of(device, generate) * 1e3]),
    }


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise ``TimeoutError`` inside once the seconds are over.

    Yields:
        Nothing.
    """

    def expire(_signal: int, _frame: FrameType | None) -> None:
        raise TimeoutError(f"longer than {seconds:.0f} s")

    previous = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def completed(record: Record, filled: Fill, device: Device, limits: Limits) -> Record:
    """A record as far as it could be filled, with the error that ended it; memory is free after."""
    start = time.perf_counter()
    try:
        with _time_limit(limits.row):
            filled(record)
    except Exception as error:  # noqa: BLE001 - the next row may well work
        record["error"] = _sentence(error)
    record["seconds"] = round(time.perf_counter() - start, 3)
    device.clean()
    return record


def identity(row: Row, kind: str, *, tiny: bool) -> Record:
    """What a record says of its row before anything is measured."""
    case = CASES[row.case]
    prefix = "" if kind == "measurement" else f"{kind}:"
    return {
        "kind": kind,
        "key": prefix + row.key,
        **dataclasses.asdict(row),
        "library": case.library,
        "model": case.model,
        "config_class": case.config_class,
        "config": case.sizes(tiny=tiny),
    }


class Output:
    """The files of a run.

    Attributes:
        rows: One JSON object per line.
        histories: The allocator's events.
        done: Keys of rows that need not be measured again.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = folder / "measured.jsonl"
        self.histories = folder / "history.json.gz"
        self.done: set[str] = set()
        if resume and self.rows.exists():
            records = map(json.loads, self.rows.read_text().splitlines())
            self.done = {record["key"] for record in records if "error" not in record}
        else:
            self.rows.write_text("")
            self.histories.unlink(missing_ok=True)

    def add(self, record: Record) -> None:
        """Append a row and say so."""
        with self.rows.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(_line(record), flush=True)

    def add_history(self, key: str, history: Record) -> None:
        """Write a row's history beside those that are there."""
        histories = read_histories(self.histories) | {key: history}
        write_histories(self.histories, histories)


def _line(record: Record) -> str:
    """One line about a record."""
    parts = [record["key"]]
    steady = record.get("memory", {}).get("steady", {})
    if steady:
        peak = max(phase["peak_allocated"] for phase in steady.values())
        parts.append(f"{peak / GIBI:.2f} GiB")
    step = record.get("time", {}).get("step")
    if step:
        parts.append(f"{step['median']:.2f} ms")
    if "value" in record:
        parts.append(f"{record['value']} {record['unit']}")
    if "seconds" in record:
        parts.append(f"({record['seconds']:.1f} s)")
    return "  ".join([*parts, record.get("error", "")]).rstrip()


def run(arguments: argparse.Namespace) -> None:
    """Measure what fits into the minutes."""
    start = time.monotonic()
    seconds = 60 * arguments.minutes
    tiny = arguments.dry_run
    device, limits = (Cpu(), DRY) if tiny else (Cuda(), Limits())
    output = Output(arguments.output, resume=arguments.resume)
    _quieten()
    settle()
    if "environment" not in output.done:
        _describe(output, device, limits, tiny=tiny)
    gc.freeze()  # what the libraries hold needs no look between rows
    rows, traced = plan.rows(), plan.traced()
    if tiny:
        rows, traced = plan.tiny(rows), plan.tiny(traced)
    rows = [row for row in rows if arguments.match in row.key]
    traced = [row for row in traced if arguments.match in row.key]
    for row in rows:
        record = identity(row, "measurement", tiny=tiny)
        if time.monotonic() - start > (1 - RESERVED) * seconds:
            break
        if record["key"] not in output.done:
            filled = partial(fill, row=row, device=device, limits=limits, tiny=tiny)
            output.add(completed(record, filled, device, limits))
    for row in traced:
        record = identity(row, "operators", tiny=tiny)
        if time.monotonic() - start > seconds:
            break
        if record["key"] not in output.done:
            _trace(record, row, device, limits, output, tiny=tiny)
    print(f"{time.monotonic() - start:.0f} s")


def _describe(output: Output, device: Device, limits: Limits, *, tiny: bool) -> None:
    """Add the rows of the machine itself."""
    record: Record = {"kind": "environment", "key": "environment"}
    output.add(completed(record, partial(fill_environment, device=device), device, limits))
    try:
        for number in roofline(device, tiny=tiny):
            output.add(number)
    except Exception as error:  # noqa: BLE001 - the models can be measured all the same
        output.add({"kind": "machine", "key": "machine", "error": _sentence(error)})


def _trace(  # noqa: PLR0913 - all that a row needs
    record: Record, row: Row, device: Device, limits: Limits, output: Output, *, tiny: bool
) -> None:
    """Add a row of operators and the history of one step."""

    def filled(inner: Record) -> None:
        history = fill_trace(inner, row, device, limits, tiny=tiny)
        output.add_history(row.key, history)

    output.add(completed(record, filled, device, limits))


def _quieten() -> None:
    """Load transformers, and let it say nothing but errors."""
    import transformers

    transformers.logging.set_verbosity_error()


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=7.0, help="no row begins after them")
    parser.add_argument("--resume", action="store_true", help="skip rows that are there")
    parser.add_argument("--dry-run", action="store_true", help="tiny models on the CPU")
    parser.add_argument("--match", default="", help="only rows whose key contains this")
    arguments = parser.parse_args()
    if not arguments.dry_run and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --dry-run needs none")
    run(arguments)


if __name__ == "__main__":
    main()
