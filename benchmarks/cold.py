"""How long the first count in a process takes beside others: ``python -m benchmarks.cold``.

Each measurement is the processor time of one count in a fresh process, of graphflops and of
``FlopCounterMode`` on the meta device and under fake tensors, which take turns; the model and all
imports, those that the count itself makes included, are paid before the clock. A warm case counts
once before. Ratios are to the quicker of the two. Writes ``benchmarks/results/cold.json`` and the
table of first counts in ``docs/evidence/speed.md``.
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
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate
from torch._subclasses import FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf
from benchmarks import cold_models
from benchmarks.results import environment, fill
from graphflops.capture.record.loss import loss_of
from graphflops.models import Options, resolve
from graphflops.models.prepare_training import TrainingOptions, prepare_training
from graphflops.models.workload import Workload

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "cold.json"
PAGE = ROOT / "docs" / "evidence" / "speed.md"
ROUNDS = 3
COUNTERS = ("graphflops", "meta", "fake")
_LLAMA_13B = {
    "hidden_size": 5120,
    "intermediate_size": 13824,
    "num_hidden_layers": 40,
    "num_attention_heads": 40,
    "num_key_value_heads": 40,
}


@dataclass(frozen=True, kw_only=True)
class Case:
    """A count that is measured.

    Attributes:
        build: Function that returns the model and its inputs.
        is_warm: True to count once before.
        is_training: True for a training step.
    """

    build: Callable[[], Workload]
    is_warm: bool = False
    is_training: bool = False


def _named(model: str, **options: Any) -> Callable[[], Workload]:
    return lambda: resolve(model, Options(**options))


CASES = {
    "Llama-2-13B shape, 1,024 tokens": Case(
        build=_named("hf:llama", seq_len=1024, overrides=_LLAMA_13B)
    ),
    "Llama-3-8B shape, 2,048 tokens, training, warm": Case(
        build=_named(f"hf:{ROOT}/examples/configs/llama-3-8b", seq_len=2048),
        is_warm=True,
        is_training=True,
    ),
    "BERT-base, 128 tokens, warm": Case(build=_named("hf:bert", seq_len=128), is_warm=True),
    "ViT-B/16, 224x224, warm": Case(build=_named("hf:vit"), is_warm=True),
    "ALBERT, 128 tokens": Case(build=_named("hf:albert", seq_len=128)),
    "ResNet-101, 224x224": Case(build=_named("torchvision:resnet101")),
    **{title: Case(build=build) for title, build in cold_models.MODELS.items()},
}


def main() -> None:
    """Measure, print, save, write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", nargs=2, metavar=("CASE", "COUNTER"), help="count once")
    parser.add_argument("--imports", nargs=2, metavar=("CASE", "COUNTER"), help="name its imports")
    parser.add_argument("--only", metavar="PART", help="measure only cases with this in the title")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often counters take turns")
    options = parser.parse_args()
    if options.measure:
        print(_measure(CASES[options.measure[0]], options.measure[1], sys.stdin.read().split()))
        return
    if options.imports:
        print(*_imports(CASES[options.imports[0]], options.imports[1]))
        return
    known = json.loads(RESULTS.read_text("utf-8"))["rows"] if options.only else []
    rows = {row["case"]: row for row in known}
    for title in CASES:
        if options.only is None or options.only in title:
            rows[title] = _row(title, options.rounds)
            print(rows[title], flush=True)
    where = environment(("torch", "transformers", "torchvision"))
    found = [rows[title] for title in CASES if title in rows]
    RESULTS.write_text(json.dumps({"environment": where, "rows": found}, indent=1) + "\n")
    fill(PAGE, "cold", table(found))


def table(rows: list[dict[str, Any]]) -> str:
    """Processor seconds of each counter in each case."""
    headers = (
        "first count",
        "graphflops",
        "FlopCounterMode on meta",
        "under fake tensors",
        "ratio",
    )
    shown = [
        (
            row["case"],
            *(_shown(row["seconds"][counter], " s") for counter in COUNTERS),
            _shown(ratio(row), ""),
        )
        for row in rows
    ]
    return tabulate(shown, headers, tablefmt="github", disable_numparse=True)


def ratio(row: dict[str, Any]) -> float | None:
    """Time of graphflops over that of the quicker other."""
    ours, *others = (row["seconds"][counter] for counter in COUNTERS)
    known = [seconds for seconds in others if seconds is not None]
    return None if ours is None or not known else float(ours / min(known))


def _shown(value: float | None, unit: str) -> str:
    return "" if value is None else f"{value:.2f}{unit}"


def _row(title: str, rounds: int) -> dict[str, Any]:
    taken: dict[str, list[float]] = {counter: [] for counter in COUNTERS}
    imports = {counter: _in_fresh_process("--imports", title, counter) for counter in COUNTERS}
    for _ in range(rounds):
        for counter, times in taken.items():
            if (modules := imports[counter]) is None:
                continue
            if (seconds := _in_fresh_process("--measure", title, counter, modules)) is not None:
                times.append(float(seconds.split()[-1]))
    medians = {
        counter: round(statistics.median(times), 4) if times else None
        for counter, times in taken.items()
    }
    return {"case": title, "rounds": rounds, "seconds": medians}


def _in_fresh_process(mode: str, title: str, counter: str, text: str = "") -> str | None:
    """Return the output of this script in one of its modes; ``None`` if it fails."""
    # Modules that are imported late come from bytecode, as in any installed package.
    variables = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(  # noqa: S603 - this very script
        [sys.executable, "-m", "benchmarks.cold", mode, title, counter],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=variables,
    )
    if done.returncode:
        print(f"{counter}, {title}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return done.stdout


def _imports(case: Case, counter: str) -> list[str]:
    """Return the modules that a first count imports, in order."""
    workload = _workload(case)
    known = set(sys.modules)
    _count(workload, counter, is_training=case.is_training)
    return [name for name in sys.modules if name not in known]


def _measure(case: Case, counter: str, imports: Sequence[str]) -> float:
    """Return the processor seconds of one count after some imports."""
    workload = _workload(case)
    for name in imports:
        with contextlib.suppress(ImportError):  # made by another module, which is among them
            importlib.import_module(name)
    if case.is_warm:
        _count(workload, counter, is_training=case.is_training)
    gc.collect()
    start = time.process_time()
    _count(workload, counter, is_training=case.is_training)
    return time.process_time() - start


def _workload(case: Case) -> Workload:
    workload = case.build()
    if case.is_training:
        workload = prepare_training(workload, TrainingOptions(evaluating=True))
    gf.conventions.get("exact")  # the handlers are imports
    return workload


def _count(workload: Workload, counter: str, *, is_training: bool) -> None:
    model = workload.model
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, lambda tensor: tensor.to("meta"), (workload.args, dict(workload.kwargs))
    )
    if counter == "graphflops":
        count = gf.count_training if is_training else gf.count
        _ = count(model, args, kwargs, on_unknown="ignore").total
        return
    mode = FakeTensorMode(allow_non_fake_inputs=True) if counter == "fake" else nullcontext()
    with torch.set_grad_enabled(is_training), mode, FlopCounterMode(display=False) as flops:
        out = model(*args, **kwargs)
        if is_training:
            loss_of(out, None)[0].backward()  # type: ignore[no-untyped-call]  # torch's gap
    flops.get_total_flops()


if __name__ == "__main__":
    main()
