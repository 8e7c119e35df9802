"""What FlopCounterMode makes of a model of the zoo, and what explains a difference."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import fuzz_contractions
from benchmarks.failures import reason
from benchmarks.peers import FLOPS_PER_MAC
from benchmarks.real_runs.training import outputs_summed
from graphflops.capture.fake.fake_model import copy_to_meta, fakify_model_and_inputs
from graphflops.capture.fake.moe_strategies import moe_strategies
from graphflops.capture.record.finalize import ASSUMED_EXPERTS
from graphflops.core.ir import ATTENTION_SCORES, OpRecord
from graphflops.models import Workload
from graphflops.reports.report import Report
from graphflops.reports.training import TrainingReport

Found = dict[str, Any]


def compare(report: Report, workload: Workload, end: float) -> Found:
    """FlopCounterMode's total for a model, and how it relates to the count.

    A model may compute differently while it is exported (transformers asks
    ``torch.compiler.is_exporting``): where the plain run differs, it is run as exported too.

    Args:
        report: The count.
        workload: What was counted; its model is changed to what FlopCounterMode can run.
        end: When to give up, by ``time.perf_counter``.
    """
    if not isinstance(report.macs, int):
        return {"verdict": "symbolic", "total": None}
    # Its hooks take parameters that want gradients, and there are none under no_grad.
    model = workload.model.requires_grad_(False)
    _multiply_in_batches(model)
    plain = _difference(report, workload, end, exporting=False)
    if plain["verdict"] in {"equal", "explained"}:
        return plain
    exported = _difference(report, workload, end, exporting=True)
    if exported["verdict"] not in {"equal", "explained"}:
        return plain
    verdict = "equal as exported" if exported["verdict"] == "equal" else "explained"
    return exported | {"verdict": verdict, "exporting": True, "plain": plain["total"]}


def compare_training(report: TrainingReport, workload: Workload, end: float) -> Found:
    """FlopCounterMode's total for a training step, and how it relates to the count.

    Its formula for the backward of convolutions in groups is wrong: arithmetic takes its place.
    It runs attention as products, whose scores are kept: those that the backward of a fused
    kernel computes again are left out of the count.
    """
    records = [record for part in report.parts for record in part.records]
    macs = sum(
        record.cost.macs
        for record in records
        if record.cost is not None and record.call.op != ATTENTION_SCORES
    )
    if not isinstance(macs, int):
        return {"verdict": "symbolic", "total": None}
    _multiply_in_batches(workload.model)
    run = partial(_total, workload, end, exporting=False, supposing=False, training=True)
    return _against(run, macs, records)


def _multiply_in_batches(model: nn.Module) -> None:
    """Let experts multiply in a way that FlopCounterMode sees: it has no grouped products.

    Some have a config of their own for each layer, which the model's own method does not reach.
    """
    for module in model.modules():
        config: Any = getattr(module, "config", None)
        if hasattr(config, "_experts_implementation"):
            config._experts_implementation = "batched_mm"


def _difference(report: Report, workload: Workload, end: float, *, exporting: bool) -> Found:
    supposing = ASSUMED_EXPERTS in report.capture.notes
    return _against(
        lambda: _total(workload, end, exporting=exporting, supposing=supposing),
        int(report.macs),
        report.records,
    )


def _against(theirs: Callable[[], int], macs: int, records: Iterable[OpRecord]) -> Found:
    """How a count relates to FlopCounterMode's total, which is computed or fails."""
    try:
        total = theirs()
    except TimeIsUpError:
        return {"verdict": "too slow", "total": None}
    except Exception as error:  # noqa: BLE001 - why it fails is a result
        return {"verdict": "fails", "total": None, "reason": reason(error)}
    missing = FLOPS_PER_MAC * macs - total
    if not missing:
        return {"verdict": "equal", "total": total}
    unseen = dict(_unseen(records))
    unexplained = missing - sum(unseen.values())
    verdict = "unexplained" if unexplained else "explained"
    return {"verdict": verdict, "total": total, "unseen": unseen, "unexplained": unexplained}


