"""One model of the zoo: built, counted, compared. What a worker does."""

from __future__ import annotations

import contextlib
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from itertools import chain, zip_longest
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.failures import kind, reason

if TYPE_CHECKING:
    from graphflops.models import Options, Workload
    from graphflops.reports.report import Report

MODES = ("forward", "training", "generation")
NEW_TOKENS = 16
"""Of a generation; the prompt is as long as ``graphflops generate NAME`` makes it."""
DEPTH = 4
"""Layers of the quick form."""
SAMPLE = 300
"""Models of timm."""
_TASKS = {"classification", "segmentation", "detection", "video", "optical flow"}
_GENERATING = {
    "speech": "MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES",
    "image-text": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES",
    "sequence to sequence": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES",
    "causal": "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES",
}


def start(sources: Sequence[str]) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
    """Names to try, each with what transformers lists it as, and facts to note."""
    from benchmarks import zoo_preload
    from benchmarks.sweep import MEMORY_GIB
    from graphflops.models import known

    names = listed_models(sources)
    found = Counter(name.partition(":")[0] for name in known(sources)[0])
    facts = {
        "listed": dict(found),
        "preload": round(zoo_preload.SECONDS, 2),
        "memory_limit_gib": MEMORY_GIB,
        "depth": DEPTH,
        "new_tokens": NEW_TOKENS,
    }
    return names, facts


