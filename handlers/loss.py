"""Losses as they run below autograd, and those that have no traceable reference.

All others are priced through their reference, or come apart before anything runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

from ._shapes import broadcast_numel, contraction, reduced

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

# How a loss takes ``reduction``.
MEAN, _SUM = 1, 2


def combined(elements: Dim, reduction: int) -> Dim:
    """Sum n - 1, mean one more to divide."""
    return {MEAN: reduced(elements, 1) + 1, _SUM: reduced(elements, 1)}.get(reduction, 0)


def _elementwise(name: str, formula: str, per: int, transcendentals: int = 0) -> None:
    @register(f"aten::{name}")
    def loss(self: TensorMeta, target: TensorMeta, reduction: int) -> OpCost:
        n = broadcast_numel(self.shape, target.shape)
        return OpCost(flops=per * n + combined(n, reduction), transcendentals=transcendentals * n)

    loss.__doc__ = f"{formula}: {per} FLOPs per element, reduced."


_elementwise("mse_loss", "(x - y)^2", 2)
_elementwise("smooth_l1_loss", "d^2 / 2 beta or d - beta / 2 with d = |x - y|, both computed", 7)
_elementwise("huber_loss", "d^2 / 2 or delta (d - delta / 2) with d = |x - y|, both computed", 7)
_elementwise("soft_margin_loss", "log1p(exp(-y x)), exp and log1p transcendental", 4, 2)


@register("aten::binary_cross_entropy")
def binary_cross_entropy(self: TensorMeta, weight: TensorMeta | None, reduction: int) -> OpCost:
    """(y - 1) max(log1p(-x), -100) - y max(log x, -100): 9 per element, reduced.

    Both logarithms are transcendental; a weight is one multiplication per element more.
    """
    n = self.numel
    weighted = 0 if weight is None else n
    return OpCost(flops=9 * n + weighted + combined(n, reduction), transcendentals=2 * n)


@register("aten::binary_cross_entropy_with_logits")
def binary_cross_entropy_with_logits(
    self: TensorMeta, weight: TensorMeta | None, pos_weight: TensorMeta | None, reduction: int
) -> OpCost:
    """(1 - y) x - log_sigmoid(x): 9 per element, reduced; exp and log1p transcendental.

    A weight is one multiplication per element more; ``pos_weight`` w is (w - 1) y + 1 times
    log_sigmoid(x), 3 per element and one per weight.
    """
    n = self.numel
    weighted = (0 if weight is None else n) + (
        0 if pos_weight is None else 3 * n + pos_weight.numel
    )
    return OpCost(flops=9 * n + weighted + combined(n, reduction), transcendentals=2 * n)


@register("aten::nll_loss_forward", "aten::nll_loss2d_forward")
def nll_loss_forward(
    self: TensorMeta, target: TensorMeta, weight: TensorMeta | None, reduction: int
) -> OpCost:
    """-x[target], reduced: n for the signs of n targets, then a sum, and a division for a mean.

    With weights the reference scales all of ``self`` and adds up the weights of the targets.
    """
    n = target.numel
    flops = n + combined(n, reduction)
    if weight is not None:
        flops += self.numel + (reduced(n, 1) if reduction else 0)
    return OpCost(flops=flops)


def alignments(log_alpha: TensorMeta) -> Dim:
    """States of a CTC loss that follow from those of the step before: the first has none."""
    batch, steps, states = log_alpha.shape
    return batch * reduced(steps, 1) * states


@register("aten::_ctc_loss")
def ctc_loss(out: tuple[TensorMeta, ...]) -> OpCost:
    """Sum over all alignments of labels and steps, in logarithms: -log p(labels).

    log_alpha is (batch, steps, states), with 2 L + 1 states for L labels. Each state after the
    first step is log(exp a + exp b + exp c) + m + x of three before it, whose maximum is m:
    9 FLOPs, 3 exp and 1 log. The last two states add up: 6, 2 exp and 1 log. All sequences count
    as long as the longest. Source: ``LossCTC.cpp``.
    """
    batch, cells = out[1].shape[0], alignments(out[1])
    return OpCost(flops=9 * cells + 6 * batch, transcendentals=4 * cells + 3 * batch)


@register("aten::margin_ranking_loss")
def margin_ranking_loss(
    input1: TensorMeta, input2: TensorMeta, target: TensorMeta, reduction: int
) -> OpCost:
    """max(0, -y (x1 - x2) + margin): sub, neg, mul, add, clamp 2: 6 per element, reduced.

    Source: ``Loss.cpp``. The sign is changed once per element of ``target``.
    """
    pairs = broadcast_numel(input1.shape, input2.shape)
    n = broadcast_numel(input1.shape, input2.shape, target.shape)
    return OpCost(flops=pairs + target.numel + 4 * n + combined(n, reduction))


@register("aten::hinge_embedding_loss")
def hinge_embedding_loss(self: TensorMeta, target: TensorMeta, reduction: int) -> OpCost:
    """x where y = 1, max(0, margin - x) where y = -1, the sum of both, reduced.

    sub and clamp 3 per element, two comparisons of y, an addition. Source: ``Loss.cpp``.
    """
    n = broadcast_numel(self.shape, target.shape)
    return OpCost(flops=3 * self.numel + 2 * target.numel + n + combined(n, reduction))


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
