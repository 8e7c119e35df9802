"""Resampling: upsampling by neighbours, linearly or cubically, along the last axes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

from ._shapes import larger

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

LINEAR = {"upsample_linear1d": 1, "upsample_bilinear2d": 2, "upsample_trilinear3d": 3}


def positions_of(out: TensorMeta, rank: int) -> Dim:
    """Positions along the last axes: what is computed once for each."""
    return sum(out.shape[-rank:], start=0)


def _nearest(rank: int) -> None:
    @register(f"aten::upsample_nearest{rank}d", f"aten::_upsample_nearest_exact{rank}d")
    def nearest(*, out: TensorMeta) -> OpCost:
        """A copy; where from is computed once per position of each axis, in 2 FLOPs."""
        return OpCost(flops=2 * positions_of(out, rank))


def _linear(name: str, rank: int) -> None:
    @register(f"aten::{name}")
    def linear(align_corners: bool, *, out: TensorMeta) -> OpCost:
        """Between the 2^d nearest elements: 2^d - 1 interpolations of 3 FLOPs per output.

        Indices and weights, once per position of each axis: 10 FLOPs, or 8 with
        ``align_corners``. Source: ``torch._decomp`` of ``_upsample_linear``.
        """
        per_position = 8 if align_corners else 10
        interpolated = 3 * (2**rank - 1) * out.numel
        return OpCost(flops=interpolated + per_position * positions_of(out, rank))


for _rank in (1, 2, 3):
    _nearest(_rank)
for _name, _rank in LINEAR.items():
    _linear(_name, _rank)


@register("aten::upsample_bicubic2d")
def bicubic(align_corners: bool, *, out: TensorMeta) -> OpCost:
    """Between 4 x 4 elements: 5 weighted sums of 7 FLOPs per output.

    Indices and weights, once per position of each axis: 34 FLOPs, or 32 with
    ``align_corners``. Source: ``torch._decomp`` of ``upsample_bicubic2d``.
    """
    per_position = 32 if align_corners else 34
    return OpCost(flops=35 * out.numel + per_position * positions_of(out, 2))


@register("aten::grid_sampler_3d")
def grid_sampler_3d(
    input: TensorMeta,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
    *,
    out: TensorMeta,
) -> OpCost:
    """Volumes sampled where a grid points: per output element, as the 2-d decomposition does.

    For each of 3 coordinates: unnormalized (2), clamped for border padding (4) or reflected
    and clamped (11). Nearest: rounded (3), 6 tests of bounds, masked (1). Linear: floor and
    next (6), 8 corners of a weight (5), 6 tests and a multiplication each, 7 additions.
    Source: ``torch._decomp`` of ``grid_sampler_2d``, with one axis more.
    """
    padding = {0: 0, 1: 3 * 4, 2: reflected(input, 3, align_corners)}[padding_mode]
    sampled = 6 + 8 * (5 + 6 + 1) + 7 if interpolation_mode == 0 else 3 + 6 + 1
    return OpCost(flops=(3 * 2 + padding + sampled) * out.numel)


def reflected(input: TensorMeta, rank: int, align_corners: bool) -> int:
    """A coordinate of each axis reflected at the ends, then clamped.

    Subtract, abs, fmod, divide, floor, and what either side of the flip adds; then a clamp.
    A single element has nothing to reflect.
    """
    single = sum(size == 1 for size in input.shape[-rank:]) if align_corners else 0
    return rank * (7 + 4) - 7 * single


# Width of the filter in input elements where nothing shrinks, and FLOPs to evaluate it.
FILTERS = {"bilinear": (2, 3), "bicubic": (4, 9), "lanczos": (6, 10)}


def _antialiased(name: str) -> None:
    width, evaluation = FILTERS[name]

    @register(f"aten::_upsample_{name}2d_aa")
    def antialiased(
        self: TensorMeta,
        align_corners: bool,
        scales_h: float | None,
        scales_w: float | None,
        *,
        out: TensorMeta,
    ) -> OpCost:
        return _separable(self, align_corners, (scales_h, scales_w), out, width, evaluation)

    @register(f"aten::_upsample_{name}2d_aa.vec")
    def antialiased_vec(
        input: TensorMeta,
        align_corners: bool,
        scale_factors: tuple[float, float] | None,
        *,
        out: TensorMeta,
    ) -> OpCost:
        scales = scale_factors or (None, None)
        return _separable(input, align_corners, scales, out, width, evaluation)

    antialiased.__doc__ = f"""Filtered along rows, then along columns, over what the filter reaches.

    Output i lies at c = (i + 1/2) s for s = in / out; its window holds the inputs from
    floor(c - r + 1/2) to floor(c + r + 1/2), r = {width} / 2 * max(s, 1), cut off at the ends.
    A window of w costs 2 w - 1 per element. Weights, once per axis: 5 + {evaluation} per input
    in a window (place 3, filter {evaluation}, sum and divide 2). Sizes that are symbols are
    taken as windows of 2 r. Source: ``UpSampleKernel.cpp``.
    """
    antialiased_vec.__doc__ = antialiased.__doc__


for _name in FILTERS:
    _antialiased(_name)


def _separable(
    input: TensorMeta,
    align_corners: bool,
    scales: tuple[float | None, float | None],
    out: TensorMeta,
    width: int,
    evaluation: int,
) -> OpCost:
    vertical, horizontal = reached(input, out, align_corners, scales, width)
    out_height, out_columns = out.shape[-2:]
    images = prod(out.shape[:-2])
    rows = images * input.shape[-2] * (2 * horizontal - out_columns)
    cols = images * out_columns * (2 * vertical - out_height)
    return OpCost(flops=rows + cols + (5 + evaluation) * (vertical + horizontal))


def reached(
    input: TensorMeta,
    out: TensorMeta,
    align_corners: bool,
    scales: tuple[float | None, float | None],
    width: int,
) -> tuple[Dim, Dim]:
    """Inputs that all windows along columns, and along rows, hold together."""
    vertical = _reach(input.shape[-2], out.shape[-2], width, align_corners, scales[0])
    return vertical, _reach(input.shape[-1], out.shape[-1], width, align_corners, scales[1])


def _reach(size: Dim, windows: Dim, width: int, align_corners: bool, factor: float | None) -> Dim:
    """Inputs that all windows along one axis hold together."""
    if not isinstance(size, int) or not isinstance(windows, int):
        return width * larger(size, windows)
    if align_corners:
        scale = (size - 1) / (windows - 1) if windows > 1 else 0.0
    else:
        scale = 1 / factor if factor else size / windows
    radius = width / 2 * max(scale, 1.0)
    reach = 0
    for i in range(windows):
        center = scale * (i + 0.5)
        reach += min(int(center + radius + 0.5), size) - max(int(center - radius + 0.5), 0)
    return reach
