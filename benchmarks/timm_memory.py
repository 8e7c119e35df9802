"""Predicted against measured memory of training timm models: ``python -m benchmarks.timm_memory``.

`measured/timm_memory.csv` has the MiB that the process of timm's training script takes on a GPU of
40 GiB, in float32, at each model's own image size and batches of 8 to 128. GPUMemNet's authors
measured them (arXiv 2602.17817; data under CC BY-NC 4.0). What is assumed of the script are its
defaults: SGD with momentum, no dropout beside what a model has of its own, cross entropy with a
smoothing of 0.1, no mixed precision, and a loader that puts the next batch on the GPU while the
last one is trained on, in a stream of its own: as bytes, then as floats.

Every size in a count is a number of bytes for each image, or fixed. A batch of 61 images tells the
two apart, and one count gives the requests of all batches; the caching allocator is simulated for
each. Workspaces of cuDNN are requested as Winograd's would be. What is beside the allocator in the
process (context and kernels) is one constant.

Counts are added to ``benchmarks/results/timm_memory.jsonl``, where a run goes on; ``--report``
compares what is there. Models are taken in an order that says nothing of them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import signal
import time
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from tabulate import tabulate
from torch.nn import functional

import graphflops as gf
from graphflops.analysis.allocator_memory import Request, RequestTrace, under_allocator
from graphflops.analysis.caching_allocator import CachingAllocator
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.core.storage_events import StorageKind
from graphflops.models import Options, resolve
from graphflops.models.optional_dependencies import repair_torchvision

MEASURED = Path(__file__).parent / "measured" / "timm_memory.csv"
RESULTS = Path(__file__).parent / "results" / "timm_memory.jsonl"
BATCHES = (8, 16, 32, 64, 128)
COUNTED_BATCH = 61
"""A prime that no model has as a width."""
COLOURS = 3
CONVOLUTIONS = ("aten::convolution", "aten::convolution_backward")
SECONDS = 150
MIB = 1 << 20
LARGEST = 39_000
"""MiB up to which a measurement is taken as not held back by the GPU's memory of 40 GiB."""
CARD = 40_363
"""MiB that a process can take of it: the most that was measured."""
CLOSE = 0.1
CONTEXT = 1_870
"""MiB of the process beside the allocator: the median over the models that fit."""

Row = dict[str, Any]


def measured() -> dict[str, dict[int, float]]:
    """Return the MiB that were measured, by model and batch."""
    table: defaultdict[str, dict[int, float]] = defaultdict(dict)
    with MEASURED.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            table[row["model"]][int(row["batch"])] = float(row["mebibytes"])
    return dict(table)


def fits(values: dict[int, float]) -> bool:
    """Return True for a model that fits on the GPU.

    That is, if it takes more memory for every larger batch, and less than the GPU has for the
    largest. A run that ends for want of memory leaves any figure behind, and the search for
    convolution kernels in the first step may have been sampled at one batch.
    """
    series = [values[batch] for batch in BATCHES]
    return series == sorted(set(series)) and series[-1] < LARGEST


def predict(name: str) -> Row:
    """Count a training step of a model, and simulate the allocator for each batch."""
    start = time.perf_counter()
    overrides = {"drop_rate": 0.0}  # what the script passes
    workload = resolve(f"timm:{name}", Options(batch_size=COUNTED_BATCH, overrides=overrides))
    step = gf.count_training(
        workload.model.train(), (), workload.kwargs, loss=_loss, optimizer="momentum"
    )
    calls = [record.call for part in step.parts for record in part.records]
    trace = step.memory.requests
    trace = replace(trace, requests=with_workspaces(trace.requests, workspaces(calls)))
    predictions = {batch: predict_batch(at_batch(trace, batch)) for batch in BATCHES}
    return {"model": name, "predicted": predictions, "seconds": time.perf_counter() - start}


def _loss(output: Any) -> torch.Tensor:
    scores = output if isinstance(output, torch.Tensor) else output[0]
    target = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    return functional.cross_entropy(scores, target, label_smoothing=0.1)


def workspaces(calls: Iterable[OpCall]) -> dict[int, int]:
    """Return the bytes of cuDNN's workspaces by the index of the call.

    Those of convolutions with kernels of 3 x 3 by non-fused Winograd of tiles of 4 x 4: the
    transforms of inputs and results have 36 numbers for every 16. Which algorithm cuDNN finds the
    fastest is not known; the others need less, or none.
    """
    found = {}
    for call in calls:
        if call.op in CONVOLUTIONS and _is_winograd(call):
            images, result = (dict(call.tensors())["input"], _result(call))
            found[call.index] = (int(images.nbytes) + int(result.nbytes)) * 36 // 16
    return found


def _result(call: OpCall) -> TensorMeta:
    """Return the result of a convolution, or the gradient of it."""
    return dict(call.tensors()).get("grad_output", call.outputs[0])


def _is_winograd(call: OpCall) -> bool:
    (_, channels, *kernel), attrs = dict(call.tensors())["weight"].shape, call.attrs
    steps: Any = attrs["stride"], attrs["dilation"]
    is_dense = attrs["groups"] == 1 and channels > COLOURS
    return is_dense and kernel == [3, 3] and all(step == 1 for axes in steps for step in axes)


def with_workspaces(requests: Sequence[Request], sizes: dict[int, int]) -> list[Request]:
    """Return requests with those of workspaces, which follow the results of the call."""
    result: list[Request] = []
    waiting = sorted(sizes, reverse=True)
    for request in requests:
        while waiting and request.call > waiting[-1]:
            index = waiting.pop()
            storage = -1 - index
            result += [Request(index, storage, sizes[index]), Request(index, storage, None)]
        result.append(request)
    return result


