"""Backward of resampling: each gradient spread over the elements it was made of.

Indices and weights are computed again, and each share of a gradient is one addition. Sources
are the forward's decompositions, differentiated.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import TensorMeta
from graphflops.pricing.registry import register

from .resample import FILTERS, LINEAR, positions_of, reached, reflected

if TYPE_CHECKING:
    from collections.abc import Sequence


def _nearest(rank: int) -> None:
    @register(
        f"aten::upsample_nearest{rank}d_backward", f"aten::_upsample_nearest_exact{rank}d_backward"
    )
    def nearest_backward(grad_output: TensorMeta) -> OpCost:
        """An addition for each gradient; where to is 2 FLOPs per position of each axis."""
        return OpCost(flops=grad_output.numel + 2 * positions_of(grad_output, rank))


def _linear(name: str, rank: int) -> None:
    @register(f"aten::{name}_backward")
    def linear_backward(grad_output: TensorMeta, align_corners: bool) -> OpCost:
        """2^d - 1 interpolations turned round, 3 FLOPs each, and 2^d additions per gradient.

        Indices and weights as in the forward: 10 FLOPs per position of each axis, or 8 with
        ``align_corners``.
        """
        per_position = 8 if align_corners else 10
        spread = (3 * (2**rank - 1) + 2**rank) * grad_output.numel
        return OpCost(flops=spread + per_position * positions_of(grad_output, rank))


for _rank in (1, 2, 3):
    _nearest(_rank)
for _name, _rank in LINEAR.items():
    _linear(_name, _rank)


@register("aten::upsample_bicubic2d_backward")
def bicubic_backward(grad_output: TensorMeta, align_corners: bool) -> OpCost:
    """4 + 16 products and 16 additions per gradient.

    Indices and weights as in the forward: 34 FLOPs per position of each axis, or 32 with
    ``align_corners``.
    """
    per_position = 32 if align_corners else 34
    return OpCost(flops=36 * grad_output.numel + per_position * positions_of(grad_output, 2))


def _antialiased(name: str) -> None:
    width, evaluation = FILTERS[name]

    @register(f"aten::_upsample_{name}2d_aa_backward")
    def antialiased_backward(
        grad_output: TensorMeta,
        input_size: Sequence[Dim],
        align_corners: bool,
        scales_h: float | None,
        scales_w: float | None,
    ) -> OpCost:
        """The forward's windows turned round: a product and an addition for each input in one.

        Along columns, then along rows; weights as in the forward.
        """
        image = TensorMeta(tuple(input_size), grad_output.dtype)
        vertical, horizontal = reached(
            image, grad_output, align_corners, (scales_h, scales_w), width
        )
        images, columns = prod(input_size[:2]), grad_output.shape[-1]
        spread = 2 * images * (columns * vertical + input_size[-2] * horizontal)
        return OpCost(flops=spread + (5 + evaluation) * (vertical + horizontal))


for _name in FILTERS:
    _antialiased(_name)


# How a grid sampler numbers its interpolations, and how many corners and FLOPs a coordinate's
# padding costs: none, clamped, reflected and clamped.
_LINEAR, _NEAREST, _CUBIC = 0, 1, 2
_CLAMPED = 4


@register("aten::grid_sampler_2d_backward")
def grid_sampler_2d_backward(
    input: TensorMeta,
    grid: TensorMeta,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
    output_mask: tuple[bool, bool],
) -> OpCost:
    """Gradients of image and grid, each where ``output_mask`` asks, per position of the grid.

    Coordinates, bounds and distances are computed again, once for all C channels. Linear: 32,
    for the image 4 + 8 C, for the grid 30 + 8 C. Nearest: 10 and 2 C for the image, the grid's
    is zero. Cubic: 213 + 52 C for the image, 369 + 88 C for the grid, 369 + 136 C for both.
    Per coordinate (of cubic: of each of 16 corners) 4 for clamping, 11 for reflecting;
    2 and 6 for its derivative.
    """
    mask, channels = output_mask, input.shape[1]
    if interpolation_mode == _CUBIC:
        sampled = _cubic(channels, mask)
        coordinates, differentiated = 16, False
    else:
        sampled = _sampled(2, channels, interpolation_mode, mask)
        coordinates, differentiated = 1, mask[1] and interpolation_mode == _LINEAR
    padded = _padded(input, 2, padding_mode, align_corners, differentiated)
    return _per_position(grid, sampled, coordinates * padded)


@register("aten::grid_sampler_3d_backward")
def grid_sampler_3d_backward(
    input: TensorMeta,
    grid: TensorMeta,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
    output_mask: tuple[bool, bool],
) -> OpCost:
    """As ``grid_sampler_2d_backward`` with 8 corners, per position of the grid.

    Linear: 84, for the image 16 + 16 C, for the grid 8 (2 C - 1) + 78, a term of two products
    and an addition for each corner and axis, and 2 per axis. Nearest: 15 and 2 C.
    """
    sampled = _sampled(3, input.shape[1], interpolation_mode, output_mask)
    differentiated = output_mask[1] and interpolation_mode == _LINEAR
    padded = _padded(input, 3, padding_mode, align_corners, differentiated)
    return _per_position(grid, sampled, padded)


@register("aten::_grid_sampler_2d_cpu_fallback_backward")
def grid_sampler_2d_fallback_backward(
    input: TensorMeta,
    grid: TensorMeta,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> OpCost:
    """As ``grid_sampler_2d_backward``, both gradients."""
    mask = (True, True)
    return grid_sampler_2d_backward(
        input, grid, interpolation_mode, padding_mode, align_corners, mask
    )


@register("aten::cudnn_grid_sampler_backward")
def cudnn_grid_sampler_backward(self: TensorMeta, grid: TensorMeta) -> OpCost:
    """As ``grid_sampler_2d_backward``: linear, padded with zeros, both gradients."""
    return grid_sampler_2d_backward(self, grid, _LINEAR, 0, True, (True, True))


def _per_position(grid: TensorMeta, sampled: Dim | None, padded: Dim) -> OpCost:
    positions = prod(grid.shape[:-1])
    return OpCost(flops=0 if sampled is None else positions * (sampled + padded))


def _sampled(rank: int, channels: Dim, interpolation: int, mask: tuple[bool, bool]) -> Dim | None:
    """Of one position, linear or nearest; nothing if nothing is asked for."""
    corners = 2**rank
    of_image, of_grid = mask
    if interpolation == _NEAREST:
        # Unnormalized 2, rounded 1, tested 2 per axis; masked and added.
        return 5 * rank + 2 * channels if of_image else None
    if not (of_image or of_grid):
        return None
    # Unnormalized 2, floor and next 2 per axis; a distance and two tests per corner and axis.
    cost = 4 * rank + 3 * corners * rank
    if of_image:
        cost += corners * (rank - 1 + 2 * channels)
    if of_grid:
        # The gradient of each corner's weight, and of its distances.
        spread = 34 if rank == 2 else 3 * corners * rank + 2 * rank
        cost += corners * (2 * channels - 1) + spread
    return cost


def _cubic(channels: Dim, mask: tuple[bool, bool]) -> Dim | None:
    of_image, of_grid = mask
    if of_grid:
        return 369 + (136 if of_image else 88) * channels
    return 213 + 52 * channels if of_image else None


def _padded(
    input: TensorMeta, rank: int, padding: int, align_corners: bool, differentiated: bool
) -> Dim:
    """Clamping or reflecting the coordinates of one position, and its derivative."""
    if padding == 0:
        return 0
    if padding == 1:
        return rank * (_CLAMPED + (2 if differentiated else 0))
    return reflected(input, rank, align_corners) + (6 * rank if differentiated else 0)
