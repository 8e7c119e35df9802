"""What is remembered of operators on fake tensors: what torch makes of them each time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from op_db import COUNTABLE, OPINFOS, Sample, samples
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from graphflops.capture.fake.dispatch_cache import DispatchCache
from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory


def _remembering() -> Any:
    mode: Any = FakeTensorMode(allow_non_fake_inputs=True)
    mode.dispatch = DispatchCache(mode, FakeTensorFactory(mode)).run
    return mode


def _fakes(mode: Any, sample: Sample) -> list[torch.Tensor]:
    maker = FakeTensorFactory(mode)
    strides = [
        torch.empty_strided(t.shape, t.stride(), dtype=t.dtype, device="meta")
        for t in sample.tensors
    ]
    return [maker.make(like, torch.device("cpu")) for like in strides]


def _results(mode: Any, function: Callable[..., Any], given: list[torch.Tensor]) -> Any:
    """What comes out: the metadata of tensors, and which argument's memory they lie in."""
    try:
        with torch.no_grad(), mode:
            out = function(*given)
    except Exception as error:  # noqa: BLE001 - whatever torch refuses
        return type(error)
    memories = [tensor.untyped_storage()._cdata for tensor in given]
    found: list[Any] = []
    for leaf in pytree.tree_leaves(out):
        if not isinstance(leaf, torch.Tensor):
            found.append(leaf)
            continue
        memory = leaf.untyped_storage()._cdata
        shared = [at for at, other in enumerate(memories) if other == memory]
        same = [at for at, other in enumerate(given) if other is leaf]
        layout = (leaf.shape, leaf.stride(), leaf.storage_offset(), leaf.dtype, leaf.device)
        found.append((*layout, shared, same, leaf.untyped_storage().nbytes()))
    return found


def _is_the_same_again(sample: Sample) -> None:
    theirs = FakeTensorMode(allow_non_fake_inputs=True)
    theirs.cache_enabled = False
    expected = _results(theirs, sample.function, _fakes(theirs, sample))
    for _ in range(2):
        ours = _remembering()
        assert _results(ours, sample.function, _fakes(ours, sample)) == expected


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COUNTABLE)
def test_operators_that_torch_tests(name: str) -> None:
    for sample in samples(OPINFOS[name], most=2):
        _is_the_same_again(sample)


_X = torch.empty(2, 6, 4, 4, device="meta")
_CASES: dict[str, tuple[Callable[..., Any], tuple[torch.Tensor, ...]]] = {
    "an argument, changed in place": (lambda x: x.add_(1), (_X,)),
    "one of two, the same tensor first": (lambda x: (x.add_(x), x), (_X,)),
    "one of two": (lambda x, y: x.add_(y), (_X, _X)),
    "the other, written to": (lambda x, y: torch.add(x, x, out=y), (_X, _X)),
    "a view by an operator that makes none": (lambda x: F.channel_shuffle(x, 1), (_X,)),
    "a view": (lambda x: x.transpose(1, 2), (_X,)),
    "several views": (lambda x: x.split(2, 1), (_X,)),
    "a view of another type": (lambda x: x.view(torch.int32), (_X,)),
    "whole and broken numbers": (lambda x: (x.int().mul(2), x.int().mul(2.0)), (_X,)),
    "a truth and a number": (lambda x: (x.int().add(True), x.int().add(1)), (_X,)),
    "channels last": (
        lambda x: x.contiguous(memory_format=torch.channels_last).relu(),
        (_X,),
    ),
}


@pytest.mark.parametrize("case", _CASES)
def test_what_is_an_argument_or_a_view_stays_one(case: str) -> None:
    function, tensors = _CASES[case]
    _is_the_same_again(Sample(function, tensors))


def test_one_argument_for_another_is_not_remembered() -> None:
    mode = _remembering()
    maker = FakeTensorFactory(mode)

    def new() -> torch.Tensor:
        return maker.make(torch.empty(3, device="meta"), torch.device("cpu"))

    x, y = new(), new()
    with mode:
        assert torch.add(x, x, out=x) is x
        assert torch.add(x, x, out=y) is y


def test_the_default_type_is_part_of_a_call() -> None:
    mode = _remembering()
    with mode:
        x = torch.ones(2, dtype=torch.int64)
        assert (x / 2).dtype is torch.float32
        before = torch.get_default_dtype()
        torch.set_default_dtype(torch.float64)
        try:
            assert (x / 2).dtype is torch.float64
        finally:
            torch.set_default_dtype(before)
