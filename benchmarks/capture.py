"""How long a count takes beside others: ``python -m benchmarks.capture``.

graphflops with and without repeated layers, plain ``torch.export`` and ``FlopCounterMode``
under fake tensors take turns on each model; medians after a warm-up, in one process. Peak
memory is that of a process that builds the model and counts it once. Writes
``benchmarks/results/capture.json`` and the tables of ``docs/evidence/speed.md``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf
from benchmarks.results import environment, fill
from graphflops.capture.record.loss import loss_of
from graphflops.models import Options, resolve
from graphflops.models.prepare_training import TrainingOptions, prepare_training
from graphflops.models.workload import Workload

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "capture.json"
PAGE = ROOT / "docs" / "evidence" / "speed.md"
ROUNDS = 5
LLAMA = f"hf:{ROOT}/examples/configs/llama-3-8b"
_LLAMA_405B = {
    "num_hidden_layers": 126,
    "hidden_size": 16384,
    "intermediate_size": 53248,
    "num_attention_heads": 128,
    "num_key_value_heads": 8,
}
Counters = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model that is counted.

    Attributes:
        title: What tables call it.
        model: Its name.
        options: Its sizes.
        trained: Whether a training step is counted too.
        rounds: How often the counters take turns.
    """

    title: str
    model: str
    options: Options = field(default_factory=Options)
    trained: bool = True
    rounds: int = ROUNDS


CASES = (
    Case(title="Llama-3-8B shape, 2,048 tokens", model=LLAMA, options=Options(seq_len=2048)),
    Case(
        title="Llama-3.1-405B shape, 2,048 tokens",
        model=LLAMA,
        options=Options(seq_len=2048, overrides=_LLAMA_405B),
        rounds=3,
    ),
    Case(
        title="DeepSeek-V3 shape, 512 tokens",
        model="hf:deepseek_v3",
        # FlopCounterMode has no shapes for grouped products of float32.
        options=Options(seq_len=512, dtype="bfloat16"),
        rounds=3,
    ),
    Case(title="BERT-base, 128 tokens", model="hf:bert", options=Options(seq_len=128)),
    Case(title="ViT-B/16, 224x224", model="hf:vit"),
    Case(title="ResNet-50, 224x224", model="hf:resnet"),
)


