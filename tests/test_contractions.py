"""Matrix products, convolutions and attention: by hand, and against FlopCounterMode on meta."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from calls import Call, count, meta
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf

size = st.integers(min_value=1, max_value=9)


def oracle(function: Callable[..., Any], *args: Any) -> int:
    """Contraction FLOPs as FlopCounterMode sees them on meta tensors."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        function(*args)
    return int(counter.get_total_flops())


def macs(function: Callable[..., Any], *args: Any) -> Any:
    return count(function, *args).macs


CASES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
    # name: function, inputs, MACs written out
    "mm": (torch.mm, (meta(2, 3), meta(3, 5)), 2 * 3 * 5),
    "matmul batched": (torch.matmul, (meta(7, 1, 2, 3), meta(4, 3, 5)), 7 * 4 * 2 * 3 * 5),
    "matmul vector": (torch.matmul, (meta(4, 2, 3), meta(3)), 4 * 2 * 3),
    "matmul two vectors": (torch.matmul, (meta(3), meta(3)), 3),
    "mv": (torch.mv, (meta(2, 3), meta(3)), 2 * 3),
    "dot": (torch.dot, (meta(3), meta(3)), 3),
    "inner": (torch.inner, (meta(4, 3), meta(5, 3)), 4 * 5 * 3),
    "bmm": (torch.bmm, (meta(4, 2, 3), meta(4, 3, 5)), 4 * 2 * 3 * 5),
    "baddbmm": (torch.baddbmm, (meta(4, 2, 5), meta(4, 2, 3), meta(4, 3, 5)), 4 * 2 * 3 * 5),
    "addmm": (torch.addmm, (meta(5), meta(2, 3), meta(3, 5)), 2 * 3 * 5),
    "tensordot": (
        lambda a, b: torch.tensordot(a, b, dims=([2, 0], [0, 1])),
        (meta(2, 3, 4), meta(4, 2, 5)),
        3 * 5 * 4 * 2,
    ),
    # PyTorch multiplies two vectors, which FlopCounterMode does not see.
    "tensordot of vectors": (
        lambda a, b: torch.tensordot(a, b, dims=([2], [1])),
        (meta(1, 1, 4), meta(1, 4)),
        4,
    ),
    "linear": (F.linear, (meta(2, 7, 3), meta(5, 3), meta(5)), 2 * 7 * 3 * 5),
    "conv1d": (F.conv1d, (meta(2, 3, 10), meta(4, 3, 3)), 2 * 4 * 8 * 3 * 3),
    "conv2d": (F.conv2d, (meta(1, 2, 5, 8), meta(8, 2, 3, 3)), 8 * 18 * 2 * 3 * 3),
    "conv2d unbatched": (F.conv2d, (meta(2, 5, 8), meta(8, 2, 3, 3)), 8 * 18 * 2 * 3 * 3),
    "conv2d padded": (
        lambda a, w: F.conv2d(a, w, padding=1, stride=2),
        (meta(1, 2, 8, 8), meta(4, 2, 3, 3)),
        4 * 4 * 4 * 2 * 3 * 3,
    ),
    "conv2d same": (
        lambda a, w: F.conv2d(a, w, padding="same"),
        (meta(1, 2, 8, 8), meta(4, 2, 3, 3)),
        4 * 64 * 2 * 3 * 3,
    ),
    "conv2d grouped": (
        lambda a, w: F.conv2d(a, w, groups=2),
        (meta(1, 4, 8, 8), meta(6, 2, 3, 3)),
        6 * 36 * 2 * 3 * 3,
    ),
    "conv2d depthwise": (
        lambda a, w: F.conv2d(a, w, groups=4, dilation=2),
        (meta(1, 4, 8, 8), meta(4, 1, 3, 3)),
        4 * 16 * 1 * 3 * 3,
    ),
    "conv3d": (F.conv3d, (meta(1, 2, 4, 5, 6), meta(3, 2, 2, 2, 2)), 3 * 3 * 4 * 5 * 2 * 8),
    # ConvTranspose2d(4, 4, 3, stride 2, pad 1, outpad 1, groups 4): 8 x 8 input positions.
    "conv_transpose2d grouped": (
        lambda a, w: F.conv_transpose2d(a, w, None, 2, 1, 1, 4),
        (meta(2, 4, 8, 8), meta(4, 1, 3, 3)),
        4608,
    ),
    "conv_transpose1d": (F.conv_transpose1d, (meta(2, 3, 10), meta(3, 4, 5)), 2 * 3 * 10 * 4 * 5),
    # 12 heads of 64: 2 products of 64 x 64 x 64; 12,582,912 FLOPs.
    "attention": (
        F.scaled_dot_product_attention,
        (meta(1, 12, 64, 64),) * 3,
        12_582_912 // 2,
    ),
    "attention Sq != Sk, Dk != Dv": (
        F.scaled_dot_product_attention,
        (meta(2, 3, 7, 4), meta(2, 3, 11, 4), meta(2, 3, 11, 5)),
        2 * 3 * 7 * 11 * (4 + 5),
    ),
    "einsum matmul": (lambda a, b: torch.einsum("ij,jk->ik", a, b), (meta(2, 3), meta(3, 5)), 30),
    "einsum attention": (
        lambda q, k: torch.einsum("bhld,bhsd->bhls", q, k),
        (meta(2, 3, 7, 4), meta(2, 3, 11, 4)),
        2 * 3 * 7 * 11 * 4,
    ),
    "einsum ellipsis": (
        lambda a, b: torch.einsum("...ij,...jk->...ik", a, b),
        (meta(4, 1, 2, 3), meta(6, 3, 5)),
        4 * 6 * 2 * 3 * 5,
    ),
    "einsum implicit": (lambda a, b: torch.einsum("ij,jk", a, b), (meta(2, 3), meta(3, 5)), 30),
    # i is in one operand only and not wanted: summed before the product.
    "einsum presummed": (lambda a, b: torch.einsum("ij,jk->k", a, b), (meta(2, 3), meta(3, 5)), 15),
    # A summed axis of one element: PyTorch multiplies, it makes no product of matrices.
    "einsum of one": (lambda a, b: torch.einsum("ij,jk->ik", a, b), (meta(2, 1), meta(1, 5)), 0),
    "einsum outer": (lambda a, b: torch.einsum("i,j->ij", a, b), (meta(2), meta(3)), 0),
    "einsum three": (
        lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c),
        (meta(2, 3), meta(3, 5), meta(5, 7)),
        2 * 3 * 5 + 2 * 5 * 7,
    ),
}
# FlopCounterMode has no formula for a matrix or vector times a vector and counts 0.
BLIND = {
    "mv",
    "dot",
    "tensordot of vectors",
    "matmul vector",
    "matmul two vectors",
    "einsum presummed",
}


