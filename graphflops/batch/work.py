"""The work of one item: a model built, counted and put into a record, in a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from graphflops import models
from graphflops.analysis.call_time import Seconds
from graphflops.batch.failures import Stage, failure_of
from graphflops.batch.item import Item, Mode
from graphflops.batch.record import failed_record, make_record
from graphflops.core.cost import OpCost
from graphflops.counting.forward import count
from graphflops.counting.generation import count_generation
from graphflops.counting.training import count_training
from graphflops.models.inputs import floating_dtype
from graphflops.models.prepare_training import TrainingOptions, prepare_training
from graphflops.render import data
from graphflops.reports.base import CostReport
from graphflops.reports.report import Report
from graphflops.runtime.patches import QUIET

_PATTERN = "*?["


def match_names(patterns: Iterable[str], dtypes: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the names of models that patterns match, each once, where items are counted.

    Args:
        patterns: Names, and globs such as ``timm:resnet*``.
        dtypes: Names of floating-point types to check.

    Returns:
        The names, and a sentence for each scheme whose package is missing or broken.

    Raises:
        ModelSpecError: A pattern matches no name, or there is no such dtype.

    Example:
        >>> match_names(["hf:bert", "torchvision:raft_*"], [])[0]
        ['hf:bert', 'torchvision:raft_large', 'torchvision:raft_small']
    """
    names: dict[str, None] = {}
    problems: dict[str, None] = {}
    with QUIET.holding():
        for dtype in dtypes:
            floating_dtype(dtype)
        for pattern in patterns:
            found: list[str] = [pattern]
            errors: list[str] = []
            if any(sign in pattern for sign in _PATTERN):
                matches, errors = models.search(pattern)
                found = [*matches]
            names |= dict.fromkeys(found)
            problems |= dict.fromkeys(errors)
    return [*names], [*problems]


def count_item(item: Item) -> dict[str, Any]:
    """Return the record of an item, whatever happens within this process."""
    stage = Stage.BUILD
    try:
        with QUIET.holding():
            workload = _resolve(item)
            stage = Stage.COUNT
            report, notes, figures = _COUNTS[item.mode](workload, item)
            return make_record(item, report, (*workload.notes, *notes)) | figures
    except (Exception, SystemExit) as error:  # noqa: BLE001 - why an item fails is its result
        return failed_record(item, failure_of(error, stage))


def _resolve(item: Item) -> models.Workload:
    options = models.Options(
        batch_size=item.batch_size,
        seq_len=item.seq_len,
        image_size=item.image_size,
        dtype=item.dtype,
        overrides=item.overrides,
        generates=item.mode is Mode.GENERATE,
        trains=item.mode is Mode.TRAIN,
    )
    workload = models.resolve(item.model, options)
    return prepare_training(workload, TrainingOptions()) if item.mode is Mode.TRAIN else workload


_Counted = tuple[CostReport, tuple[str, ...], dict[str, Any]]
"""A report, its notes, and what its record has beside the totals."""


def _forward(workload: models.Workload, item: Item) -> Report:
    return count(
        workload.model,
        workload.args,
        workload.kwargs,
        convention=item.convention or "exact",
        on_unknown="ignore",
    )


def _count(workload: models.Workload, item: Item) -> _Counted:
    report = _forward(workload, item)
    return report, report.notes, {}


def _train(workload: models.Workload, item: Item) -> _Counted:
    report = count_training(
        workload.model,
        workload.args,
        workload.kwargs,
        convention=item.convention or "exact",
        on_unknown="ignore",
    )
    phases = {part.phase.value: data.cost_dict(part.total) for part in report.parts}
    return report, report.notes, {"training": {"loss": report.loss, **phases}}


def _generate(workload: models.Workload, item: Item) -> _Counted:
    report = count_generation(
        workload.model,
        dict(workload.kwargs),
        max_new_tokens=item.new_tokens or 1,
        convention=item.convention or "exact",
        on_unknown="ignore",
    )
    decode = sum((d.summed(d.report.total) for d in report.decode_segments), start=OpCost())
    generation = {
        "prompt_tokens": report.sizes.get("P"),
        "prefill": data.cost_dict(report.prefill.total),
        "decode": data.cost_dict(decode),
        "kv_cache_bytes": data.number(report.kv_cache_bytes),
        "kv_cache_bytes_per_token": data.number(report.kv_cache_bytes_per_token),
    }
    return report, report.all_notes, {"generation": generation}


def _memory(workload: models.Workload, item: Item) -> _Counted:
    report = _forward(workload, item)
    memory = report.memory
    peaks = {"peak": data.number(memory.peak), "last_use_peak": data.number(memory.last_use_peak)}
    return report, report.notes, {"memory": {**peaks, "categories": memory.by_category()}}


def _time(workload: models.Workload, item: Item) -> _Counted:
    report = _forward(workload, item)
    time = report.time(item.device or "")
    seconds = {"bound": _number(time.bound), "expected": _number(time.expected)}
    return report, report.notes, {"time": seconds}


def _number(seconds: Seconds) -> float | str:
    return seconds if isinstance(seconds, int | float) else str(seconds)


_COUNTS: dict[Mode, Callable[[models.Workload, Item], _Counted]] = {
    Mode.COUNT: _count,
    Mode.TRAIN: _train,
    Mode.GENERATE: _generate,
    Mode.MEMORY: _memory,
    Mode.TIME: _time,
}
