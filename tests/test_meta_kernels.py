"""Operators run by their meta kernels or by rules: the results are torch's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from meta_calls import CALLS, IMAGE, LAST, A, T, X
from op_db import COUNTABLE, OPINFOS, samples
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from graphflops.capture.fake.dispatch_cache import DispatchCache
from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.meta_kernels import DECLINED, OPERATORS, MetaKernels
from graphflops.capture.torch_internals.dispatch import AutoDispatchBelowAutograd


def _fake(mode: Any, like: torch.Tensor, device: str) -> torch.Tensor:
    fake = FakeTensorFactory(mode)
    with torch.no_grad():
        extent = 1 + sum((n - 1) * s for n, s in zip(like.shape, like.stride(), strict=True))
        size = (extent if like.numel() else 0) + like.storage_offset()
        base = torch.empty(size, dtype=like.dtype, device="meta")
        meta = base.as_strided(like.shape, like.stride(), like.storage_offset())
    return fake.make(meta, torch.device(device), requires_grad=like.requires_grad)


def _described(function: Callable[..., Any], args: Any, mode: Any, device: str) -> Any:
    """Layouts of the results, and what each shares memory with or is."""
    fakes = pytree.tree_map_only(torch.Tensor, lambda t: _fake(mode, t, device), args)
    given = [leaf for leaf in pytree.tree_leaves(fakes) if isinstance(leaf, torch.Tensor)]
    try:
        with AutoDispatchBelowAutograd(), mode, enable_python_dispatcher():
            out = function(*fakes)
    except Exception as error:  # noqa: BLE001 - whatever torch refuses
        return type(error), str(error)
    found: list[Any] = [type(out) if isinstance(out, list | tuple) else None]
    for leaf in pytree.tree_leaves(out):
        if not isinstance(leaf, torch.Tensor):
            found.append(leaf)
            continue
        storage = leaf.untyped_storage()
        shares = [t.untyped_storage()._cdata == storage._cdata for t in given]
        layout = (leaf.shape, leaf.stride(), leaf.storage_offset(), leaf.dtype, leaf.device)
        kind = (type(leaf), leaf.requires_grad, [t is leaf for t in given], storage.nbytes())
        found.append((layout, kind, shares))
    return found


def _both(function: Callable[..., Any], args: Any, device: str = "cpu") -> tuple[Any, Any]:
    theirs: Any = FakeTensorMode(allow_non_fake_inputs=True)
    theirs.cache_enabled = False
    ours: Any = FakeTensorMode(allow_non_fake_inputs=True)
    ours.dispatch = DispatchCache(ours, FakeTensorFactory(ours)).run
    return _described(function, args, ours, device), _described(function, args, theirs, device)


@pytest.fixture(name="run")
def _run(monkeypatch: pytest.MonkeyPatch) -> set[Any]:
    """Operators that were run without torch's dispatch."""
    seen: set[Any] = set()
    original = MetaKernels.run

    def run(self: MetaKernels, func: Any, args: Any, kwargs: Any) -> Any:
        out = original(self, func, args, kwargs)
        if out is not DECLINED:
            seen.add(func)
        return out

    monkeypatch.setattr(MetaKernels, "run", run)
    return seen


def test_each_operator_has_cases() -> None:
    assert CALLS.keys() == OPERATORS


@pytest.mark.parametrize(
    "layout",
    [torch.preserve_format, torch.contiguous_format, LAST, torch.channels_last_3d],
    ids=str,
)
def test_clones_in_a_layout(layout: torch.memory_format) -> None:
    for args in (*CALLS[A.clone.default], (IMAGE,), (IMAGE.transpose(1, 3),), (T(2, 1, 3, 4),)):
        ours, theirs = _both(lambda x: A.clone.default(x, memory_format=layout), args)
        assert ours == theirs, args


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
@pytest.mark.parametrize("op", CALLS, ids=str)
def test_results_are_those_of_torch(op: Any, device: str, run: set[Any]) -> None:
    for args in CALLS[op]:
        ours, theirs = _both(op, args, device)
        needs_gpu = device == "cuda" and "cuda devices" in str(theirs)
        assert needs_gpu or ours == theirs, args
    assert op in run


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COUNTABLE)
def test_torchs_own_samples(name: str) -> None:
    for sample in samples(OPINFOS[name], most=4):
        ours, theirs = _both(sample.function, sample.tensors)
        assert ours == theirs


