"""Pooling: windows slid over the last axes."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import sympy

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

from ._shapes import per_axis

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

_RANK = {"1d": 1, "2d": 2, "3d": 3}


def _avg_pool(rank: int) -> None:
    @register(f"aten::avg_pool{rank}d")
    def avg_pool(kernel_size: object, *, out: TensorMeta) -> OpCost:
        """Each output sums a window of w elements (w - 1) and divides (1): w per output.

        Padding counts as elements, as in convolution.
        """
        return OpCost(flops=out.numel * prod(per_axis(kernel_size, rank)))


def _max_pool(rank: int) -> None:
    @register(f"aten::max_pool{rank}d", f"aten::max_pool{rank}d_with_indices")
    def max_pool(kernel_size: object, *, out: TensorMeta | tuple[TensorMeta, ...]) -> OpCost:
        """Each output is the maximum of a window of w elements: w - 1 comparisons."""
        values = out[0] if isinstance(out, tuple) else out
        return OpCost(flops=values.numel * (prod(per_axis(kernel_size, rank)) - 1))


def _adaptive(rank: int) -> None:
    private = (f"aten::_adaptive_avg_pool{rank}d",) if rank > 1 else ()

    @register(f"aten::adaptive_avg_pool{rank}d", *private)
    def adaptive_avg_pool(self: TensorMeta, *, out: TensorMeta) -> OpCost:
        """Output i averages the elements from floor(i L / O) to ceil((i + 1) L / O).

        A window of w costs w (w - 1 additions, one division); windows overlap where O does
        not divide L, and then elements are visited twice.
        """
        return OpCost(flops=_visited(self, out, rank))

    @register(f"aten::adaptive_max_pool{rank}d")
    def adaptive_max_pool(self: TensorMeta, *, out: tuple[TensorMeta, ...]) -> OpCost:
        """The windows of ``adaptive_avg_pool``: w - 1 comparisons for a window of w."""
        return OpCost(flops=_visited(self, out[0], rank) - out[0].numel)


def _fractional(rank: int) -> None:
    @register(f"aten::fractional_max_pool{rank}d")
    def fractional_max_pool(kernel_size: object, *, out: tuple[TensorMeta, ...]) -> OpCost:
        """As ``max_pool``, windows of w elements put at random: w - 1 comparisons each."""
        return OpCost(flops=out[0].numel * (prod(per_axis(kernel_size, rank)) - 1))


_fractional(2)
_fractional(3)


@register(
    *("aten::max_pool2d_with_indices_backward", "aten::max_pool3d_with_indices_backward"),
    *("aten::adaptive_max_pool2d_backward", "aten::adaptive_max_pool3d_backward"),
    *("aten::fractional_max_pool2d_backward", "aten::fractional_max_pool3d_backward"),
    *("aten::max_pool2d_backward", "aten::mkldnn_max_pool2d_backward"),
    "aten::mkldnn_max_pool3d_backward",
)
def max_pool_backward(grad_output: TensorMeta) -> OpCost:
    """Each gradient added to the element that was the maximum of its window: 1 each."""
    return OpCost(flops=grad_output.numel)


def _averaged_backward(rank: int, kernel: str) -> None:
    @register(f"aten::avg_pool{rank}d_backward")
    def avg_pool_backward(grad_output: TensorMeta, kernel_size: object) -> OpCost:
        """Each gradient divided, and added to the w elements of its window: 1 + w.

        Padding counts as elements, as in the forward.
        """
        return OpCost(flops=grad_output.numel * (1 + prod(per_axis(kernel_size, rank))))

    @register(f"aten::_adaptive_avg_pool{rank}d_backward", f"aten::{kernel}")
    def adaptive_avg_pool_backward(grad_output: TensorMeta, self: TensorMeta) -> OpCost:
        """The windows of ``adaptive_avg_pool``: a division each, an addition per element."""
        return OpCost(flops=grad_output.numel + _visited(self, grad_output, rank))


_averaged_backward(2, "mkldnn_adaptive_avg_pool2d_backward")
_averaged_backward(3, "adaptive_avg_pool3d_backward")
for _rank in (1, 2, 3):
    _avg_pool(_rank)
    _max_pool(_rank)
    _adaptive(_rank)


def _visited(self: TensorMeta, out: TensorMeta, rank: int) -> Dim:
    """Elements that all windows together look at."""
    axes = zip(self.shape[-rank:], out.shape[-rank:], strict=True)
    return prod(out.shape[:-rank]) * prod(_covered(size, windows) for size, windows in axes)


def _covered(size: Dim, windows: Dim) -> Dim:
    if isinstance(windows, int):
        return sum(
            (-(-((i + 1) * size) // windows) - (i * size) // windows for i in range(windows)),
            start=0,
        )
    # A symbolic number of windows: one window per element, or an exact divisor.
    return sympy.Max(size, windows)
