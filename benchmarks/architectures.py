"""All of transformers against FlopCounterMode: ``python -m benchmarks.architectures``.

Each model type is built on meta from its default config, cut in depth, and counted. What the
contractions come to is compared with ``FlopCounterMode``, to the last digit. Workers take
several models each; one that hangs or crashes takes no other model with it.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from benchmarks.architectures_page import render
from benchmarks.peers import FLOPS_PER_MAC
from benchmarks.results import environment

if TYPE_CHECKING:
    from graphflops.ir import OpCall, OpRecord
    from graphflops.models import Workload
    from graphflops.report import Report

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "architectures.jsonl"
PAGE = ROOT / "docs" / "architectures.md"
DEPTH = 2
SEQ_LEN = 32
LIMIT = 60
CHUNK = 25
LONGEST_REASON = 300


def main() -> None:
    """Sweep, unless told otherwise, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("types", nargs="*", help="only these; the others' results are kept")
    parser.add_argument("--resume", action="store_true", help="keep results, try what has none")
    parser.add_argument(
        "--render-only", action="store_true", help="write the page from the last results"
    )
    parser.add_argument("--limit", type=int, help="only so many types, spread over all")
    parser.add_argument(
        "--minutes", type=float, default=12, help="start no worker after so long (default: 12)"
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.types)
        return
    if not options.render_only:
        kept = load()[1] if options.types or options.resume else []
        kept = [row for row in kept if row["type"] not in options.types]
        done = {row["type"] for row in kept}
        types = [name for name in options.types or known_types() if name not in done]
        save(chain(kept, sweep(types[: options.limit], options.minutes)))
    PAGE.write_text(render(*load()), encoding="utf-8")


def save(rows: Iterable[dict[str, Any]]) -> None:
    """Write the environment and the rows, each as soon as it is there."""
    import transformers

    known = len(transformers.CONFIG_MAPPING.keys())
    where = environment() | {"types": known, "depth": DEPTH, "seq_len": SEQ_LEN, "limit": LIMIT}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with RESULTS.open("w", encoding="utf-8") as file:
        for row in chain([where], rows):
            print(json.dumps(row), file=file, flush=True)


