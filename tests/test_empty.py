"""Tensors without elements: nothing is computed of nothing, and no cost falls below zero."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from calls import Call, count, count_call, meta
from op_db import NOT_TRACEABLE, OPINFOS, Sample, Trained, differentiable, samples

import graphflops as gf
from graphflops.core.ir import OpRecord, Status

EMPTY: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "softmax of no columns": (lambda x: x.softmax(1), (meta(4, 0),)),
    "softmax of no rows": (lambda x: x.softmax(1), (meta(0, 4),)),
    "log_softmax": (lambda x: x.log_softmax(1), (meta(4, 0),)),
    "safe_softmax": (lambda x: torch.ops.aten._safe_softmax(x, -1), (meta(4, 0),)),
    "logsumexp": (lambda x: x.logsumexp(0), (meta(0, 4),)),
    "layer_norm": (lambda x: F.layer_norm(x, (0,)), (meta(4, 0),)),
    "rms_norm": (lambda x: F.rms_norm(x, (0,)), (meta(4, 0),)),
    "group_norm": (lambda x: F.group_norm(x, 2), (meta(1, 0, 3),)),
    "group_norm of no examples": (lambda x: F.group_norm(x, 2), (meta(0, 4, 3),)),
    "mean": (lambda x: x.mean(1), (meta(4, 0),)),
    "std": (lambda x: x.std(1), (meta(4, 0),)),
    "norm": (lambda x: x.norm(dim=1), (meta(4, 0),)),
    "logcumsumexp": (lambda x: x.logcumsumexp(1), (meta(4, 0),)),
    "interpolate": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
        (meta(0, 3, 4, 4),),
    ),
    "attention of nothing": (F.scaled_dot_product_attention, (meta(2, 0, 4),) * 3),
}


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_of_nothing(name: str) -> None:
    function, args = EMPTY[name]
    try:
        function(*args)
    except RuntimeError as error:
        pytest.skip(f"this torch refuses it: {error}")
    total = count(function, *args).total
    assert (total.flops, total.macs, total.transcendentals) == (0, 0, 0)


@pytest.mark.parametrize(
    ("function", "args", "flops"),
    [
        # Queries meet no keys: 3 rows of 5 are scaled.
        (F.scaled_dot_product_attention, (meta(3, 5), meta(0, 5), meta(0, 5)), 3 * 5),
        # i is summed before the product and has no values; the 3 results of length 5 are zeros.
        (lambda a, b: torch.einsum("ij,jk->k", a, b), (meta(0, 3), meta(3, 5)), 2 * 3 * 5),
        # 4 rows of no columns against rows of none: distances of 0.
        (torch.cdist, (meta(4, 0), meta(3, 0)), 0),
    ],
)
def test_next_to_something(
    function: Callable[..., Any], args: tuple[torch.Tensor, ...], flops: int
) -> None:
    assert count(function, *args).flops == flops


def test_in_a_list_with_something() -> None:
    # The largest of 6 elements, and of none.
    lists, largest = [meta(0), meta(6)], [torch.empty((), device="meta")] * 2
    assert count_call(torch.ops.aten._foreach_max.default, lists, out=largest).flops == 5


def emptied(sample: Sample) -> Iterator[Sample]:
    """The sample with every size in turn 0 wherever it stands, and with each axis alone 0."""
    tensors = sample.tensors
    for size in sorted({size for tensor in tensors for size in tensor.shape if size}):
        shapes = [[0 if s == size else s for s in tensor.shape] for tensor in tensors]
        yield Sample(sample.function, tuple(map(torch.Tensor.new_empty, tensors, shapes)))
    for place, tensor in enumerate(tensors):
        for axis in range(tensor.dim()):
            shape = [0 if a == axis else s for a, s in enumerate(tensor.shape)]
            one = (*tensors[:place], tensor.new_empty(shape), *tensors[place + 1 :])
            yield Sample(sample.function, one)


def runs(sample: Sample) -> bool:
    try:
        with torch.no_grad():
            sample.function(*sample.tensors)
    except Exception:  # noqa: BLE001 - whatever it refuses them with
        return False
    return True


def of_nothing(record: OpRecord) -> bool:
    # What comes apart costs what its parts do, of which each is looked at.
    sizes = [t.numel for _, t in record.call.tensors()]
    return record.status is not Status.DECOMPOSED and bool(sizes) and not any(sizes)


def _holds(report: gf.Report) -> None:
    for record in report.records:
        for part in (record, *record.parts):
            assert part.cost is not None, part.call.op
            # Prices below zero are refused where they are made.
            assert not of_nothing(part) or part.cost.flops == part.cost.macs == 0, part.call


SWEPT = [name for name in OPINFOS if name not in NOT_TRACEABLE]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SWEPT)
def test_every_operator_of_nothing(name: str) -> None:
    for given in samples(OPINFOS[name], most=2):
        for sample in filter(runs, emptied(given)):
            try:
                report = gf.count(Call(sample.function), sample.tensors, on_unknown="ignore")
            except gf.CaptureError:  # fake tensors refuse more than meta ones
                continue
            _holds(report)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in SWEPT if OPINFOS[name].supports_autograd])
def test_every_backward_of_nothing(name: str) -> None:
    for given in samples(OPINFOS[name], most=1):
        for sample in filter(differentiable, emptied(given)):
            try:
                step = gf.count_training(Trained(sample), on_unknown="ignore")
            except gf.CaptureError:  # fake tensors refuse more than meta ones
                continue
            for part in step.parts:
                _holds(part)
