"""Losses that have no traceable reference; all others are priced through theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.cost import Dim, OpCost
from graphflops.registry import register

from ._shapes import broadcast_numel, contraction, reduced

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
    pairs = broadcast_numel(input1.shape, input2.shape)
    n = broadcast_numel(input1.shape, input2.shape, target.shape)
    return OpCost(flops=pairs + target.numel + 4 * n + _combined(n, reduction))


@register("aten::hinge_embedding_loss")
def hinge_embedding_loss(self: TensorMeta, target: TensorMeta, reduction: int) -> OpCost:
    """x where y = 1, max(0, margin - x) where y = -1, the sum of both, reduced.

    sub and clamp 3 per element, two comparisons of y, an addition. Source: ``Loss.cpp``.
    """
    n = broadcast_numel(self.shape, target.shape)
    return OpCost(flops=3 * self.numel + 2 * target.numel + n + _combined(n, reduction))


@register("torch_nn::_linear_cross_entropy_batch_chunked_no_reduction")
def linear_cross_entropy(
    input: TensorMeta, linear_weight: TensorMeta, linear_bias: TensorMeta | None
) -> OpCost:
    """-log_softmax(input @ linear_weight^T + bias)[target], logits never kept whole.

    (N, F) @ (C, F)^T: MACs = N * F * C. With n = N * C logits: n for a bias, 5 n + 2 N for
    log_softmax, N to negate what is picked.
    """
    rows, logits = input.shape[0], input.shape[0] * linear_weight.shape[0]
    biased = 0 if linear_bias is None else logits
    return contraction(logits * input.shape[-1], input) + OpCost(
        flops=biased + 5 * logits + 3 * rows, transcendentals=logits + rows
    )


@register("torch_nn::_linear_cross_entropy_batch_chunked")
def linear_cross_entropy_with_gradients(
    input: TensorMeta,
    linear_weight: TensorMeta,
    linear_bias: TensorMeta | None,
    compute_input_grad: bool,
    compute_linear_weight_grad: bool,
    compute_linear_bias_grad: bool,
) -> OpCost:
    """As without reduction, the N losses summed and divided, and gradients if asked for.

    They are computed while the logits are there: softmax n, minus one for the target N, scaled
    n; then N * F * C MACs for each of the input's and the weight's, n - C additions for the
    bias's.
    """
    rows, classes = input.shape[0], linear_weight.shape[0]
    logits = rows * classes
    cost = linear_cross_entropy(input, linear_weight, linear_bias) + OpCost(flops=rows)
    if compute_input_grad or compute_linear_weight_grad or compute_linear_bias_grad:
        cost += OpCost(flops=2 * logits + rows, transcendentals=logits)
    products = compute_input_grad + compute_linear_weight_grad
    cost += contraction(products * logits * input.shape[-1], input)
    return cost + OpCost(flops=reduced(logits, classes) if compute_linear_bias_grad else 0)