def at_batch(trace: RequestTrace, batch: int) -> RequestTrace:
    """Return the requests of a step on another number of images."""

    def scaled(nbytes: int | None) -> int | None:
        if not nbytes or nbytes % COUNTED_BATCH:
            return nbytes
        return nbytes // COUNTED_BATCH * batch

    requests = [request._replace(nbytes=scaled(request.nbytes)) for request in trace.requests]
    return replace(trace, requests=requests)


def predict_batch(trace: RequestTrace) -> dict[str, float]:
    """Return the MiB of live tensors and of the reserve, with those of the loader."""
    inputs = [r for r in trace.requests if r.kind is StorageKind.INPUT]
    images = sum(request.nbytes or 0 for request in inputs)
    names = {request.storage for request in inputs}
    # The loader has blocks of its own: those of another stream are not reused.
    own = replace(trace, requests=[r for r in trace.requests if r.storage not in names])
    reserved = under_allocator(own).reserved + loader_reserve(images)
    return {"live": live_bytes(trace) / MIB, "reserved": reserved / MIB}


def loader_reserve(images: int) -> int:
    """Return what the loader's stream reserves for batches of some bytes as floats."""
    allocator = CachingAllocator()
    current = None
    for _ in range(3):
        as_bytes = allocator.allocate(images // 4)
        following = allocator.allocate(images)
        allocator.free(as_bytes)
        if current is not None:
            allocator.free(current)
        current = following
    return allocator.peak_reserved


def live_bytes(trace: RequestTrace) -> int:
    """Return the most bytes of tensors that are alive at once, workspaces left out."""
    alive: dict[int, int] = {}
    level = peak = sum(trace.state)
    for _, storage, nbytes, _ in trace.requests:
        if storage < 0:
            continue
        if nbytes is None:
            level -= alive.pop(storage)
        else:
            alive[storage] = nbytes
            level += nbytes
            peak = max(peak, level)
    return peak


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in the block after some seconds."""

    def expire(*_: object) -> None:
        msg = f"not counted in {seconds} s"
        raise TimeoutError(msg)

    before = signal.signal(signal.SIGALRM, expire)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def count(names: Sequence[str]) -> None:
    """Count the models that are not in the results yet."""
    repair_torchvision()
    import timm

    done = {row["model"] for row in results()}
    for name in names:
        if name in done:
            continue
        row: Row = {"model": name}
        try:
            if timm.is_model(name):
                with time_limit(SECONDS):
                    row = predict(name)
            else:
                row["failure"] = f"timm {timm.__version__} has no such model"
        except Exception as error:  # noqa: BLE001 - any failure is a row
            row["failure"] = f"{type(error).__name__}: {error}"[:200]
        with RESULTS.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def results() -> list[Row]:
    """Return the rows so far."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()]


def order(table: dict[str, dict[int, float]]) -> list[str]:
    """Return the models in an order that is the same everywhere and says nothing of them."""
    return sorted(table, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def slope_errors(rows: Iterable[Row], table: dict[str, dict[int, float]], key: str) -> list[float]:
    """Return the relative errors of the MiB per image, of the models that fit."""
    first, last = BATCHES[0], BATCHES[-1]
    errors = []
    for row in rows:
        values, found = table[row["model"]], row["predicted"]
        if fits(values):
            slope = found[str(last)][key] - found[str(first)][key]
            errors.append(slope / (values[last] - values[first]) - 1)
    return errors


def total_errors(
    rows: Iterable[Row], table: dict[str, dict[int, float]], *, only_fitting: bool = False
) -> list[float]:
    """Return the relative errors of all rows, with one constant and the GPU's limit."""
    return [
        min(row["predicted"][str(batch)]["reserved"] + CONTEXT, CARD) / value - 1
        for row in rows
        if fits(table[row["model"]]) or not only_fitting
        for batch, value in table[row["model"]].items()
    ]


def table() -> str:
    """Return how far the predictions are off."""
    values, rows_by_name = measured(), {row["model"]: row for row in results()}
    rows = [row for row in rows_by_name.values() if "predicted" in row]
    first = [rows_by_name[name] for name in takewhile(rows_by_name.__contains__, order(values))]
    first = [row for row in first if "predicted" in row]
    found = {
        "slope per image, live tensors": slope_errors(rows, values, "live"),
        "slope per image, reserved": slope_errors(rows, values, "reserved"),
        "memory, models that fit": total_errors(rows, values, only_fitting=True),
        f"memory, the first {len(first)} models of the order": total_errors(first, values),
    }
    headers = ("figure", "median error", "within 10%", "number")
    return tabulate([_sums(*item) for item in found.items()], headers, tablefmt="github")


def _sums(what: str, errors: Sequence[float]) -> tuple[str, str, str, int]:
    sizes = [abs(error) for error in errors]
    within = mean(size <= CLOSE for size in sizes)
    return what, f"{median(sizes):.1%}", f"{within:.0%}", len(sizes)


def constants() -> list[float]:
    """Return the MiB that are missing in the predictions, of the models that fit."""
    values = measured()
    return [
        values[row["model"]][batch] - row["predicted"][str(batch)]["reserved"]
        for row in results()
        if "predicted" in row and fits(values[row["model"]])
        for batch in BATCHES
    ]


def main() -> None:
    """Count, unless told otherwise, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="models; by default all")
    parser.add_argument("--report", action="store_true", help="count nothing")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if not options.report:
        count(options.names or order(measured()))
    print(table())
    print(f"beside the reserve: {median(constants()):.0f} MiB at the median")


if __name__ == "__main__":
    main()
