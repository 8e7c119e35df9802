"""Everything that is not a contraction, against PyTorch's own decomposition into prims."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
import torch.nn.functional as F
from calls import count, meta

x = meta(4, 6, 8)
w = meta(8)
image = meta(2, 4, 8, 8)
c = meta(4)
row = meta(8)

UNARY: list[Callable[[torch.Tensor], torch.Tensor]] = [
    *(torch.neg, torch.abs, torch.reciprocal, torch.square, torch.sign, torch.floor, torch.ceil),
    *(torch.round, torch.trunc, torch.frac, torch.exp, torch.exp2, torch.expm1, torch.log),
    *(torch.log1p, torch.log2, torch.log10, torch.sqrt, torch.rsqrt, torch.sin, torch.cos),
    *(torch.tan, torch.asin, torch.acos, torch.atan, torch.sinh, torch.cosh, torch.tanh),
    *(torch.asinh, torch.acosh, torch.atanh, torch.erf, torch.erfc, torch.erfinv, torch.lgamma),
    *(torch.digamma, torch.sigmoid, torch.sinc, torch.isnan, torch.nan_to_num, F.relu, F.relu6),
    *(F.silu, F.mish, F.elu, F.selu, F.celu, F.leaky_relu, F.hardswish, F.hardsigmoid),
    *(F.hardtanh, F.hardshrink, F.softshrink, F.logsigmoid, F.gelu, F.softplus, F.glu),
]

CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    **{f.__name__: (f, (x,)) for f in UNARY},
    "add": (torch.add, (x, row)),
    "add scaled": (lambda a, b: torch.add(a, b, alpha=2), (x, x.clone())),
    "add scalar": (lambda a: a + 3, (x,)),
    "sub scaled": (lambda a, b: torch.sub(a, b, alpha=2), (x, x.clone())),
    "rsub": (lambda a: 1 - a, (x,)),
    "mul": (torch.mul, (x, row)),
    "div": (torch.div, (x, row)),
    "floor_divide": (torch.floor_divide, (x, x.clone())),
    "fmod": (torch.fmod, (x, row)),
    "remainder": (torch.remainder, (x, row)),
    "maximum": (torch.maximum, (x, row)),
    "minimum": (torch.minimum, (x, row)),
    "atan2": (torch.atan2, (x, row)),
    "outer": (torch.outer, (row, w)),
    **{
        f"compare {f.__name__}": (f, (x, row))
        for f in (torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge)
    },
    "pow 2": (lambda a: a**2, (x,)),
    "pow 3": (lambda a: a**3, (x,)),
    "pow half": (lambda a: a**0.5, (x,)),
    "pow -1": (lambda a: a**-1, (x,)),
    "pow of scalar": (lambda a: 2**a, (x,)),
    "pow of tensors": (torch.pow, (x, row)),
    "clamp": (lambda a: a.clamp(0, 1), (x,)),
    "clamp low": (lambda a: a.clamp(min=0), (x,)),
    "clamp tensors": (torch.clamp, (x, row, row)),
    "clamp_min": (lambda a: torch.clamp_min(a, 0), (x,)),
    "addcmul": (torch.addcmul, (x, x.clone(), row)),
    "addcdiv": (torch.addcdiv, (x, x.clone(), row)),
    "where": (torch.where, (meta(4, 6, 8, dtype=torch.bool), x, row)),
    "masked_fill": (lambda a, m: a.masked_fill(m, 0.0), (x, meta(8, dtype=torch.bool))),
    "dropout": (lambda a: F.dropout(a, 0.1, training=True), (x,)),
    "dropout off": (lambda a: F.dropout(a, 0.1, training=False), (x,)),
    "gelu tanh": (lambda a: F.gelu(a, approximate="tanh"), (x,)),
    "softplus beta": (lambda a: F.softplus(a, beta=2.0), (x,)),
    "prelu": (F.prelu, (image, c)),
    "threshold": (lambda a: F.threshold(a, 0.1, 0.0), (x,)),
    "softmax": (lambda a: a.softmax(-1), (x,)),
    "softmax middle": (lambda a: F.softmax(a, 1), (x,)),
    "softmax upcast": (
        lambda a: F.softmax(a, -1, dtype=torch.float32),
        (meta(4, 8, dtype=torch.bfloat16),),
    ),
    "log_softmax": (lambda a: F.log_softmax(a, -1), (x,)),
    "logsumexp": (lambda a: a.logsumexp(-1), (x,)),
    "sum": (lambda a: a.sum(1), (x,)),
    "sum all": (torch.sum, (x,)),
    "mean": (lambda a: a.mean((0, 2)), (x,)),
    "amax": (lambda a: a.amax(-1), (x,)),
    "prod": (lambda a: a.prod(-1), (x,)),
    "all": (torch.all, (x,)),
    "var": (lambda a: a.var(-1), (x,)),
    "std": (lambda a: a.std(-1), (x,)),
    "var_mean": (lambda a: torch.var_mean(a, -1), (x,)),
    "std_mean": (lambda a: torch.std_mean(a, -1), (x,)),
    **{
        f"vector_norm {p}": (lambda a, p=p: torch.linalg.vector_norm(a, p, -1), (x,))
        for p in (0, 1, 2, 3, 4, 2.5, float("inf"), float("-inf"))
    },
    "weight_norm": (lambda v, g: torch._weight_norm(v, g, 0), (meta(4, 5, 3), meta(4, 1, 1))),
    "diff": (torch.diff, (x,)),
    "diff twice": (lambda a: torch.diff(a, n=3), (x,)),
    "arange": (lambda: torch.arange(0.0, 10.0, 0.5, device="meta"), ()),
    "layer_norm": (lambda a, g, b: F.layer_norm(a, (8,), g, b), (x, w, row)),
    "layer_norm two axes": (lambda a: F.layer_norm(a, (6, 8)), (x,)),
    "layer_norm no bias": (lambda a, g: F.layer_norm(a, (8,), g), (x, w)),
    "rms_norm": (lambda a, g: F.rms_norm(a, (8,), g), (x, w)),
    "rms_norm plain": (lambda a: F.rms_norm(a, (8,)), (x,)),
    "group_norm": (lambda a, g, b: F.group_norm(a, 2, g, b), (image, c, c.clone())),
    "group_norm plain": (lambda a: F.group_norm(a, 2), (image,)),
    "batch_norm": (lambda a, *s: F.batch_norm(a, *s), (image, c, c.clone(), c.clone(), c.clone())),
    "batch_norm plain": (lambda a, m, v: F.batch_norm(a, m, v), (image, c, c.clone())),
    "batch_norm training": (
        lambda a, m, v, g, b: F.batch_norm(a, m, v, g, b, training=True),
        (image, c, c.clone(), c.clone(), c.clone()),
    ),
    "batch_norm untracked": (lambda a: F.batch_norm(a, None, None, training=True), (image,)),
    "instance_norm": (F.instance_norm, (image,)),
    "instance_norm affine": (lambda a, g: F.instance_norm(a, weight=g, bias=g), (image, c)),
    "instance_norm tracked": (
        lambda a, m, v: F.instance_norm(a, m, v),
        (image, c, c.clone()),
    ),
    "instance_norm fixed": (
        lambda a, m, v: F.instance_norm(a, m, v, use_input_stats=False),
        (image, c, c.clone()),
    ),
    **{
        f"interpolate {mode} {corners} {target}": (
            lambda a, m=mode, k=corners, t=target: F.interpolate(a, t, mode=m, align_corners=k),
            (meta(2, 3, *(4, 5, 6)[:rank]),),
        )
        for mode, rank in (("linear", 1), ("bilinear", 2), ("trilinear", 3), ("bicubic", 2))
        for corners in (False, True)
        for target in ((7, 9, 11)[:rank],)
    },
    "interpolate nearest": (lambda a: F.interpolate(a, scale_factor=2.0), (image,)),
    "attention": (
        F.scaled_dot_product_attention,
        (meta(2, 4, 6, 8), meta(2, 4, 10, 8), meta(2, 4, 10, 5)),
    ),
    "attention masked": (
        F.scaled_dot_product_attention,
        (meta(2, 4, 6, 8), meta(2, 4, 10, 8), meta(2, 4, 10, 5), meta(6, 10)),
    ),
    "attention bool mask": (
        F.scaled_dot_product_attention,
        (meta(2, 4, 6, 8), meta(2, 4, 10, 8), meta(2, 4, 10, 5), meta(6, 10, dtype=torch.bool)),
    ),
    "attention causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        (meta(2, 4, 6, 8), meta(2, 4, 10, 8), meta(2, 4, 10, 5)),
    ),
    "attention grouped": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        (meta(2, 8, 6, 8), meta(2, 2, 10, 8), meta(2, 2, 10, 5)),
    ),
}


# 1 / sqrt(var + eps) times 1, a root and two more of each channel, is rsqrt in later references.
ROOTS = {"batch_norm", "batch_norm plain", "instance_norm fixed"} if oracle.REWRITTEN else set()


@pytest.mark.parametrize("name", CASES)
def test_flops_equal_the_prims(name: str) -> None:
    function, args = CASES[name]
    expected = oracle.count(function, *args)
    more = 2 * expected.transcendentals if name in ROOTS else 0
    # full_like (a fill) and masked dropout's generator do no arithmetic.
    assert expected.stopped <= {"aten::full_like"}
    ours = count(function, *args)
    assert (ours.flops, ours.transcendentals) == (expected.flops + more, expected.transcendentals)


def test_a_prefix_sum_is_counted_as_a_scan_not_as_the_reference_sums_it() -> None:
    # The reference sums every prefix afresh: 24 lanes of 8 * 8 - 8 additions.
    assert oracle.count(lambda a: a.cumsum(-1), x).flops == 24 * (8 * 8 - 8)
    assert count(lambda a: a.cumsum(-1), x).flops == 24 * (8 - 1)


@pytest.mark.parametrize(
    ("function", "flops"),
    [
        # Windows of 3 x 2: 8 comparisons less one each, or 5 additions and a division.
        (lambda a: F.max_pool2d(a, (3, 2)), 2 * 4 * (2 * 4) * (3 * 2 - 1)),
        (lambda a: F.avg_pool2d(a, (3, 2)), 2 * 4 * (2 * 4) * (3 * 2)),
        (lambda a: F.adaptive_max_pool2d(a, 2), 2 * 4 * (2 * 2) * (4 * 4 - 1)),
        # 8 into 2 windows of 4 each way; into 3 and 5, windows overlap: 3+4+3 and 2+3+2+3+2.
        (lambda a: F.adaptive_avg_pool2d(a, 2), 2 * 4 * (4 + 4) * (4 + 4)),
        (lambda a: F.adaptive_avg_pool2d(a, (3, 5)), 2 * 4 * 10 * 12),
        (
            lambda a: a.index_add(
                0, torch.zeros(3, dtype=torch.int64, device="meta"), a[[0, 0, 0]]
            ),
            3 * 4 * 8 * 8,
        ),
        (lambda a: a.max(), 2 * 4 * 8 * 8 - 1),
        (lambda a: a.max(-1), 2 * 4 * 8 * (8 - 1)),
        (lambda a: a.argmax(-1), 2 * 4 * 8 * (8 - 1)),
        # 64 lanes of 8: log2(8) = 3 rounds; of the top 3: 5 losers, and 3 to put in order.
        (lambda a: a.sort(-1), 64 * 8 * 3),
        (lambda a: a.topk(3), 64 * (5 + 3 * 2)),
        (lambda a: a.topk(1), 64 * 7),
        (lambda a: a.topk(8), 64 * 8 * 3),
    ],
)
def test_where_the_prims_stop_the_arithmetic_is_by_hand(
    function: Callable[..., Any], flops: int
) -> None:
    assert count(function, image).flops == flops


@pytest.mark.parametrize(
    ("left", "right", "flops"),
    [((2, 3, 4), (4,), 24), ((8,), (2, 8), 16), ((4, 1, 7), (1, 5, 7), 140)],
)
def test_broadcasting_costs_the_output(
    left: tuple[int, ...], right: tuple[int, ...], flops: int
) -> None:
    assert count(lambda a, b: a * b, meta(*left), meta(*right)).flops == flops


def test_integers_cost_nothing_but_move() -> None:
    report = count(lambda i: (i + 1) * 2 // 3, meta(10, dtype=torch.int64))
    assert report.flops == 0
    assert report.bytes_read == 3 * 80


def test_integer_division_to_floats_does_cost() -> None:
    assert count(lambda i: i / 2, meta(10, dtype=torch.int64)).flops == 10