def load() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The environment and the rows of the last sweep."""
    where, *rows = (json.loads(line) for line in RESULTS.read_text().splitlines())
    return where, sorted(rows, key=lambda row: str(row["type"]))


def known_types() -> list[str]:
    """Every model type, in an order whose beginning is spread over all of them."""
    import transformers

    types = sorted(transformers.CONFIG_MAPPING.keys())
    return [name for first in (0, 2, 1, 3) for name in types[first::4]]


def sweep(types: list[str], minutes: float) -> Iterator[dict[str, Any]]:
    """Results for model types, in order, for about so long."""
    end = time.monotonic() + 60 * minutes
    while types and time.monotonic() < end:
        for row in _worker(types[:CHUNK]):
            print(f"{row['type']}: {row['outcome']}", file=sys.stderr)
            types = types[1:]
            yield row


def _worker(types: list[str]) -> Iterator[dict[str, Any]]:
    """What a worker says, and if it ends early, that for the model it was on."""
    command = [sys.executable, "-m", "benchmarks.architectures", "--worker", *types]
    answered, last = 0, time.monotonic()
    with subprocess.Popen(  # noqa: S603 - our own module, model types of transformers
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        for line in process.stdout:
            answered, last = answered + 1, time.monotonic()
            yield json.loads(line)
    if answered < len(types):
        late = time.monotonic() - last >= LIMIT - 1  # its clock started when it had answered
        reason = f"no answer within {LIMIT} seconds" if late else f"exit code {process.returncode}"
        outcome = "too slow" if late else "crashed"
        yield {"type": types[answered], "outcome": outcome, "reason": reason}


def work(types: list[str]) -> None:
    """Count models and print one line of JSON for each."""
    from graphflops.quiet import quiet

    for model_type in types:
        # Ends the process from a thread of its own, whatever the model is doing.
        faulthandler.dump_traceback_later(LIMIT, exit=True)
        with quiet():
            row = {"type": model_type, **examine(model_type)}
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(row), flush=True)


def examine(model_type: str) -> dict[str, Any]:
    """Build a model and count it, at its own depth if it does not take the cut one."""
    row: dict[str, Any] = {}
    for cut in (True, False):
        row = {"cut": cut, **_examine(model_type, cut=cut)}
        if row["outcome"] not in {"not built", "inputs do not fit"}:
            break
    return row


def _examine(model_type: str, *, cut: bool) -> dict[str, Any]:
    import graphflops as gf
    from graphflops.models import Options, resolve

    try:
        options = Options(seq_len=SEQ_LEN, overrides=shallow(model_type) if cut else {})
        workload = resolve(f"hf:{model_type}", options)
    except Exception as error:  # noqa: BLE001 - why a model cannot be built is a result
        return _failure(_refusal(error), error)
    found: dict[str, Any] = {"class": type(workload.model).__name__}
    start = time.perf_counter()
    try:
        report = gf.count(workload.model, kwargs=workload.kwargs, on_unknown="ignore")
    except gf.CaptureError as error:
        return found | _failure(_refusal(error), error)
    except Exception as error:  # noqa: BLE001 - likewise
        return found | _failure("failed", error)
    found["seconds"] = round(time.perf_counter() - start, 2)
    return found | _figures(report) | compare(report, workload)


_REFUSALS = {
    "Unrecognized configuration class": "no class",
    "requires the timm library": "needs timm",
    "cannot build": "not built",
    "FakeTensorDeviceMismatchError": "mixes devices",
    "fails on these inputs": "inputs do not fit",
    "cannot be captured": "not captured",
    "is not made up from a config": "no inputs yet",
}


def _refusal(error: Exception) -> str:
    return next((said for text, said in _REFUSALS.items() if text in str(error)), "not built")


def shallow(model_type: str) -> dict[str, Any]:
    """Config overrides that cut the depth, in the config and its parts."""
    import transformers

    return dict(_cuts(transformers.CONFIG_MAPPING[model_type]().to_dict()))


_DEPTHS = re.compile(r"depth|((num|n|encoder|decoder)_)*(hidden_)?layers?")


def _cuts(config: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, dict) and key.endswith("_config") and value.get("model_type"):
            inside = dict(_cuts(value, f"{prefix}{key}."))
            if inside:
                yield f"{prefix}{key}.model_type", value["model_type"]
                yield from inside.items()
        elif key == "depths" and isinstance(value, list):
            yield prefix + key, [min(depth, DEPTH) for depth in value]
        elif _DEPTHS.fullmatch(key) and isinstance(value, int) and value > DEPTH:
            yield prefix + key, DEPTH


def _figures(report: Report) -> dict[str, Any]:
    return {
        "outcome": "counted",
        "method": report.capture.method,
        "calls": len(report.records),
        "statuses": {status.value: calls for status, calls in report.coverage.items()},
        "unknown": report.unsupported_ops(),
        "macs": report.macs if isinstance(report.macs, int) else str(report.macs),
    }


def compare(report: Report, workload: Workload) -> dict[str, Any]:
    """What FlopCounterMode makes of the model, and what explains the difference.

    A model may compute differently while it is exported (transformers asks
    ``torch.compiler.is_exporting``): where the plain run differs, it is run as exported too.
    """
    if not isinstance(report.macs, int):
        return {"flop_counter": None, "flop_counter_reason": "sizes depend on values"}
    if workload.model._can_set_experts_implementation():
        # Its shape rule of grouped products takes nothing but bfloat16.
        workload.model.set_experts_implementation("batched_mm")
    plain = _difference(report, workload, exporting=False)
    if plain.get("unexplained") == 0:
        return plain
    exported = _difference(report, workload, exporting=True)
    if exported.get("unexplained") != 0:
        return plain
    return exported | {"exporting": True, "flop_counter_plain": plain["flop_counter"]}


def _difference(report: Report, workload: Workload, *, exporting: bool) -> dict[str, Any]:
    try:
        total = _flop_counter(workload, exporting=exporting)
    except Exception as error:  # noqa: BLE001 - why it fails is a result
        return {"flop_counter": None, "flop_counter_reason": _reason(error)}
    missing = FLOPS_PER_MAC * int(report.macs) - total
    unseen = dict(_unseen(report)) if missing else {}
    return {
        "flop_counter": total,
        "unseen": unseen,
        "unexplained": missing - sum(unseen.values()),
    }


def _flop_counter(workload: Workload, *, exporting: bool) -> int:
    import torch
    from torch._subclasses import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode

    flag = mock.patch("torch.compiler._is_exporting_flag", exporting)
    # Reads token ids, which have no values here, to warn about padding.
    warner = mock.patch("transformers.PreTrainedModel.warn_if_padding_and_no_attention_mask")
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    model = workload.model.requires_grad_(False)
    with flag, warner, torch.no_grad(), mode, FlopCounterMode(display=False) as counter:
        model(*workload.args, **workload.kwargs)
    return int(counter.get_total_flops())


def _unseen(report: Report) -> Counter[str]:
    """FLOPs of contractions that FlopCounterMode has no formula for, by operator."""
    found: Counter[str] = Counter()
    for record in _leaves(report.records):
        if record.cost is not None and record.cost.macs and _is_unseen(record.call):
            found[record.call.op] += FLOPS_PER_MAC * int(record.cost.macs)
    return found


def _leaves(records: tuple[OpRecord, ...]) -> Iterator[OpRecord]:
    for record in records:
        yield from _leaves(record.parts) if record.parts else (record,)


_NO_FORMULA = {
    *("aten::mv", "aten::addmv", "aten::dot", "aten::vdot", "aten::inner"),
    *("aten::bilinear", "aten::_trilinear", "transformers::grouped_mm_fallback"),
}


def _is_unseen(call: OpCall) -> bool:
    vectors = call.op == "aten::matmul" and any(len(t.shape) == 1 for _, t in call.tensors())
    return vectors or call.op in _NO_FORMULA


def _failure(outcome: str, error: BaseException) -> dict[str, Any]:
    return {"outcome": outcome, "reason": _reason(error)}


def _reason(error: BaseException) -> str:
    """Type and first line, without folders of this machine."""
    line = next(iter(str(error).strip().splitlines()), "no message")
    line = re.sub(r"Model type should be one of .*?\. ", "", line)
    line = re.sub(r"(?<![\w.])(?:/[\w.@+-]+)+/(?=[\w.-])", "", line)
    return f"{type(error).__name__}: {line}"[:LONGEST_REASON]


if __name__ == "__main__":
    main()