@pytest.mark.parametrize("name", CASES)
def test_macs(name: str) -> None:
    function, args, expected = CASES[name]
    assert macs(function, *args) == expected
    if name not in BLIND:
        assert oracle(function, *args) == 2 * expected


@pytest.mark.parametrize(
    ("function", "args", "rest"),
    [
        # An axis that is 1 on the left: of the other side 3 rows of 5 are summed before.
        (lambda a, b: torch.tensordot(a, b, 1), (meta(2, 1), meta(3, 5)), 15 - 5),
        (F.linear, (meta(2, 3), meta(5, 3), meta(5)), 2 * 5),
        (F.conv2d, (meta(1, 2, 5, 8), meta(8, 2, 3, 3), meta(8)), 8 * 18),
        (torch.addmm, (meta(5), meta(2, 3), meta(3, 5)), 2 * 5),
        # alpha scales the 10 outputs, beta the 5 elements of the bias.
        (lambda *a: torch.addmm(*a, alpha=2, beta=3), (meta(5), meta(2, 3), meta(3, 5)), 25),
        (lambda *a: torch.addmm(*a, beta=0), (meta(5), meta(2, 3), meta(3, 5)), 0),
    ],
)
def test_a_bias_is_one_addition_per_output(
    function: Callable[..., Any], args: tuple[Any, ...], rest: int
) -> None:
    report = count(function, *args)
    assert report.flops - 2 * report.macs == rest


@settings(max_examples=25, deadline=None)
@given(size, size, size, size)
def test_linear_is_addmm_is_einsum(b: int, m: int, k: int, n: int) -> None:
    left, weight = meta(b, m, k), meta(n, k)
    expected = b * m * k * n
    assert macs(F.linear, left, weight) == expected
    assert macs(lambda a, w: a @ w.t(), left, weight) == expected
    # With nothing to sum, einsum multiplies.
    einsum = macs(lambda a, w: torch.einsum("bmk,nk->bmn", a, w), left, weight)
    assert einsum == (expected if k > 1 else 0)
    assert macs(lambda a, w: torch.mm(a.view(-1, a.shape[-1]), w.t()), left, weight) == expected