def listed_models(sources: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Names of models, each with whether ``AutoModel`` has a class for it and what generates."""
    from transformers.models.auto import modeling_auto

    from graphflops.models import known

    listed: dict[str, dict[str, str]] = {source: {} for source in sources}
    for name, what in known(listed)[0].items():
        listed[name.partition(":")[0]][name] = what
    auto = {f"hf:{name}" for name in modeling_auto.MODEL_MAPPING_NAMES}
    generating = {
        f"hf:{name}": task
        for task, names in reversed(_GENERATING.items())
        for name in getattr(modeling_auto, names)
    }
    names = [
        # A sweep that is cut short has those first that AutoModel has a class for.
        *sorted(listed.get("hf", {}), key=lambda name: name not in auto),
        *_sample(listed.get("timm", {})),
        *(name for name, task in listed.get("torchvision", {}).items() if task in _TASKS),
    ]
    return {
        name: {"auto": name in auto, "generates": generating.get(name, "others")} for name in names
    }


def may_generate(name: str) -> bool:
    """Whether a model is of a library that has models that generate."""
    return name.startswith("hf:")


def _sample(homes: Mapping[str, str]) -> list[str]:
    """So many names, of each family in turn."""
    families: dict[str, list[str]] = {}
    for name, home in sorted(homes.items()):
        families.setdefault(home, []).append(name)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [name for name in turns if name is not None][:SAMPLE]


def examine(mode: str, name: str, quick: bool, limit: float) -> dict[str, Any]:
    """Build a model and count it; the quick form at its own depth if it takes no other.

    Args:
        mode: One of :data:`MODES`.
        name: As ``graphflops count`` takes it.
        quick: Whether to cut the depth.
        limit: Seconds there are for all of it.
    """
    from graphflops.runtime.patches import QUIET

    end = time.perf_counter() + limit
    row: dict[str, Any] = {}
    with QUIET.holding():
        for cut in (True, False) if quick else (False,):
            row = _examine(mode, name, end, cut=cut)
            if row["outcome"] not in {"not built", "refused", "inputs do not fit"}:
                break
    return row


def _examine(mode: str, name: str, end: float, *, cut: bool) -> dict[str, Any]:
    from benchmarks.record_digests import digests
    from benchmarks.zoo_real_run import fails_alike
    from graphflops.models import resolve

    seconds: dict[str, float] = {}
    found: dict[str, Any] = {"seconds": seconds}
    with _imports_timed(seconds):
        try:
            with _timed(seconds, "build"):
                overrides = shallow(name) if cut else {}
                found["cut"] = bool(overrides)
                workload = resolve(name, options_of(mode, overrides))
            found |= _asked(workload)
            with _timed(seconds, "count"):
                reports, figures, compare = _COUNTS[mode](workload)
        except Exception as error:  # noqa: BLE001 - why a model is not counted is a result
            found |= {"outcome": kind(error), "reason": reason(error)}
            if found["outcome"] in _FAILS_IN_RUNNING:
                with _timed(seconds, "real run"):
                    ways = [options_of(mode, cuts) for cuts in (shallow(name), {})]
                    found["real_run"] = fails_alike(mode, name, ways, error, end)
            return found
    notes = [*found["notes"], *figures.pop("notes")]
    found |= {"outcome": "counted"} | figures | {"notes": notes}
    with _timed(seconds, "digest"):
        found["digests"] = digests(reports)
    if compare is not None:
        with _timed(seconds, "compare"):
            found["flop_counter"] = compare(end)
    return found


_FAILS_IN_RUNNING = {"inputs do not fit", "not captured", "refused"}
Counted = tuple[Sequence["Report"], dict[str, Any], Callable[[float], dict[str, Any]] | None]
"""Reports on the parts, figures, and what compares them with another counter."""


def _forward(workload: Workload) -> Counted:
    import graphflops as gf
    from benchmarks.zoo_peer import compare

    report = gf.count(workload.model, workload.args, workload.kwargs, on_unknown="ignore")
    figures = _figures([report]) | {"method": report.capture.method}
    return [report], figures, lambda end: compare(report, workload, end)


def _training(workload: Workload) -> Counted:
    import graphflops as gf
    from benchmarks.zoo_peer import compare_training
    from graphflops.models.prepare_training import TrainingOptions, prepare_training

    workload = prepare_training(workload, TrainingOptions())
    report = gf.count_training(workload.model, workload.args, workload.kwargs, on_unknown="ignore")
    figures = _figures(report.parts) | {"loss": report.loss, "notes": [*report.notes]}
    return report.parts, figures, lambda end: compare_training(report, workload, end)


def _generation(workload: Workload) -> Counted:
    import graphflops as gf

    report = gf.count_generation(
        workload.model, dict(workload.kwargs), max_new_tokens=NEW_TOKENS, on_unknown="ignore"
    )
    parts = [report.prefill, *(graph.report for graph in report.decode_graphs)]
    return parts, _figures(parts) | _totals(report) | {"notes": [*report.all_notes]}, None


_COUNTS: dict[str, Callable[[Workload], Counted]] = {
    "forward": _forward,
    "training": _training,
    "generation": _generation,
}


@contextlib.contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    begin = time.perf_counter()
    try:
        yield
    finally:
        seconds[stage] = round(time.perf_counter() - begin, 2)


@contextlib.contextmanager
def _imports_timed(seconds: dict[str, float]) -> Iterator[None]:
    """Note how long the code of modules runs when they are imported: part of other stages."""
    execute = SourceFileLoader.exec_module
    spans: list[float] = []
    nested = 0

    def timed(loader: SourceFileLoader, module: ModuleType) -> None:
        nonlocal nested
        begin, nested = time.perf_counter(), nested + 1
        try:
            execute(loader, module)
        finally:
            nested -= 1
            if not nested:
                spans.append(time.perf_counter() - begin)

    with mock.patch.object(SourceFileLoader, "exec_module", timed):
        try:
            yield
        finally:
            seconds["import"] = round(sum(spans), 2)


def shallow(name: str) -> dict[str, Any]:
    """Config overrides that cut the depth, in a transformers config and its parts."""
    source, _, model_type = name.partition(":")
    if source != "hf":
        return {}
    import transformers

    try:
        return dict(_cuts(transformers.CONFIG_MAPPING[model_type.partition("@")[0]]().to_dict()))
    except Exception:  # noqa: BLE001 - it is said again when the model is built
        return {}


_DEPTHS = re.compile(r"depth|((num|n|encoder|decoder)_)*(hidden_)?layers?")


def _cuts(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    named = {key: value for key, value in config.items() if isinstance(key, str)}
    depths = {
        key: value
        for key, value in named.items()
        if _DEPTHS.fullmatch(key) and isinstance(value, int) and value > DEPTH
    }
    for key, value in named.items():
        if key in depths:
            yield prefix + key, DEPTH
        elif isinstance(value, dict) and key.endswith("_config") and value.get("model_type"):
            yield from _cuts(value, f"{prefix}{key}.")
        elif isinstance(value, list) and key == "depths":
            yield prefix + key, [min(depth, DEPTH) for depth in value]
        elif isinstance(value, list) and len(value) in depths.values():
            # One entry a layer: what kind of layer it is.
            yield prefix + key, value[:DEPTH]


def options_of(mode: str, overrides: Mapping[str, Any]) -> Options:
    """Options of a model in a mode."""
    from graphflops.models import Options

    return Options(overrides=overrides, generates=mode == "generation", trains=mode == "training")


def _asked(workload: Workload) -> dict[str, Any]:
    return {
        "class": type(workload.model).__name__,
        "inputs": {name: _described(value) for name, value in workload.kwargs.items()},
        "notes": workload.notes,
    }


def _described(value: Any) -> Any:
    import torch
    from torch.utils import _pytree as pytree

    def described(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return f"{str(leaf.dtype).removeprefix('torch.')}{list(leaf.shape)}"
        return leaf if isinstance(leaf, int | float | str | None) else type(leaf).__name__

    return pytree.tree_map(described, value)


def _figures(reports: Iterable[Report]) -> dict[str, Any]:
    parts = [*reports]
    statuses: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    for part in parts:
        statuses.update({status.value: calls for status, calls in part.coverage.items()})
        unknown.update(part.unsupported_ops())
    return {
        "calls": sum(len(part.records) for part in parts),
        "statuses": dict(statuses),
        "unknown": dict(unknown),
        "notes": [*parts[0].capture.notes],
        **_totals(sum((part.total for part in parts[1:]), start=parts[0].total)),
    }


def _totals(cost: Any) -> dict[str, Any]:
    """Multiply-accumulates and FLOPs; as text where they have symbols."""
    totals = {"macs": cost.macs, "flops": cost.flops}
    return {name: int(t) if getattr(t, "is_number", True) else str(t) for name, t in totals.items()}