def _total(
    workload: Workload, end: float, *, exporting: bool, supposing: bool, training: bool = False
) -> int:
    """On meta, where it knows all attention; with values of the inputs where they are needed."""
    with _exporting(exporting), time_limit(end):
        try:
            return _on_meta(workload, training=training)
        except TimeIsUpError:
            raise
        except Exception:  # noqa: BLE001 - values of the inputs may be what is missing
            return _with_values(workload, supposing=supposing, training=training)


def _on_meta(workload: Workload, *, training: bool) -> int:
    (model, *args), kwargs = copy_to_meta(workload.model, workload.args, workload.kwargs)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    return _run(model, (args, kwargs), mode, training=training)


def _with_values(workload: Workload, *, supposing: bool, training: bool) -> int:
    *_, (_, even) = moe_strategies(workload.model, ())
    own = fakify_model_and_inputs(workload.model, workload.args, workload.kwargs)
    # On the CPU it has no formula for the kernels of attention and recurrent layers.
    with (
        own.tracker.tracing(),
        even(own.model, own.tracker) if supposing else contextlib.nullcontext(),
        sdpa_kernel(SDPBackend.MATH),
        _no_fast_path(),
        torch.backends.mkldnn.flags(enabled=False),
    ):
        return _run(own.model, (own.args, own.kwargs), own.tracker.mode, training=training)


def _run(model: nn.Module, inputs: Any, mode: FakeTensorMode, *, training: bool) -> int:
    args, kwargs = inputs
    mapping = {operator: formula for operator, (formula, _) in fuzz_contractions.BY_HAND.items()}
    counter = FlopCounterMode(display=False, custom_mapping=mapping if training else None)
    with torch.set_grad_enabled(training), mode, counter:
        output = model(*args, **kwargs)
        if training:
            outputs_summed(output).backward()  # type: ignore[no-untyped-call]  # torch's gap
    return int(counter.get_total_flops())


@contextlib.contextmanager
def _exporting(flag: bool) -> Iterator[None]:
    # Reads token ids, which may have no values here, to warn about padding.
    warner = mock.patch("transformers.PreTrainedModel.warn_if_padding_and_no_attention_mask")
    with mock.patch("torch.compiler._is_exporting_flag", flag), warner:
        yield


@contextlib.contextmanager
def _no_fast_path() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class TimeIsUpError(Exception):
    """The comparison takes longer than a worker has."""


@contextlib.contextmanager
def time_limit(end: float) -> Iterator[None]:
    """Raise in time for the count to be handed back."""

    def stop(*_: object) -> None:
        raise TimeIsUpError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(end - _GRACE - time.perf_counter(), 1))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_GRACE = 15


def _unseen(records: Iterable[OpRecord]) -> Counter[str]:
    """FLOPs of contractions that FlopCounterMode has no formula for, by operator."""
    found: Counter[str] = Counter()
    for record in _leaves(records):
        if record.cost is not None and record.cost.macs and _is_unseen(record):
            found[record.call.op] += FLOPS_PER_MAC * int(record.cost.macs)
    return found


def _leaves(records: Iterable[OpRecord]) -> Iterator[OpRecord]:
    for record in records:
        yield from _leaves(record.parts) if record.parts else (record,)


_NO_FORMULA = {
    *("aten::mv", "aten::addmv", "aten::dot", "aten::vdot", "aten::inner"),
    *("aten::bilinear", "aten::_trilinear", "aten::cdist", "aten::_cdist_forward"),
    "aten::_euclidean_dist",
}


def _is_unseen(record: OpRecord) -> bool:
    call = record.call
    if call.op == "aten::matmul":
        return any(len(tensor.shape) == 1 for _, tensor in call.tensors())
    if call.op == "aten::einsum" and record.cost is not None:
        # A sum over axes of size one: PyTorch multiplies elementwise.
        return record.cost.macs == math.prod(call.outputs[0].shape)
    return call.op in _NO_FORMULA