@settings(max_examples=25, deadline=None)
@given(size, size, size, size)
def test_a_convolution_of_one_pixel_is_a_matrix_product(b: int, c: int, o: int, s: int) -> None:
    image, weight = meta(b, c, s, s), meta(o, c, 1, 1)
    assert macs(F.conv2d, image, weight) == macs(F.linear, meta(b * s * s, c), meta(o, c))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_convolutions_equal_flop_counter_mode(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    groups, per, out = (data.draw(st.integers(1, 3)) for _ in range(3))
    kernel = data.draw(st.integers(1, 3))
    options = {
        "stride": data.draw(st.integers(1, 2)),
        "padding": data.draw(st.integers(0, 2)),
        "dilation": data.draw(st.integers(1, 2)),
        "groups": groups,
    }
    spatial = [data.draw(st.integers(5, 9)) for _ in range(rank)]
    transposed = data.draw(st.booleans())
    image = meta(2, groups * per, *spatial)
    shape = (groups * per, out) if transposed else (groups * out, per)
    weight = meta(*shape, *[kernel] * rank)
    function = getattr(F, f"conv_transpose{rank}d" if transposed else f"conv{rank}d")

    def call(a: torch.Tensor, w: torch.Tensor) -> Any:
        return function(a, w, **options)

    assert 2 * macs(call, image, weight) == oracle(call, image, weight)


LABELS = "abcde"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_einsum_equals_flop_counter_mode(data: st.DataObject) -> None:
    terms = [
        "".join(data.draw(st.lists(st.sampled_from(LABELS), min_size=1, max_size=4, unique=True)))
        for _ in range(2)
    ]
    used = sorted(set("".join(terms)))
    output = "".join(data.draw(st.lists(st.sampled_from(used), max_size=4, unique=True)))
    sizes = {label: data.draw(st.integers(2, 5)) for label in used}
    args = [meta(*(sizes[label] for label in term)) for term in terms]
    equation = f"{','.join(terms)}->{output}"

    def call(*tensors: torch.Tensor) -> torch.Tensor:
        return torch.einsum(equation, *tensors)

    assert 2 * macs(call, *args) == oracle(call, *args)


@settings(max_examples=20, deadline=None)
@given(size, size, st.integers(1, 3), st.integers(5, 9))
def test_a_convolution_is_the_product_of_its_unfolded_windows(
    c: int, o: int, k: int, s: int
) -> None:
    image, weight = meta(2, c, s, s), meta(o, c, k, k)

    def unfolded(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return w.flatten(1) @ F.unfold(a, k)

    assert macs(unfolded, image, weight) == macs(F.conv2d, image, weight)


def test_complex_products_cost_eight_per_mac() -> None:
    x = meta(2, 3, dtype=torch.complex64)
    y = meta(3, 5, dtype=torch.complex64)
    report = count(torch.mm, x, y)
    assert (report.macs, report.flops) == (30, 8 * 30)
    assert count(torch.mul, x, x.clone()).flops == 6 * 6
    assert count(torch.add, x, x.clone()).flops == 2 * 6
    assert count(lambda a: a * 3.0, x).flops == 2 * 6


def test_grouped_attention_equals_attention_over_repeated_heads() -> None:
    q, k, v = meta(2, 8, 6, 4), meta(2, 2, 10, 4), meta(2, 2, 10, 5)
    grouped = count(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), q, k, v
    )
    repeated = count(
        F.scaled_dot_product_attention,
        q,
        meta(2, 8, 10, 4),
        meta(2, 8, 10, 5),
    )
    assert (grouped.macs, grouped.flops) == (repeated.macs, repeated.flops)
    # By query heads for work, by KV heads for bytes.
    assert repeated.bytes_read - grouped.bytes_read == 4 * 2 * (8 - 2) * 10 * (4 + 5)


def test_fused_and_written_out_attention_have_the_same_contractions() -> None:
    def written_out(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return ((q @ k.transpose(-1, -2)) * 0.5).softmax(-1) @ v

    args = (meta(2, 3, 7, 4), meta(2, 3, 11, 4), meta(2, 3, 11, 5))
    assert macs(written_out, *args) == macs(F.scaled_dot_product_attention, *args)


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (3, 8), (8, 3), (1, 1)])
def test_causal_masking_is_shown_beside_the_dense_count(rows: int, columns: int) -> None:
    q, k, v = meta(2, 3, rows, 4), meta(2, 3, columns, 4), meta(2, 3, columns, 6)
    dense = count(F.scaled_dot_product_attention, q, k, v)
    causal = count(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), q, k, v)
    assert (causal.macs, dense.total.flops_masked) == (dense.macs, 0)
    hidden = sum(column > row for row in range(rows) for column in range(columns))
    assert causal.total.flops_masked == 2 * 2 * 3 * hidden * (4 + 6)


def test_symbolic_shapes_give_the_concrete_number() -> None:
    batch, length = torch.export.Dim("B", min=2), torch.export.Dim("S", min=2)

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True) @ w

    q = meta(3, 2, 5, 4)
    args = (q, q.clone(), q.clone(), meta(4, 7))
    shapes = ({0: batch, 2: length},) * 3 + (None,)
    report = gf.count(Call(call), args, dynamic_shapes=(shapes,))
    names = {symbol.name for symbol in sympy.sympify(report.flops).free_symbols}
    assert len(names) == 2
    for b, s in ((3, 5), (2, 64)):
        concrete_q = meta(b, 2, s, 4)
        concrete = count(call, concrete_q, concrete_q.clone(), concrete_q.clone(), meta(4, 7))
        by_order = [dict(zip(sorted(names), pair, strict=True)) for pair in ((b, s), (s, b))]
        assert concrete.total in [report.total.subs(**values) for values in by_order]


def test_experts_in_groups_cost_rows_times_their_own_weights() -> None:
    import transformers.integrations.moe  # noqa: F401 - registers the operator

    rows, experts, k, n = 10, 4, 6, 8
    report = count(
        torch.ops.transformers.grouped_mm_fallback,
        meta(rows, k),
        meta(experts, k, n),
        torch.zeros(experts, dtype=torch.int32, device="meta"),
    )
    assert report.macs == rows * k * n
