"""Operators that PyTorch does not decompose: by hand, or as what they replace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from calls import Call, count, meta

import graphflops as gf

aten = torch.ops.aten
INT = torch.int64
x = meta(6, 8)


def index(*shape: int) -> torch.Tensor:
    return meta(*shape, dtype=INT)


@pytest.mark.parametrize(
    ("mode", "reduce"),
    [
        ("sum", lambda rows: rows.sum(1)),
        ("mean", lambda rows: rows.mean(1)),
        ("max", lambda rows: rows.amax(1)),
    ],
)
def test_a_bag_of_embeddings_is_a_reduction_of_rows(
    mode: str, reduce: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    bags, table = index(5, 3), meta(100, 8)
    whole = count(lambda i, w: F.embedding_bag(i, w, mode=mode), bags, table)
    parts = count(lambda i, w: reduce(F.embedding(i, w)), bags, table)
    assert whole.flops == parts.flops
    # The rows looked up, their indices, and where each of 5 bags begins.
    assert whole.bytes_read == 5 * 3 * 8 * 4 + 5 * 3 * 8 + 5 * 8


def test_a_weighted_bag_multiplies_every_row() -> None:
    bags, table, weights = index(5, 3), meta(100, 8), meta(5, 3)
    report = count(
        lambda i, w, p: F.embedding_bag(i, w, mode="sum", per_sample_weights=p),
        *(bags, table, weights),
    )
    assert report.flops == 5 * 3 * 8 + 5 * (3 - 1) * 8


@pytest.mark.parametrize(
    ("function", "args", "flops"),
    [
        # 7 source rows of 8; the mean also counts them, and tests and divides 6 x 8.
        (lambda a, i, s: a.index_reduce(0, i, s, "prod"), (x, index(7), meta(7, 8)), 7 * 8),
        (lambda a, i, s: a.index_reduce(0, i, s, "amax"), (x, index(7), meta(7, 8)), 7 * 8),
        (
            lambda a, i, s: a.index_reduce(0, i, s, "mean"),
            (x, index(7), meta(7, 8)),
            2 * 7 * 8 + 2 * 6 * 8,
        ),
        (lambda a, i, s: a.put(i, s), (x, index(5), meta(5)), 0),
        (lambda a, i, s: a.put(i, s, accumulate=True), (x, index(5), meta(5)), 5),
        (lambda a, i, s: a.clone().put_(i, s, accumulate=True), (x, index(5), meta(5)), 5),
        # 6 rows of 8 into 2 segments: 4 rows disappear; with a first value none does.
        (
            lambda a, n: torch.segment_reduce(a, "sum", lengths=n, unsafe=True),
            (x, index(2)),
            4 * 8,
        ),
        (
            lambda a, n: torch.segment_reduce(a, "mean", lengths=n, unsafe=True),
            (x, index(2)),
            4 * 8 + 2 * 8,
        ),
        (
            lambda a, n: torch.segment_reduce(a, "max", lengths=n, initial=0, unsafe=True),
            (x, index(2)),
            6 * 8,
        ),
        # 6 lanes of 8: 7 comparisons each; 47 for all.
        (lambda a: a.kthvalue(3), (x,), 6 * 7),
        (lambda a: a.median(-1), (x,), 6 * 7),
        (lambda a: a.nanmedian(-1), (x,), 6 * 7),
        (lambda a: a.median(), (x,), 47),
        (lambda a: a.nanmedian(), (x,), 47),
        # Sorted in 3 rounds, and 7 neighbours compared.
        (lambda a: a.mode(-1), (x,), 6 * (8 * 3 + 7)),
        (lambda a: a.unique(), (x,), 48 * 6 + 47),
        (lambda a: a.unique(dim=1), (x,), 6 * (8 * 3 + 7)),
        (lambda a: a.unique_consecutive(), (x,), 47),
        (lambda a: a.unique_consecutive(dim=1), (x,), 6 * 7),
        # Windows of 3 x 2 and of 2 x 2 x 2.
        (
            lambda a: F.fractional_max_pool2d(a, (3, 2), output_size=(2, 3)),
            (meta(2, 4, 8, 8),),
            2 * 4 * 2 * 3 * (3 * 2 - 1),
        ),
        (
            lambda a: F.fractional_max_pool3d(a, 2, output_size=3),
            (meta(2, 4, 8, 8, 8),),
            2 * 4 * 3 * 3 * 3 * (2 * 2 * 2 - 1),
        ),
        (lambda a: F.rrelu(a, training=True), (x,), 48 * 2),
        (lambda a: F.rrelu(a), (x,), 48 * 2),
        (lambda a, b: torch.as_strided_scatter(a, b, (2, 2), (1, 2)), (x, meta(2, 2)), 0),
        (lambda a: torch.nonzero_static(a, size=5), (x,), 0),
        (lambda a: a.clone().resize_(4, 4), (x,), 0),
        (lambda a: torch.hash_tensor(a), (x,), 0),
        (lambda a: a.nansum(1), (x,), 48 + 6 * 7),
        (
            lambda a, m, i: aten._unsafe_masked_index(a, m, [i], 0),
            (x, meta(5, 1, dtype=torch.bool), index(5)),
            0,
        ),
        (
            lambda a, m, i, v: aten._unsafe_masked_index_put_accumulate(a, m, [i], v),
            (x, meta(5, 1, dtype=torch.bool), index(5), meta(5, 8)),
            5 * 8,
        ),
        # 3 products of 4 x 5 summed: 2 * 3 * 20 * K, and the sum with the 4 x 5 given.
        (torch.addbmm, (meta(4, 5), meta(3, 4, 7), meta(3, 7, 5)), 2 * 3 * 4 * 5 * 7 + 20),
    ],
)
def test_by_hand(function: Callable[..., Any], args: tuple[torch.Tensor, ...], flops: int) -> None:
    assert count(function, *args).flops == flops


def test_resizing_moves_nothing() -> None:
    resized, kept = count(lambda a: a.clone().resize_(4, 4), x), count(torch.clone, x)
    assert (resized.bytes_read, resized.bytes_written) == (kept.bytes_read, kept.bytes_written)


@pytest.mark.parametrize("p", [0.0, 1.0, 2.0, 3.0, 4.0, float("inf")])
def test_distances_are_norms_of_differences(p: float) -> None:
    left, right = meta(2, 5, 7), meta(2, 6, 7)
    pairs = count(
        lambda a, b: torch.linalg.vector_norm(a[:, :, None] - b[:, None], p, -1), left, right
    )
    whole = count(lambda a, b: torch.cdist(a, b, p), left, right)
    assert (whole.flops, whole.transcendentals) == (pairs.flops, pairs.transcendentals)
    # Among 5 rows there are 10 pairs.
    within = count(lambda a: F.pdist(a, p), meta(5, 7))
    ten = count(lambda a, b: torch.linalg.vector_norm(a - b, p, -1), meta(10, 7), meta(10, 7))
    assert (within.flops, within.transcendentals) == (ten.flops, ten.transcendentals)


@pytest.mark.parametrize(
    ("rows", "mode", "by_product"),
    [
        (30, "use_mm_for_euclid_dist_if_necessary", True),
        (25, "use_mm_for_euclid_dist_if_necessary", False),
        (5, "use_mm_for_euclid_dist", True),
        (30, "donot_use_mm_for_euclid_dist", False),
    ],
)
def test_many_euclidean_distances_go_through_a_product(
    rows: int, mode: str, by_product: bool
) -> None:
    left, right = meta(2, 5, 7), meta(2, rows, 7)
    whole = count(lambda a, b: torch.cdist(a, b, 2.0, mode), left, right)
    assert whole.macs == (2 * 5 * rows * (7 + 2) if by_product else 0)
    if by_product:
        # PyTorch's decomposition of the kernel beneath.
        parts = count(aten._euclidean_dist, left, right)
        assert (whole.flops, whole.transcendentals) == (parts.flops, parts.transcendentals)


def ranked(a: torch.Tensor, b: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    return (-sign * (a - b) + 0.5).clamp_min(0)


def hinged(a: torch.Tensor, sign: torch.Tensor) -> torch.Tensor:
    apart = torch.where(sign != 1, (0.5 - a).clamp_min(0), 0.0)
    return apart + torch.where(sign != -1, a, 0.0)


@pytest.mark.parametrize(
    ("reduction", "reduce"),
    [("none", lambda a: a), ("sum", lambda a: a.sum()), ("mean", lambda a: a.mean())],
)
def test_losses_cost_their_formula(
    reduction: str, reduce: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    a, b, sign = x, meta(6, 8), meta(1, 8)
    ranking = count(
        lambda a, b, y: F.margin_ranking_loss(a, b, y, 0.5, reduction=reduction), a, b, sign
    )
    assert ranking.flops == count(lambda a, b, y: reduce(ranked(a, b, y)), a, b, sign).flops
    hinge = count(lambda a, y: F.hinge_embedding_loss(a, y, 0.5, reduction=reduction), a, sign)
    assert hinge.flops == count(lambda a, y: reduce(hinged(a, y)), a, sign).flops


@pytest.mark.parametrize("bias", [True, False])
def test_a_bilinear_form_is_two_contractions(bias: bool) -> None:
    a, b, weight = meta(2, 3, 4), meta(2, 3, 5), meta(6, 4, 5)
    added = (meta(6),) if bias else ()
    report = count(F.bilinear, a, b, weight, *added)
    # To each of 6 outputs: 4 x 5 for the matrix, 5 for the vector it leaves.
    assert report.macs == 2 * 3 * 6 * (4 * 5 + 5)
    assert report.flops == 2 * report.macs + (2 * 3 * 6 if bias else 0)
    flat = a.flatten(0, 1), weight, b.flatten(0, 1)
    beneath = count(lambda a, w, b: aten._trilinear(a, w, b, [1, 3], [0], [1, 2], [2, 3]), *flat)
    assert (beneath.macs, beneath.flops) == (report.macs, 2 * report.macs)


def sampled(volume: torch.Tensor, grid: torch.Tensor, mode: str, padding: str) -> torch.Tensor:
    """A grid sampler in three dimensions, written out as PyTorch's own for two."""
    channels = volume.shape[1]
    places = []
    for axis, size in enumerate(reversed(volume.shape[-3:])):
        at = grid[:, None, ..., axis].expand(-1, channels, -1, -1, -1) * (size / 2) + (size - 1) / 2
        if padding == "reflection":
            far = (at - -0.5).abs()
            extra, flips = far.fmod(float(size)), (far / float(size)).floor()
            at = torch.where(flips.to(INT) % 2 == 0, extra + -0.5, (size - 0.5) - extra)
        places.append(at if padding == "zeros" else at.clamp(0, size - 1))
    sizes = volume.shape[:1:-1]

    def inside(corner: list[torch.Tensor]) -> torch.Tensor:
        tests = [(c >= 0) & (c < size) for c, size in zip(corner, sizes, strict=True)]
        return tests[0] & tests[1] & tests[2]

    def value(corner: list[torch.Tensor]) -> torch.Tensor:
        w, h, d = (c.to(INT) for c in corner)
        return volume[index(1), index(1), d, h, w]

    if mode == "nearest":
        corner = [at.round() for at in places]
        return value(corner) * inside(corner)
    low = [at.floor() for at in places]
    high = [at + 1 for at in low]
    total = None
    for pick in range(8):
        near = [(high if pick >> axis & 1 else low)[axis] for axis in range(3)]
        far_side = [(low if pick >> axis & 1 else high)[axis] for axis in range(3)]
        a, b, c = (f - at for f, at in zip(far_side, places, strict=True))
        term = value(near) * torch.where(inside(near), a * b * c, 0.0)
        total = term if total is None else total + term
    assert total is not None
    return total


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_sampling_a_volume_is_sampling_an_image_with_one_axis_more(mode: str, padding: str) -> None:
    volume, grid = meta(2, 3, 4, 5, 6), meta(2, 3, 2, 4, 3)
    whole = count(
        lambda v, g: F.grid_sample(v, g, mode=mode, padding_mode=padding, align_corners=False),
        *(volume, grid),
    )
    parts = count(lambda v, g: sampled(v, g, mode, padding), volume, grid)
    assert whole.flops == parts.flops


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("size", "windows"), [(10, 4), (16, 5), (4, 13), (30, 7)])
def test_antialiasing_weighs_what_the_kernel_weighs(mode: str, size: int, windows: int) -> None:
    # What each output is made of, by running the kernel on images of a single column.
    images = torch.eye(size, dtype=torch.float64)[:, None, None].expand(size, 1, size, size)
    columns = F.interpolate(images, (size, windows), mode=mode, antialias=True)
    taps = int((columns[:, 0, 0].abs() > 1e-12).sum())
    flops = {
        channels: count(
            lambda a: F.interpolate(a, (windows, windows), mode=mode, antialias=True),
            meta(1, channels, size, size),
        ).flops
        for channels in (1, 2)
    }
    # One channel: windows along the rows of the input, then along the columns of the result.
    along_rows, along_columns = size * (2 * taps - windows), windows * (2 * taps - windows)
    assert flops[2] - flops[1] == along_rows + along_columns
    # The weights, shared by all channels: place 3, sum and divide 2, and the filter.
    per_tap = 3 + 2 + {"bilinear": 3, "bicubic": 9}[mode]
    assert flops[1] - (flops[2] - flops[1]) == 2 * taps * per_tap


