"""Calls of operators on meta tensors, in usual and unusual layouts."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from graphflops.capture.fake.result_layouts import RULES

A = torch.ops.aten
LAST = torch.channels_last


def T(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:  # noqa: N802 - a tensor
    return torch.empty(shape, dtype=dtype, device="meta")


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


def _convolved(*args: Any) -> list[torch.Tensor]:
    """The result of a convolution, unless the arguments do not fit."""
    try:
        return [A.convolution.default(*args)]
    except (RuntimeError, ZeroDivisionError):
        return []


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
        *(
            (IMAGE, T(6, 4, 3, 2), b, [2, 1], [0, 3], [1, 2], False, [0, 0], 1)
            for b in (None, T(5))
        ),
        *((IMAGE, T(4, 3, 3, 2), None, [2, 3], [1, 0], [2, 1], True, [1, 2], g) for g in (1, 2, 3)),
        (IMAGE, T(4, 3, 3, 3), None, [2, 2], [1, 1], [1, 1], True, [2, 2], 1),
        *((IMAGE, T(6, n, 3, 3), T(6), [1], [1], [1], False, [0], 2) for n in (1, 2, 4)),
        *((IMAGE, T(6, 4, k, 3), None, *_CONV) for k in (0, 10, 11)),
        *((IMAGE, T(6, 4, 3, 3), T(6), [s, 1], [p, 1], *_CONV[2:]) for s, p in ((0, 1), (1, -1))),
        (IMAGE, T(6, 4, 3, 3).half(), None, *_CONV),
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
    A.view.default: [
        *((X, [24]), (X, [-1, 3]), (_TRANSPOSED, [24]), (T(0, 3), [0, 9]), (X, [5, -1])),
        *(
            (x, size)
            for x in (
                *(T(6, 2, 4).transpose(0, 1), T(4, 6, 2).permute(2, 0, 1), T(4, 12)[:, :6]),
                *(T(8, 6)[::2], T(2, 3, 4, 5)[:, :, :2], T(3, 4).expand(2, 3, 4), T(2, 1, 6)),
            )
            for size in itertools.product((2, 3, 4, 6, -1), repeat=3)
        ),
    ],
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
_BATCH_NORMS = CALLS[A._native_batch_norm_legit_no_training.default]
CALLS[A.native_batch_norm.default] = [
    (*args[:5], is_training, *args[5:]) for args in _BATCH_NORMS for is_training in (False, True)
]
CALLS[A.native_batch_norm.default] += [
    (x, w, b, None, None, True, *rest) for x, w, b, _, _, *rest in _BATCH_NORMS
]
_MASKS = [list(mask) for mask in itertools.product((False, True), repeat=3)]
_GRADIENTS_OF_SCORES = [
    (g, y, -1, y.dtype) for x in (*_UNARY, (IMAGE,)) for y in x for g in (y, torch.empty_like(y))
]
_GRADIENTS_OF_SCORES += [(X, X, 0, X.dtype), (X, X, 2, X.dtype), (X, _TRANSPOSED.t(), 1, X.dtype)]
_GRADIENTS_OF_SCORES += [(X, X, 1, torch.half), (T(1).expand(4, 6), X, 1, X.dtype)]
CALLS |= {
    A.native_layer_norm_backward.default: [
        (g, x, n, *[x[..., :1]] * 2, w, b, mask)
        for x, n, w, b, _ in CALLS[A.native_layer_norm.default]
        for g in (x, torch.empty_like(x).contiguous(), X.t().contiguous().t(), X[:, :1])
        for mask in _MASKS
    ],
    A.native_batch_norm_backward.default: [
        (g, x, w, *stats, is_training, 1e-5, mask)
        for x, w, _, mean, variance, *_ in _BATCH_NORMS
        for g in (x, torch.empty_like(x).contiguous(), T(2, 1, 1, 1).expand(2, 4, 8, 8))
        for stats in ((mean, variance, T(0), T(0)), (None, None, T(4), T(4)), (mean, variance) * 2)
        for is_training in (False, True)
        for mask in _MASKS[::3]
    ],
    A.convolution_backward.default: [
        (g, x, w, bias if b is None else list(b.shape), *rest, mask)
        for x, w, b, *rest in CALLS[A.convolution.default]
        for bias in (None, [0])
        for out in _convolved(x, w, b, *rest)
        for g in (out, torch.empty_like(out).transpose(-1, -2), out.half(), out[..., :1])
        for mask in _MASKS
    ],
    **dict.fromkeys(
        (A._softmax_backward_data.default, A._log_softmax_backward_data.default),
        _GRADIENTS_OF_SCORES,
    ),
}
_UNARY_RULED = [op for op in RULES if op not in CALLS]
CALLS |= dict.fromkeys(_UNARY_RULED, _UNARY)
