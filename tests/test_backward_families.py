"""Backward of losses, pooling, resampling, lookups and distances."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import oracle
import pytest
import torch
from calls import count_call, meta
from test_backward import price, reference, same
from torch._decomp import decompositions

aten = torch.ops.aten
NONE, MEAN, SUM = 0, 1, 2
x, y, row = meta(4, 6), meta(4, 6), meta(6)
one = torch.empty((), device="meta")
image = meta(2, 3, 6, 8)


def indices(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int64, device="meta")


def gradient(reduction: int, *shape: int) -> torch.Tensor:
    return one if reduction else meta(*shape)


LOSSES: dict[str, tuple[Any, ...]] = {
    **{
        f"{name} {way} {reduction}": (
            getattr(aten, f"{name}{suffix}").default,
            *((gradient(reduction, 4, 6),) if suffix else ()),
            *(x, y, reduction, *parameters),
        )
        for name, parameters in (
            ("mse_loss", ()),
            ("smooth_l1_loss", (0.5,)),
            ("huber_loss", (0.5,)),
            ("soft_margin_loss", ()),
        )
        for way, suffix in (("forward", ""), ("backward", "_backward"))
        for reduction in (NONE, MEAN, SUM)
    },
    **{
        f"bce {weight is not None} {reduction}": (
            aten.binary_cross_entropy.default,
            *(x, y, weight, reduction),
        )
        for weight, reduction in itertools.product((None, row), (NONE, MEAN, SUM))
    },
    **{
        f"bce backward {weight is not None} {reduction}": (
            aten.binary_cross_entropy_backward.default,
            *(gradient(reduction, 4, 6), x, y, weight, reduction),
        )
        for weight, reduction in itertools.product((None, row), (NONE, MEAN, SUM))
    },
    **{
        f"bce with logits {weight is not None} {positive is not None} {reduction}": (
            aten.binary_cross_entropy_with_logits.default,
            *(x, y, weight, positive, reduction),
        )
        for weight, positive, reduction in itertools.product(
            (None, row), (None, row.clone()), (NONE, MEAN, SUM)
        )
    },
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_equals_the_prims(name: str) -> None:
    op, *args = LOSSES[name]
    assert same(price(op, *args), reference(op, *args))


@pytest.mark.parametrize("weight", [None, row])
@pytest.mark.parametrize("reduction", [NONE, MEAN, SUM])
@pytest.mark.parametrize("pixels", [(), (3, 5)])
def test_the_likelihood_of_targets_equals_the_prims(
    weight: Any, reduction: int, pixels: tuple[int, ...]
) -> None:
    name = "nll_loss2d" if pixels else "nll_loss"
    scores, target = meta(4, 6, *pixels), indices(4, *pixels)
    forward = getattr(aten, f"{name}_forward").default
    args = (scores, target, weight, reduction, -100)
    assert same(price(forward, *args), oracle.count(forward, *args))
    backward = getattr(aten, f"{name}_backward").default
    given = (gradient(reduction, 4, *pixels), *args, one)
    expected = reference(backward, *given)
    # -1 is put where the target is: nothing is computed.
    expected.stopped -= {"aten::scatter"}
    assert same(price(backward, *given), expected)


def test_margin_losses_by_hand() -> None:
    def flops(p: int, weight: Any) -> Any:
        args = (one, x, indices(4), p, 1.0, weight, MEAN)
        return count_call(aten.multi_margin_loss_backward.default, *args, out=x).flops

    # margin - x[target] + x, > 0, what the target loses, times the gradient.
    assert flops(1, None) == 4 * 6 * (2 + 1 + 1 + 1)
    assert flops(2, None) - flops(1, None) == 4 * 6 * 2
    assert flops(1, row) - flops(1, None) == 4 * 6
    args = (one, x, indices(4, 6), MEAN, y)
    labels = count_call(aten.multilabel_margin_loss_backward.default, *args, out=x)
    # Every pair of a label and a class: added, compared, gained and lost.
    assert labels.flops == 4 * 6 * (1 + 6 * 4 + 1)


POOLS: dict[str, tuple[Any, tuple[Any, ...], int]] = {
    "avg 2d": (
        aten.avg_pool2d_backward,
        (meta(2, 3, 3, 4), image, [2, 2], [2, 2], [0, 0], False, True, None),
        2 * 3 * (3 * 4) * (1 + 2 * 2),
    ),
    "avg 3d": (
        aten.avg_pool3d_backward,
        (meta(2, 2, 3, 4), meta(2, 4, 6, 12), [2, 2, 3], [2, 2, 3], [0] * 3, False, True, None),
        2 * (2 * 3 * 4) * (1 + 2 * 2 * 3),
    ),
    # 6 into 4: windows of 2 (0-1, 1-2, 3-4, 4-5); 8 into 4 likewise.
    "adaptive avg 2d": (
        aten._adaptive_avg_pool2d_backward,
        (meta(2, 3, 4, 4), image),
        2 * 3 * (4 * 4 + (4 * 2) * (4 * 2)),
    ),
    "adaptive avg 3d": (
        aten._adaptive_avg_pool3d_backward,
        (meta(2, 3, 2, 2, 2), meta(2, 3, 4, 6, 8)),
        2 * 3 * (2 * 2 * 2 + 4 * 6 * 8),
    ),
    "max 2d": (
        aten.max_pool2d_with_indices_backward,
        (meta(2, 3, 3, 4), image, [2, 2], [2, 2], [0, 0], [1, 1], False, indices(2, 3, 3, 4)),
        2 * 3 * 3 * 4,
    ),
    "max 3d": (
        aten.max_pool3d_with_indices_backward,
        (
            *(meta(2, 2, 3, 4), meta(2, 4, 6, 8), [2] * 3, [2] * 3, [0] * 3, [1] * 3, False),
            indices(2, 2, 3, 4),
        ),
        2 * 2 * 3 * 4,
    ),
    "adaptive max 2d": (
        aten.adaptive_max_pool2d_backward,
        (meta(2, 3, 2, 2), image, indices(2, 3, 2, 2)),
        2 * 3 * 2 * 2,
    ),
    "adaptive max 3d": (
        aten.adaptive_max_pool3d_backward,
        (meta(2, 2, 2, 2), meta(2, 4, 6, 8), indices(2, 2, 2, 2)),
        2 * 2 * 2 * 2,
    ),
    "fractional max": (
        aten.fractional_max_pool2d_backward,
        (meta(2, 3, 3, 4), image, [2, 2], [3, 4], indices(2, 3, 3, 4)),
        2 * 3 * 3 * 4,
    ),
    # Padding: 1 and 2 on either side.
    "reflection": (
        aten.reflection_pad2d_backward,
        (meta(2, 3, 10, 10), image, [1, 1, 2, 2]),
        2 * 3 * 10 * 10,
    ),
    "replication": (
        aten.replication_pad3d_backward,
        (meta(3, 4, 8, 10), meta(3, 2, 6, 8), [1] * 6),
        3 * 4 * 8 * 10,
    ),
    "select": (aten.select_backward, (row, [4, 6], 0, 1), 0),
    "slice": (aten.slice_backward, (meta(2, 6), [4, 6], 0, 1, 3, 1), 0),
    "diagonal": (aten.diagonal_backward, (meta(4), [4, 6], 0, 0, 1), 0),
}


@pytest.mark.parametrize("name", POOLS)
def test_what_is_put_back_by_hand(name: str) -> None:
    packet, args, flops = POOLS[name]
    assert price(packet.default, *args).flops == flops


@pytest.mark.parametrize(
    ("op", "args"),
    [
        (aten.embedding_dense_backward, (meta(3, 4, 6), indices(3, 4), 10, -1, False)),
        (aten.embedding_dense_backward, (meta(3, 4, 6), indices(3, 4), 10, 0, True)),
        (aten.unfold_backward, (meta(2, 4, 4), [2, 10], 1, 4, 2)),
        (aten.max_pool2d_with_indices_backward, POOLS["max 2d"][1]),
    ],
)
def test_what_is_added_to_its_place_is_one_addition(op: Any, args: tuple[Any, ...]) -> None:
    expected = reference(op.default, *args)
    assert expected.scattered
    assert price(op.default, *args).flops == expected.flops + expected.scattered


def test_columns_are_added_to_their_image() -> None:
    # 3 x 3 windows at 4 x 6 places of 6 x 8.
    args = (meta(2, 27, 24), [6, 8], [3, 3], [1, 1], [0, 0], [1, 1])
    assert price(aten.col2im.default, *args).flops == 2 * 27 * 24


SUMS, MEANS, MAXIMA = 0, 1, 2


@pytest.mark.parametrize(
    ("mode", "by_frequency", "weighted", "flops"),
    [
        # 5 rows of 6 added; scaled, once more; 5 scales divided.
        (SUMS, False, False, 5 * 6),
        (SUMS, False, True, 2 * 5 * 6),
        (SUMS, True, False, 2 * 5 * 6 + 5),
        (MEANS, False, False, 2 * 5 * 6 + 5),
        (MEANS, True, False, 2 * 5 * 6 + 2 * 5),
        (MAXIMA, False, False, 2 * 6),
    ],
)
def test_bags_by_hand(mode: int, by_frequency: bool, weighted: bool, flops: int) -> None:
    places = (indices(5), indices(5), indices(2), indices(2))
    weights = meta(5) if weighted else None
    dense = count_call(
        aten._embedding_bag_dense_backward.default,
        *(meta(2, 6), *places, 10, by_frequency, mode, weights),
        out=meta(10, 6),
    )
    either = count_call(
        aten._embedding_bag_backward.default,
        *(meta(2, 6), indices(5), indices(2), *places[1:], 10, by_frequency, mode, False, weights),
        out=meta(10, 6),
    )
    assert dense.flops == either.flops == flops


def test_weights_of_a_bag_are_dot_products() -> None:
    report = count_call(
        aten._embedding_bag_per_sample_weights_backward.default,
        *(meta(2, 6), meta(10, 6), indices(5), indices(2), indices(5), SUMS),
        out=meta(5),
    )
    assert (report.macs, report.flops) == (5 * 6, 2 * 5 * 6)


def spread(fn: Callable[[torch.Tensor], torch.Tensor], size: tuple[int, ...]) -> int:
    """Autograd of a decomposition, in which each of k corners has an image of its own."""
    traced = oracle.backward_anew(fn, meta(*size), wrt={0})
    corners = traced.scattered // fn(meta(*size)).numel()
    # Their k - 1 additions of whole images are none if all are added to one.
    return traced.flops - (corners - 1) * meta(*size).numel() + traced.scattered


INTERPOLATED = {"linear1d": (10,), "bilinear2d": (10, 12), "trilinear3d": (10, 12, 4)}


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("name", INTERPOLATED)
def test_interpolation_equals_autograd_of_its_decomposition(name: str, corners: bool) -> None:
    target = INTERPOLATED[name]
    size = (2, 3, *(6, 8, 2)[: len(target)])
    op = getattr(aten, f"upsample_{name}_backward").default
    ours = price(op, meta(2, 3, *target), list(target), list(size), corners)
    scales = [None] * len(target)
    assert ours.flops == spread(
        lambda a: decompositions._upsample_linear(a, list(target), corners, scales), size
    )


@pytest.mark.parametrize("corners", [False, True])
def test_cubic_interpolation_equals_autograd_of_its_decomposition(corners: bool) -> None:
    ours = price(
        aten.upsample_bicubic2d_backward.default,
        *(meta(2, 3, 10, 12), [10, 12], [2, 3, 6, 8], corners),
    )
    assert ours.flops == spread(
        lambda a: decompositions.upsample_bicubic2d_default(a, [10, 12], corners), (2, 3, 6, 8)
    )


def test_neighbours_equal_autograd_of_their_decomposition() -> None:
    for op in (aten.upsample_nearest2d_backward, aten._upsample_nearest_exact2d_backward):
        ours = price(op.default, meta(2, 3, 10, 12), [10, 12], [2, 3, 6, 8])
        assert ours.flops == spread(
            lambda a: decompositions._upsample_nearest(a, [10, 12], [None, None]), (2, 3, 6, 8)
        )


@pytest.mark.parametrize("kind", ["bilinear", "bicubic", "lanczos"])
def test_antialiasing_turned_round_adds_every_product(kind: str) -> None:
    ours = price(
        getattr(aten, f"_upsample_{kind}2d_aa_backward").default,
        *(meta(1, 2, 3, 5), [3, 5], [1, 2, 8, 9], False),
    )
    forward = price(
        getattr(aten, f"_upsample_{kind}2d_aa").default, meta(1, 2, 8, 9), [3, 5], False
    )
    # The forward adds one product less in each sum: 8 x 5 of rows, then 3 x 5 of columns.
    assert ours.flops - forward.flops == 2 * (8 * 5 + 3 * 5)


GRIDS = [
    (mode, padding, asked)
    for mode, padding in itertools.product((0, 1, 2), (0, 1, 2))
    for asked in ((True, False), (False, True), (True, True))
    # Cubic ones take seconds to trace.
    if mode < 2 or padding == 0 or asked == (True, True)
]


@pytest.mark.parametrize(("mode", "padding", "asked"), GRIDS)
def test_a_grid_sampler_equals_autograd_of_its_decomposition(
    mode: int, padding: int, asked: tuple[bool, bool]
) -> None:
    grid, out = meta(2, 5, 7, 2), meta(2, 3, 5, 7)
    args = (out, image, grid, mode, padding, False, list(asked))
    ours = price(aten.grid_sampler_2d_backward.default, *args)
    if mode == 1:
        # Rounded, a coordinate has no gradient.
        asked = (asked[0], False)
    if not any(asked):
        assert ours.flops == 0
        return
    traced = oracle.backward_anew(
        lambda a, g: decompositions._grid_sampler_2d(
            a, g, mode, padding, False, _expand_grid=False
        ),
        *(image, grid),
        wrt={i for i, wanted in enumerate(asked) if wanted},
    )
    images = max(traced.scattered // out.numel() - 1, 0)
    assert ours.flops == traced.flops - images * image.numel() + traced.scattered


def test_volumes_are_sampled_with_an_axis_and_four_corners_more() -> None:
    volume, grid, out = meta(1, 2, 4, 4, 4), meta(1, 3, 3, 3, 3), meta(1, 2, 3, 3, 3)

    def flops(mode: int, *asked: bool) -> Any:
        args = (out, volume, grid, mode, 0, False, list(asked))
        return price(aten.grid_sampler_3d_backward.default, *args).flops

    # Unnormalized 2, floor, next; 8 corners, each with 3 distances and 6 tests.
    again = 27 * (3 * 4 + 8 * (3 + 6))
    assert flops(0, True, False) == again + 27 * 8 * (2 + 2 * 2)
    assert flops(0, False, True) == again + 27 * (8 * (2 + 1) + 8 * 3 * 3 + 2 * 3)
    assert flops(1, True, True) == 27 * (3 * (2 + 1 + 2) + 2 * 2)


def test_other_grid_samplers_ask_for_both() -> None:
    grid, out = meta(2, 5, 7, 2), meta(2, 3, 5, 7)
    both = price(aten.grid_sampler_2d_backward.default, out, image, grid, 0, 0, True, [True, True])
    cudnn = count_call(
        aten.cudnn_grid_sampler_backward.default, image, grid, out, out=(image, grid)
    )
    fallback = count_call(
        aten._grid_sampler_2d_cpu_fallback_backward.default,
        *(out, image, grid, 0, 0, True),
        out=(image, grid),
    )
    assert both.flops == cudnn.flops == fallback.flops


@pytest.mark.parametrize(
    ("p", "term"),
    [
        (0.0, 0),
        # d, sign(d), g; d, g, / dist, dist tested; d, sign, |d|, compared with dist, g.
        (1.0, 1 + 1 + 1),
        (2.0, 1 + 1 + 1 + 1),
        (float("inf"), 1 + 1 + 1 + 1 + 1),
        # d, |d|, its power, times d, times g, / power of dist, dist tested.
        (3.0, 1 + 1 + 1 + 1 + 1 + 2 + 1),
    ],
)
def test_distances_by_hand(p: float, term: int) -> None:
    cross = price(aten._cdist_backward.default, meta(4, 5), x, meta(5, 6), p, meta(4, 5))
    assert cross.flops == 4 * 5 * 6 * (term + 1 if term else 0)
    pairs = price(aten._pdist_backward.default, row, x, p, row.clone())
    assert pairs.flops == 6 * 6 * (term + 2 if term else 0)


def test_segments_and_learned_quantization_by_hand() -> None:
    def segments(reduce: str) -> Any:
        args = (meta(2, 6), meta(2, 6), x, reduce)
        op = aten._segment_reduce_backward.default
        return count_call(op, *args, out=x, lengths=indices(2)).flops

    assert segments("sum") == 0
    assert segments("mean") == 2 * 6
    assert segments("max") == 4 * 6 + 2 * 6
    assert segments("prod") == 2 * 4 * 6
    learned = count_call(
        aten._fake_quantize_learnable_per_channel_affine_backward.default,
        *(x, y, meta(4), meta(4), 0, 0, 255),
        out=(x, meta(4), meta(4)),
    )
    # x / s + z rounded, two tests, back, minus x, times g / s and a factor; two sums of rows.
    assert learned.flops == 4 * 6 * (3 + 2 + 2 + 1 + 3) + 2 * 4 * 5