def test_a_symbolic_image_is_antialiased_over_whole_windows() -> None:
    side = torch.export.Dim("H", min=2)
    report = gf.count(
        Call(lambda a: F.interpolate(a, (5, 5), mode="bilinear", antialias=True)),
        (meta(1, 1, 20, 20),),
        dynamic_shapes=(({2: side, 3: side},),),
    )
    (name,) = (symbol.name for symbol in sympy.sympify(report.flops).free_symbols)
    # Windows of 2 x 20 / 5 inputs: 5 of 8 each way, along 20 rows and then 5 columns.
    symbolic = report.total.subs(**{name: 20}).flops
    assert symbolic == (20 + 5) * (2 * 5 * 8 - 5) + 2 * 5 * 8 * 8
    concrete = count(
        lambda a: F.interpolate(a, (5, 5), mode="bilinear", antialias=True), meta(1, 1, 20, 20)
    )
    # Those at the ends are cut off.
    assert concrete.flops < symbolic


def test_dropping_channels_scales_one_sample_per_channel() -> None:
    x = meta(2, 3, 4, 5)
    assert count(lambda a: F.dropout2d(a, 0.5, training=True), x).flops == 120 + 2 * 3
    assert count(lambda a: F.dropout2d(a, 0.5, training=False), x).flops == 0
    dropped = count(lambda a: F.feature_alpha_dropout(a, 0.5, training=True), x)
    assert dropped.flops == 2 * 120 + 4 * 2 * 3


def test_renormalizing_looked_up_rows_is_bounded_from_above() -> None:
    ids = meta(5, dtype=torch.int64)
    report = count(lambda i, w: F.embedding(i, w, max_norm=1.0), ids, meta(9, 4))
    # Squares and their sum with a root, a test, a factor and its use: 5 rows of 4.
    assert report.flops == 5 * ((4 + 3 + 1) + 1 + 2 + 4)