_SIZES = st.integers(0, 3)


@st.composite
def _operand(draw: st.DrawFn, shape: list[int]) -> torch.Tensor:
    """A tensor that broadcasts to a shape, with its axes in any order in memory."""
    rank = draw(st.integers(0, len(shape)))
    part = [draw(st.sampled_from([1, size])) for size in shape[len(shape) - rank :]]
    order = draw(st.permutations(range(rank)))
    tensor = torch.empty([part[axis] for axis in order], device="meta")
    return tensor.permute([order.index(axis) for axis in range(rank)])


@settings(deadline=None)
@given(st.data(), st.lists(_SIZES, max_size=4))
def test_pointwise_layouts(data: st.DataObject, shape: list[int]) -> None:
    x, y = data.draw(_operand(shape)), data.draw(_operand(shape))
    for function, args in ((A.add.Tensor, (x, y)), (A.relu.default, (x,)), (A.div.Tensor, (y, 2))):
        ours, theirs = _both(function, args)
        assert ours == theirs


_ON_ANY_LAYOUT: dict[Any, Callable[[torch.Tensor], tuple[Any, ...]]] = {
    A.t.default: lambda x: (x,),
    A.transpose.int: lambda x: (x, 0, -1),
    A.permute.default: lambda x: (x, [*range(1, x.dim()), 0]),
    A.unsqueeze.default: lambda x: (x, x.dim() // 2),
    A.squeeze.dim: lambda x: (x, 0),
    A.squeeze.dims: lambda x: (x, [*range(x.dim())]),
    A.expand.default: lambda x: (x, [size if size != 1 else 2 for size in x.shape]),
    A.slice.Tensor: lambda x: (x, -1, 1, 3, 2),
    A.select.int: lambda x: (x, 0, 0),
    A.split.Tensor: lambda x: (x, 2, -1),
    A.unbind.int: lambda x: (x, -1),
    A.view.default: lambda x: (x, [1, *x.shape, 1]),
    A._unsafe_view.default: lambda x: (x, [-1]),
    A.detach.default: lambda x: (x,),
    A.clone.default: lambda x: (x,),
    A.cat.default: lambda x: ([x, x], -1),
    A.stack.default: lambda x: ([x, x], 0),
    A.mm.default: lambda x: (x, x.t() if x.dim() == 2 else x),
    A.bmm.default: lambda x: (x, x.transpose(-1, -2) if x.dim() > 1 else x),
    A._softmax.default: lambda x: (x, -1, False),
    A.silu.default: lambda x: (x,),
    A.sum.dim_IntList: lambda x: (x, [0]),
    A.addmm.default: lambda x: (T(x.shape[0]) if x.dim() else x, x, x.t() if x.dim() == 2 else x),
    A.native_layer_norm.default: lambda x: (x, x.shape[-1:], None, None, 1e-5),
    A.max_pool2d_with_indices.default: lambda x: (x, [1, 1]),
    A.add_.Tensor: lambda x: (x, 1),
}


@pytest.mark.filterwarnings("ignore")
@settings(deadline=None, max_examples=60)
@given(st.data(), st.lists(_SIZES, max_size=4))
def test_layouts_of_any_kind(data: st.DataObject, shape: list[int]) -> None:
    x = data.draw(_operand(shape))
    for op, arguments in _ON_ANY_LAYOUT.items():
        ours, theirs = _both(op, arguments(x))
        note((op, x.shape, x.stride()))
        assert ours == theirs, op


def test_several_devices_go_torchs_way(run: set[Any]) -> None:
    mode: Any = FakeTensorMode(allow_non_fake_inputs=True)
    mode.dispatch = DispatchCache(mode, FakeTensorFactory(mode)).run
    x, scalar = _fake(mode, X, "cuda"), _fake(mode, T(), "cpu")
    with mode:
        assert torch.add(x, scalar).device.type == "cuda"
        with pytest.raises(RuntimeError, match="devices"):
            torch.add(x, _fake(mode, X, "cpu"))
    assert A.add.Tensor not in run
