"""One model of the zoo: built, counted, compared. What a worker does."""

from __future__ import annotations

import contextlib
import re
import resource
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import SourceFileLoader
from itertools import chain, zip_longest
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest import mock

if TYPE_CHECKING:
    from graphflops.models import Workload
    from graphflops.report import Report

MEMORY_GIB = 8
"""Memory that a worker may write to, with what the server has imported."""
DEPTH = 4
"""Layers of the quick form."""
SAMPLE = 300
"""Models of timm."""
LONGEST_REASON = 300
_TASKS = {"classification", "segmentation", "detection", "video", "optical flow"}


def limit_memory() -> None:
    """Let allocations fail beyond the limit, in this process."""
    size = MEMORY_GIB << 30
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def start(sources: Iterable[str]) -> tuple[dict[str, bool], dict[str, Any]]:
    """Names to try, each with whether ``AutoModel`` has a class for it, and facts to note."""
    from transformers.models.auto import modeling_auto

    from benchmarks import zoo_preload
    from graphflops.models import known

    listed: dict[str, dict[str, str]] = {source: {} for source in sources}
    for name, what in known(listed)[0].items():
        listed[name.partition(":")[0]][name] = what
    auto = {f"hf:{name}" for name in modeling_auto.MODEL_MAPPING_NAMES}
    names = [
        # A sweep that is cut short has those first that AutoModel has a class for.
        *sorted(listed.get("hf", {}), key=lambda name: name not in auto),
        *_sample(listed.get("timm", {})),
        *(name for name, task in listed.get("torchvision", {}).items() if task in _TASKS),
    ]
    facts = {
        "listed": {source: len(found) for source, found in listed.items()},
        "preload": round(zoo_preload.SECONDS, 2),
        "memory_limit_gib": MEMORY_GIB,
        "depth": DEPTH,
    }
    return {name: name in auto for name in names}, facts


def _sample(homes: Mapping[str, str]) -> list[str]:
    """So many names, of each family in turn."""
    families: dict[str, list[str]] = {}
    for name, home in sorted(homes.items()):
        families.setdefault(home, []).append(name)
    turns = chain.from_iterable(zip_longest(*families.values()))
    return [name for name in turns if name is not None][:SAMPLE]


def examine(name: str, quick: bool, limit: float) -> dict[str, Any]:
    """Build a model and count it; the quick form at its own depth if it takes no other.

    Args:
        name: As ``graphflops count`` takes it.
        quick: Whether to cut the depth.
        limit: Seconds there are for all of it.
    """
    from graphflops.process import QUIET

    end = time.perf_counter() + limit
    row: dict[str, Any] = {}
    with QUIET.holding():
        for cut in (True, False) if quick else (False,):
            row = _examine(name, end, cut=cut)
            if row["outcome"] not in {"not built", "refused", "inputs do not fit"}:
                break
    return row


def _examine(name: str, end: float, *, cut: bool) -> dict[str, Any]:
    import graphflops as gf
    from benchmarks.zoo_peer import compare
    from graphflops.models import Options, resolve

    seconds: dict[str, float] = {}
    found: dict[str, Any] = {"seconds": seconds}
    with _imports_timed(seconds):
        try:
            with _timed(seconds, "build"):
                overrides = shallow(name) if cut else {}
                found["cut"] = bool(overrides)
                workload = resolve(name, Options(overrides=overrides))
            found |= _asked(workload)
            with _timed(seconds, "count"):
                report = gf.count(
                    workload.model, workload.args, workload.kwargs, on_unknown="ignore"
                )
        except Exception as error:  # noqa: BLE001 - why a model is not counted is a result
            return found | {"outcome": _outcome(error), "reason": reason(error)}
    found |= _figures(report)
    found["notes"] += report.capture.notes
    with _timed(seconds, "compare"):
        found["flop_counter"] = compare(report, workload, end)
    return found


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


def _figures(report: Report) -> dict[str, Any]:
    return {
        "outcome": "counted",
        "method": report.capture.method,
        "calls": len(report.records),
        "statuses": {status.value: calls for status, calls in report.coverage.items()},
        "unknown": report.unsupported_ops(),
        "macs": report.macs if isinstance(report.macs, int) else str(report.macs),
        "flops": report.flops if isinstance(report.flops, int) else str(report.flops),
    }


_NO_MEMORY = re.compile(r"MemoryError|an't allocate memory|annot allocate memory|bad_alloc")
_NEEDS = re.compile(r"requires the (\S+) library|No module named '(\w+)")
_OUTCOMES = {
    "no model that is built from it alone": "no class",
    "cannot build": "not built",
    "cannot be built": "not built",
    "fails on these inputs": "inputs do not fit",
    "cannot be captured": "not captured",
}


def _outcome(error: Exception) -> str:
    from graphflops.errors import CaptureError, ModelSpecError

    if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
        return "out of memory"
    if needed := _NEEDS.search(str(error)):
        return f"needs {needed[1] or needed[2]}"
    told = isinstance(error, CaptureError | ModelSpecError)
    said = (outcome for text, outcome in _OUTCOMES.items() if told and text in str(error))
    return next(said, "refused" if told else "failed")


def reason(error: BaseException) -> str:
    """Type and first line, without folders of this machine."""
    line = next(iter(str(error).strip().splitlines()), "no message")
    line = re.sub(r"Model type should be one of .*?\. ", "", line)
    line = re.sub(r"(?<![\w.])(?:/[\w.@+-]+)+/(?=[\w.-])", "", line)
    return f"{type(error).__name__}: {line}"[:LONGEST_REASON]
