"""Resampling: upsampling by neighbours, linearly or cubically, along the last axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.cost import Dim, OpCost
from graphflops.registry import register

if TYPE_CHECKING:
    from graphflops.ir import TensorMeta

_LINEAR = {"upsample_linear1d": 1, "upsample_bilinear2d": 2, "upsample_trilinear3d": 3}


def _positions(out: TensorMeta, rank: int) -> Dim:
    return sum(out.shape[-rank:], start=0)


def _nearest(rank: int) -> None:
    @register(f"aten::upsample_nearest{rank}d", f"aten::_upsample_nearest_exact{rank}d")
    def nearest(*, out: TensorMeta) -> OpCost:
        """A copy; where from is computed once per position of each axis, in 2 FLOPs."""
        return OpCost(flops=2 * _positions(out, rank))


def _linear(name: str, rank: int) -> None:
    @register(f"aten::{name}")
    def linear(align_corners: bool, *, out: TensorMeta) -> OpCost:
        """Between the 2^d nearest elements: 2^d - 1 interpolations of 3 FLOPs per output.

        Indices and weights, once per position of each axis: 10 FLOPs, or 8 with
        ``align_corners``. Source: ``torch._decomp`` of ``_upsample_linear``.
        """
        per_position = 8 if align_corners else 10
        interpolated = 3 * (2**rank - 1) * out.numel
        return OpCost(flops=interpolated + per_position * _positions(out, rank))


for _rank in (1, 2, 3):
    _nearest(_rank)
for _name, _rank in _LINEAR.items():
    _linear(_name, _rank)


@register("aten::upsample_bicubic2d")
def bicubic(align_corners: bool, *, out: TensorMeta) -> OpCost:
    """Between 4 x 4 elements: 5 weighted sums of 7 FLOPs per output.

    Indices and weights, once per position of each axis: 34 FLOPs, or 32 with
    ``align_corners``. Source: ``torch._decomp`` of ``upsample_bicubic2d``.
    """
    per_position = 32 if align_corners else 34
    return OpCost(flops=35 * out.numel + per_position * _positions(out, 2))
