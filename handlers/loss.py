"""Losses whose reference cannot be traced; the others are priced through their decompositions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.cost import Dim, OpCost
from graphflops.registry import register

from ._shapes import broadcast_numel, reduced

if TYPE_CHECKING:
    from graphflops.ir import TensorMeta

# How a loss takes ``reduction``.
_MEAN, _SUM = 1, 2


def _combined(elements: Dim, reduction: int) -> Dim:
    """Sum n - 1, mean one more to divide."""
    return {_MEAN: elements, _SUM: reduced(elements, 1)}.get(reduction, 0)


@register("aten::margin_ranking_loss")
def margin_ranking_loss(
    input1: TensorMeta, input2: TensorMeta, target: TensorMeta, reduction: int
) -> OpCost:
    """max(0, -y (x1 - x2) + margin): sub, neg, mul, add, clamp 2: 6 per element, reduced.

    Source: ``Loss.cpp``. The sign is changed once per element of ``target``.
    """
    pairs = broadcast_numel(input1, input2)
    n = broadcast_numel(input1, input2, target)
    return OpCost(flops=pairs + target.numel + 4 * n + _combined(n, reduction))


@register("aten::hinge_embedding_loss")
def hinge_embedding_loss(self: TensorMeta, target: TensorMeta, reduction: int) -> OpCost:
    """x where y = 1, max(0, margin - x) where y = -1, the sum of both, reduced.

    sub and clamp 3 per element, two comparisons of y, an addition. Source: ``Loss.cpp``.
    """
    n = broadcast_numel(self, target)
    return OpCost(flops=3 * self.numel + 2 * target.numel + n + _combined(n, reduction))