def main() -> None:
    """Measure, print, save, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", metavar="MODEL", help="only count this once, print its peak")
    parser.add_argument("--only", metavar="PART", help="measure only models with this in the name")
    options = parser.parse_args()
    if options.memory:
        _count_once(next(case for case in CASES if case.title == options.memory))
        return
    known = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"] if options.only else []
    rows = {row["model"]: row for row in known}
    for case in CASES:
        if options.only is None or options.only in case.title:
            rows[case.title] = _row(case)
    where = environment(("torch", "transformers"))
    found = [rows[case.title] for case in CASES]
    RESULTS.write_text(json.dumps({"environment": where, "rows": found}, indent=1) + "\n")
    fill(PAGE, "capture", table(found))


def counters(workload: Workload, *, training: bool = True) -> Counters:
    """What counts a model: graphflops and FlopCounterMode, a forward pass and a training step."""
    found: dict[str, Callable[[], Any]] = {
        "graphflops": lambda: _graphflops(workload),
        "FlopCounterMode": lambda: _flop_counter(workload),
    }
    if training:
        step = prepare_training(workload, TrainingOptions(evaluating=True))
        found["graphflops, training"] = lambda: _graphflops_training(step)
        found["FlopCounterMode, training"] = lambda: _flop_counter_training(step)
    return found


def medians(counting: Counters, rounds: int) -> dict[str, float | None]:
    """Median seconds of counters that take turns; ``None`` for those that fail."""
    taken: dict[str, list[float]] = {
        name: [] for name, count in counting.items() if _works(name, count)
    }
    for _ in range(rounds):
        for name, times in taken.items():
            start = time.perf_counter()
            counting[name]()
            times.append(time.perf_counter() - start)
    return {
        name: round(statistics.median(taken[name]), 4) if name in taken else None
        for name in counting
    }


def _row(case: Case) -> dict[str, Any]:
    workload = resolve(case.model, case.options)
    seconds = medians(
        {
            **counters(workload, training=case.trained),
            "graphflops --no-reuse-layers": lambda: _graphflops(workload, reuse_layers=False),
            "torch.export": lambda: _export(workload),
        },
        case.rounds,
    )
    peak = subprocess.run(  # noqa: S603 - this very script
        [sys.executable, "-m", "benchmarks.capture", "--memory", case.title],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    alone, mib = map(float, peak.stdout.split())
    row = {
        "model": case.title,
        "seconds": seconds,
        "ratios": {
            kind: _ratio(seconds, f"graphflops{kind}", f"FlopCounterMode{kind}")
            for kind in ("", ", training")
        },
        "alone": {"seconds": round(alone, 2), "peak_mib": round(mib)},
    }
    print(row, flush=True)
    return row


def _ratio(seconds: Mapping[str, float | None], ours: str, theirs: str) -> float | None:
    own, other = seconds.get(ours), seconds.get(theirs)
    return None if own is None or other is None else round(own / other, 2)


def _works(name: str, count: Callable[[], Any]) -> bool:
    try:
        count()
    except Exception as error:  # noqa: BLE001 - that others fail is a result
        print(f"{name} fails: {type(error).__name__}: {error}"[:200], file=sys.stderr)
        return False
    return True


def _count_once(case: Case) -> None:
    workload = resolve(case.model, case.options)
    start = time.perf_counter()
    _graphflops(workload)
    seconds = time.perf_counter() - start
    # ru_maxrss would begin with what the process had that started this one.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(seconds, int(status.partition("VmHWM:")[2].split()[0]) / 1024)


def _graphflops(workload: Workload, *, reuse_layers: bool = True) -> gf.OpCost:
    model, args, kwargs = workload.model, workload.args, workload.kwargs
    return gf.count(model, args, kwargs, reuse_layers=reuse_layers, on_unknown="ignore").total


def _graphflops_training(step: Workload) -> gf.OpCost:
    return gf.count_training(step.model, step.args, step.kwargs, on_unknown="ignore").total


def _on_meta(workload: Workload) -> tuple[tuple[Any, ...], dict[str, Any]]:
    inputs: Any = pytree.tree_map_only(
        torch.Tensor, lambda tensor: tensor.to("meta"), (workload.args, dict(workload.kwargs))
    )
    args, kwargs = inputs
    return args, kwargs


def _flop_counter(workload: Workload) -> int:
    args, kwargs = _on_meta(workload)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), mode, FlopCounterMode(display=False) as counter:
        workload.model(*args, **kwargs)
    return int(counter.get_total_flops())


def _flop_counter_training(step: Workload) -> int:
    args, kwargs = _on_meta(step)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, FlopCounterMode(display=False) as counter:
        value, _ = loss_of(step.model(*args, **kwargs), None)
        value.backward()  # type: ignore[no-untyped-call]  # torch's gap
    for parameter in step.model.parameters():
        parameter.grad = None
    return int(counter.get_total_flops())


def _export(workload: Workload) -> None:
    with torch.no_grad():
        torch.export.export(workload.model, workload.args, dict(workload.kwargs), strict=False)


def table(rows: list[dict[str, Any]]) -> str:
    """Seconds of each counter on each model."""
    headers = [
        *("model", "graphflops", "FlopCounterMode", "ratio"),
        *("training: graphflops", "FlopCounterMode", "ratio"),
        *("--no-reuse-layers", "torch.export", "alone", "peak memory"),
    ]
    shown = [
        [
            row["model"],
            *_seconds(row, "graphflops", "FlopCounterMode"),
            _shown(row["ratios"][""], ""),
            *_seconds(row, "graphflops, training", "FlopCounterMode, training"),
            _shown(row["ratios"][", training"], ""),
            *_seconds(row, "graphflops --no-reuse-layers", "torch.export"),
            f"{row['alone']['seconds']:.2f} s",
            f"{row['alone']['peak_mib'] / 1024:.2f} GiB",
        ]
        for row in rows
    ]
    return tabulate(shown, headers, tablefmt="github", disable_numparse=True)


def _seconds(row: dict[str, Any], *names: str) -> list[str]:
    return [_shown(row["seconds"].get(name), " s") for name in names]


def _shown(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.3g}{unit}"


if __name__ == "__main__":
    main()
