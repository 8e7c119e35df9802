"""Operators run by their meta kernels or by rules: the results are torch's own."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, note, settings
from hypothesis import strategies as st
from op_db import COUNTABLE, OPINFOS, samples
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from graphflops.capture.fake.dispatch_cache import DispatchCache
from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.meta_kernels import DECLINED, OPERATORS, MetaKernels
from graphflops.capture.fake.result_layouts import RULES
from graphflops.capture.torch_internals.dispatch import AutoDispatchBelowAutograd

A = torch.ops.aten
LAST = torch.channels_last


def T(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:  # noqa: N802 - a tensor
    return torch.empty(shape, dtype=dtype, device="meta")


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


X, Y, IMAGE, INDEX = T(4, 6), T(6, 5), T(2, 4, 8, 8), T(3, dtype=torch.int64)
_TRANSPOSED = T(6, 4).t()
_UNARY = [(X,), (T(),), (T(0, 3),), (_TRANSPOSED,), (T(4, 12)[:, ::2],), (T(1, 3, 1),)]
_UNARY += [(IMAGE.contiguous(memory_format=LAST),), (T(3, dtype=torch.int64),)]
_UNARY += [(T(2, 3, dtype=torch.bfloat16),), (T(3, dtype=torch.complex64),), (T(5)[2:],)]
_UNARY += [(torch.empty_strided((2, 1), (1, 2), device="meta"),)]
_UNARY += [(T(4).expand(3, 4),), (X.clone().requires_grad_(),), (T(2, 1, 3).transpose(0, 1),)]
_BINARY: list[tuple[Any, ...]] = [(*x, *x) for x in _UNARY]
_BINARY += [(x, 2) for (x,) in _UNARY] + [(x, 2.5) for (x,) in _UNARY] + [(X, True), (X, 1j)]
_BINARY += [(X, T(6)), (T(6), X), (X, T()), (T(), X), (X, T(4, 1)), (T(4, 1), T(1, 6))]
_BINARY += [(X, T(4, 6, dtype=torch.float64)), (X, T(6, dtype=torch.int64)), (X, T(5)), (X, Y)]
_BINARY += [(IMAGE.contiguous(memory_format=LAST), T(4, 1, 1)), (X, _TRANSPOSED)]
_BINARY += [(T(1, 6), T(6)), (T(2, 1, 6), T(6)), (T(2, 3, 1), T(3, 4)), (T(0, 6), T(6))]
_TRUTH = [*_UNARY, (T(3, dtype=torch.uint8),)]
_TRUTH_OF_AXIS: list[tuple[Any, ...]] = [
    (x, d, k) for (x,) in _TRUTH for d in (0, -1, 1, -2, 5) for k in (False, True)
]
_TRUTH_OF_AXIS += [(x, 0) for (x,) in _TRUTH]
_OF_TENSORS = [args for args in _BINARY if isinstance(args[1], torch.Tensor)]
_WITH_NUMBERS = [(x, n) for (x,) in _UNARY for n in (0, 0.5, True)]
_IN_PLACE = [(X, X), (X, T(6)), (T(6), X), (X, 2)]
_SAME = [(*x, *x) for x in _UNARY] + [(X, Y), (X, _TRANSPOSED)]
_AXES = [1, 1, 1, 1], [0, 0], [1, 1]
_CONV = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1)
_UPSAMPLE = [
    *((A.upsample_nearest1d.default, 1, ()), (A.upsample_nearest2d.default, 2, ())),
    *((A.upsample_nearest3d.default, 3, ()), (A._upsample_nearest_exact2d.default, 2, ())),
    *((A.upsample_linear1d.default, 1, (False,)), (A.upsample_bilinear2d.default, 2, (True,))),
    (A.upsample_trilinear3d.default, 3, (False,)),
    (A.upsample_bicubic2d.default, 2, (False,)),
    (A._upsample_bilinear2d_aa.default, 2, (False,)),
    (A._upsample_bicubic2d_aa.default, 2, (False,)),
]


def _images(rank: int) -> list[torch.Tensor]:
    """Batches of images of a rank, in usual and unusual layouts."""
    plain = T(2, 4, *[3] * rank)
    formats = {2: [torch.channels_last], 3: [torch.channels_last_3d]}.get(rank, [])
    return [
        *(plain, *(plain.contiguous(memory_format=form) for form in formats)),
        *(T(1, 1, *[3] * rank), T(2, 1, *[3] * rank), T(1, 4, *[1] * rank), T(0, 4, *[3] * rank)),
        *(plain.half(), plain.transpose(0, 1), T(4, *[3] * rank), T(2, 0, *[3] * rank)),
        *(plain.to(torch.uint8), T(1, 4, *[3] * rank).transpose(1, 2)),
    ]


CALLS: dict[Any, list[tuple[Any, ...]]] = {
    A.mm.default: [(X, Y), (X, X.t()), (X, X), (T(0, 6), Y), (X, T(6, 5, dtype=torch.half))],
    A.bmm.default: [(T(2, 3, 4), T(2, 4, 5)), (T(2, 4, 3).transpose(1, 2), T(2, 4, 5))],
    A.addmm.default: [
        *((b, X, Y) for b in (T(5), T(4, 5), T(1, 5), T(4, 1), T(), T(1), T(6), T(10)[::2])),
        *((T(5), T(1, 6), Y), (T(5), T(0, 6), Y), (T(1), X, T(6, 1)), (T(1), T(1, 6), T(6, 1))),
        *((T(5), _TRANSPOSED.t().t(), Y), (T(5), X, T(5, 6).t()), (T(5), T(1, 6), T(5, 6).t())),
        *((T(5, dtype=torch.half), X, Y), (T(0), X, T(6, 0)), (T(5), T(4, 0), T(0, 5))),
    ],
    A.convolution.default: [
        (IMAGE, T(6, 4, 3, 3), None, *_CONV),
        (IMAGE, T(6, 4, 3, 3), T(6), *_CONV),
        (IMAGE.contiguous(memory_format=LAST), T(6, 4, 3, 3), T(6), *_CONV),
        (IMAGE, T(6, 4, 3, 3).contiguous(memory_format=LAST), None, *_CONV),
        (T(2, 4, 9), T(6, 2, 3), T(6), [2], [1], [1], False, [0], 2),
        (IMAGE, T(4, 3, 3, 3), None, [2, 2], [1, 1], [1, 1], True, [1, 1], 1),
        (T(0, 4, 8, 8), T(6, 4, 3, 3), None, *_CONV),
        (IMAGE.transpose(2, 3), T(6, 4, 1, 1), None, [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
        (T(4, 8, 8), T(6, 4, 3, 3), None, *_CONV),
        *((x, w, T(6), *_CONV) for x in (T(1, 1, 8, 8), T(2, 1, 1, 1)) for w in (T(6, 1, 3, 3),)),
        (T(2, 4, 1, 1), T(6, 4, 1, 1), T(6), [1, 1], [0, 0], [1, 1], False, [0, 0], 1),
        (T(16, 64, 8, 8), T(64, 1, 3, 3), T(64), [1, 1], [1, 1], [1, 1], False, [0, 0], 64),
        (T(2, 4, 3, 8, 8), T(6, 4, 3, 3, 3), None, [1] * 3, [1] * 3, [1] * 3, False, [0] * 3, 1),
    ],
    A._softmax.default: [(*x, -1, False) for x in _UNARY],
    A._log_softmax.default: [(*x, -1, False) for x in _UNARY],
    A.silu.default: _UNARY,
    A.sum.dim_IntList: [
        *((x, [-1], keep) for (x,) in _UNARY for keep in (False, True)),
        *((IMAGE, None), (IMAGE, []), (IMAGE, [1, 2]), (IMAGE.transpose(1, 2), [1])),
        (IMAGE.contiguous(memory_format=LAST), [2, 3], True),
    ],
    A.embedding.default: [(X, INDEX), (_TRANSPOSED, T(2, 3, dtype=torch.int32)), (X, X)],
    A._adaptive_avg_pool2d.default: [(IMAGE, [2, 2]), (T(4, 8, 8), [1, 1])],
    A.max_pool2d_with_indices.default: [
        (IMAGE, [3, 3], [2, 2], [1, 1]),
        (IMAGE.contiguous(memory_format=LAST), [2, 2]),
        (T(4, 8, 8), [2, 2], [], [0, 0], [1, 1], True),
    ],
    **{
        op: [(x, [6] * rank, *corners, *([None] * rank)) for x in _images(rank)]
        for op, rank, corners in _UPSAMPLE
    },
    A.native_group_norm.default: [
        (x, w, b, *x.shape[:2], x[0, 0].numel() if x.dim() > 1 and x.numel() else 0, groups, 1e-5)
        for x in (
            *(IMAGE, IMAGE.contiguous(memory_format=LAST), T(1, 4, 5, 5), T(2, 4, 1, 1), T(2, 4)),
            *(T(1, 4, 1, 3), T(2, 4, 7), T(0, 4, 3), IMAGE.half(), IMAGE.transpose(0, 1)),
            *(T(1, 4, 1, 1), T(2, 4, 2, 3, 3), T(2, 4, 0)),
        )
        for w, b in ((T(4), T(4)), (None, None), (T(4), None), (T(4).half(), T(4)), (T(3), T(3)))
        for groups in (1, 2, 3, 4)
    ],
    A.avg_pool2d.default: [(IMAGE, [2, 2]), (IMAGE.contiguous(memory_format=LAST), [2, 2])],
    A.t.default: [(X,), (T(3),), (T(),), (IMAGE,)],
    A.view.default: [(X, [24]), (X, [-1, 3]), (_TRANSPOSED, [24]), (T(0, 3), [0, 9])],
    A._unsafe_view.default: [(X, [24]), (_TRANSPOSED, [24]), (T(4, 12)[:, :6], [2, 2, 6])],
    A.transpose.int: [(X, 0, 1), (IMAGE, -1, 1), (T(), 0, -1), (X, 0, 5)],
    A.permute.default: [
        *((IMAGE, dims) for dims in itertools.permutations(range(4))),
        *((IMAGE, dims) for dims in ([0, -1, 1, -2], [0, 1], [0, 0, 1, 2], [0, 1, 2, 4])),
        *((_TRANSPOSED, [1, 0]), (T(), []), (T(3), [0]), (T(3), [-1]), (T(1, 3, 1), [2, 0, 1])),
    ],
    A.unsqueeze.default: [(X, 0), (X, -1), (_TRANSPOSED, 1), (X, 7)],
    A.squeeze.dim: [(T(1, 3, 1), 0), (T(1, 3, 1), 1), (T(), 0), (X, 4)],
    A.squeeze.dims: [(T(1, 3, 1), [0, 2]), (T(1, 3, 1), [])],
    A.expand.default: [(T(3, 1), [3, 4]), (X, [2, -1, 6]), (X, [3, 3])],
    A.slice.Tensor: [(X, 0, 1, 3), (X, 1, -2), (X, 1, 0, 100, 2), (X, 0, 3, 1), (X, 0, 0, 4, 0)],
    A.select.int: [(X, 0, 1), (X, -1, -1), (X, 0, 9)],
    A.detach.default: [(X,), (X.clone().requires_grad_(),), (_TRANSPOSED,)],
    A.alias.default: [(X,), (T(5)[2:],)],
    A.split.Tensor: [(X, 2, 1), (X, 4, 1), (X, 9), (T(0, 3), 2)],
    A.split_with_sizes.default: [(X, [1, 3]), (X, [1, 1])],
    A.unbind.int: [(X,), (X, 1), (T(0, 3),), (T(),)],
    A.as_strided.default: [(X, [2, 2], [1, 2]), (X, [2], [1], 3), (T(5)[2:], [2], [1])],
    A.clone.default: [*_UNARY, (T(2, 6).expand(3, 2, 6),)],
    **dict.fromkeys((A.all.default, A.any.default), _TRUTH),
    **dict.fromkeys((A.all.dim, A.any.dim), _TRUTH_OF_AXIS),
    A.cat.default: [
        *(([X, X], dim) for dim in (0, 1, -1, -2, 2)),
        *(
            ([X, other], dim)
            for other in (T(0), T(6), _TRANSPOSED, X.half(), T(1, 6))
            for dim in (0, 1)
        ),
        *(([x, x], dim) for (x,) in _UNARY for dim in (0, 1)),
        *(([IMAGE, T(2, 3, 8, 8), T(2, 1, 8, 8)], 1), ([IMAGE, T(2, 0, 8, 8)], 1), ([X],)),
        *(([T(2, 3, 1, 1), T(2, 5, 1, 1)], 1), ([T(1, 3, 4, 4), T(1, 5, 4, 4)], 1)),
        ([x.contiguous(memory_format=LAST) for x in (IMAGE, T(2, 3, 8, 8))], 1),
    ],
    A.stack.default: [([X, X],), ([X, X], -1), ([X, Y],), ([_TRANSPOSED, _TRANSPOSED], 1)],
    **dict.fromkeys(
        (A.eq.Scalar, A.ne.Scalar, A.lt.Scalar, A.le.Scalar, A.gt.Scalar, A.ge.Scalar),
        _WITH_NUMBERS,
    ),
    **dict.fromkeys(
        (A.eq.Tensor, A.ne.Tensor, A.lt.Tensor, A.le.Tensor, A.gt.Tensor, A.ge.Tensor),
        _OF_TENSORS,
    ),
    A.roll.default: [
        *((*x, shifts, dims) for x in _UNARY for shifts, dims in (([1], [0]), ([1], []))),
        *((IMAGE, [1, -1], [2, 3]), (IMAGE.transpose(1, 2), [1, 1], [1, 2]), (X, [1], [3])),
    ],
    A.constant_pad_nd.default: [
        *(
            (*x, pad, value)
            for x in _UNARY
            for pad in ([0, 0], [1, 2], [-1, 0])
            for value in (0, 1)
        ),
        *(
            (IMAGE, [0, 1, 2, 0, 0, 0, 1, 0]),
            (IMAGE.transpose(1, 2), [1, 1]),
            (X, [1]),
            (X, [1] * 6),
        ),
        *((IMAGE.contiguous(memory_format=LAST), [1, 1]), (IMAGE, []), (IMAGE, [0, 0, 0, 0])),
    ],
    A.masked_fill.Scalar: [
        (x, mask, value)
        for (x,) in _UNARY
        for mask in (
            *(x.to(torch.bool), T(*x.shape[1:], dtype=torch.bool), T(*x.shape)),
            *(T(dtype=torch.bool), T(3, 1, 1, dtype=torch.bool), T(9, dtype=torch.bool)),
        )
        for value in (0, 0.5, 1j)
    ],
    **dict.fromkeys((A.sub_.Tensor, A.div_.Tensor), _IN_PLACE),
    **dict.fromkeys((A.leaky_relu_.default, A.silu_.default, A.hardtanh_.default), _UNARY),
    **dict.fromkeys((A.sigmoid_.default, A.tanh_.default), _UNARY),
    A.fill_.Scalar: _WITH_NUMBERS,
    A.fill_.Tensor: [(*x, y) for x in _UNARY for y in (T(), T(dtype=torch.int64), X)],
    A.relu_.default: [(X,), (_TRANSPOSED,)],
    A.add_.Tensor: [(X, X), (X, T(6)), (T(6), X), (X, 2), (T(3, dtype=torch.int64), T(3))],
    A.mul_.Tensor: [(X, X), (X, T(6)), (T(6), X), (X, 2)],
    A.native_layer_norm.default: [
        *((X, [6], w, b, 1e-5) for w, b in ((T(6), T(6)), (None, None), (T(6), None))),
        *((X, [4, 6], None, None, 1e-5), (_TRANSPOSED, [6], T(6), T(6), 1e-5)),
        *((T(1, 6), [6], T(6), T(6), 1e-5), (T(2, 1, 6), [6], T(6), T(6), 1e-5)),
        *((T(2, 3, 1), [1], T(1), T(1), 1e-5), (T(0, 6), [6], T(6), T(6), 1e-5)),
        *((X.half(), [6], T(6), T(6), 1e-5), (X.bfloat16(), [6], None, None, 1e-5)),
        *((X, [5], T(5), T(5), 1e-5), (T(1, 1), [1], T(1), None, 1e-5), (X, [6], X, X, 1e-5)),
    ],
    A._native_batch_norm_legit_no_training.default: [
        (x, *stats, 0.1, 1e-5)
        for x in (
            *(IMAGE, IMAGE.contiguous(memory_format=LAST), T(1, 4, 5, 5), T(2, 4), T(1, 4)),
            *(T(1, 4, 5, 5).contiguous(memory_format=LAST), T(2, 4, 1, 1), T(1, 4, 1, 3)),
            *(T(0, 4, 3), T(2, 3, 4), IMAGE.half(), IMAGE.transpose(0, 1), T(2, 4, 7), T(4)),
        )
        for stats in ([T(4)] * 4, [None, None, T(4), T(4)], [T(4).half()] * 4)
    ],
    **dict.fromkeys((A.add.Tensor, A.sub.Tensor, A.mul.Tensor, A.div.Tensor), _BINARY),
    **dict.fromkeys((A.maximum.default, A.minimum.default), _BINARY),
    A.pow.Tensor_Scalar: [(x, n) for (x,) in _UNARY for n in (0, 1, 2, 3, 0.5, -1, 1j)],
    A.gelu_backward.default: _SAME,
    A.tanh_backward.default: _SAME,
    A.sigmoid_backward.default: _SAME,
    A.threshold_backward.default: [(*tensors, 0) for tensors in _SAME],
}
CALLS[A.native_batch_norm.default] = [
    (*args[:5], is_training, *args[5:])
    for args in CALLS[A._native_batch_norm_legit_no_training.default]
    for is_training in (False, True)
]
_UNARY_RULED = [op for op in RULES if op not in CALLS]
CALLS |= dict.fromkeys(_UNARY_RULED, _UNARY)


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
