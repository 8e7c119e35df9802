"""Backward of losses, as ``torch._decomp`` spells them out.

A gradient of a reduced loss is one number; for ``reduction="none"`` it is as large as the
input. What is done with it alone counts by its own elements.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import OpCost
from graphflops.pricing.registry import register

from .loss import MEAN, alignments

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta


@register("aten::mse_loss_backward")
def mse_loss_backward(*, out: TensorMeta) -> OpCost:
    """2 / n (x - y) g: 3 FLOPs per element."""
    return OpCost(flops=3 * out.numel)


@register("aten::smooth_l1_loss_backward")
def smooth_l1_loss_backward(grad_output: TensorMeta, *, out: TensorMeta) -> OpCost:
    """g d / beta or g sign(d) with d = x - y: 7 FLOPs per element, and g / n per gradient."""
    return OpCost(flops=7 * out.numel + grad_output.numel)


@register("aten::huber_loss_backward")
def huber_loss_backward(grad_output: TensorMeta, *, out: TensorMeta) -> OpCost:
    """g d, or g delta on either side: 5 FLOPs per element, and 4 per gradient for the sides."""
    return OpCost(flops=5 * out.numel + 4 * grad_output.numel)


@register("aten::soft_margin_loss_backward")
def soft_margin_loss_backward(reduction: int, *, out: TensorMeta) -> OpCost:
    """-y g (1 - sigmoid(-y x)): 8 FLOPs per element, exp transcendental; a mean divides each."""
    per = 9 if reduction == MEAN else 8
    return OpCost(flops=per * out.numel, transcendentals=out.numel)


@register("aten::binary_cross_entropy_backward")
def binary_cross_entropy_backward(
    weight: TensorMeta | None, reduction: int, *, out: TensorMeta
) -> OpCost:
    """g (x - y) / max(x (1 - x), eps): 7 FLOPs per element; one more for a weight, for a mean."""
    per = 7 + (weight is not None) + (reduction == MEAN)
    return OpCost(flops=per * out.numel)


@register("aten::nll_loss_backward", "aten::nll_loss2d_backward")
def nll_loss_backward(weight: TensorMeta | None, reduction: int, *, out: TensorMeta) -> OpCost:
    """-g at the targets, 0 elsewhere: a multiplication for every element, as in the reference.

    A mean divides the gradient; weights are multiplied with it, one by one if it is one number,
    else for every element.
    """
    flops = out.numel + (1 if reduction == MEAN else 0)
    if weight is not None:
        flops += weight.numel if reduction else out.numel
    return OpCost(flops=flops)


@register("aten::multi_margin_loss_backward")
def multi_margin_loss_backward(p: object, weight: TensorMeta | None, *, out: TensorMeta) -> OpCost:
    """For each class z = margin - x[target] + x, and g where z > 0: 5 FLOPs per element.

    z 2, its test, a subtraction at the target, the product with the gradient; 2 more for the
    2 z of p = 2, one for a weight. Source: ``LossMultiMargin.cpp``.
    """
    per = 5 + (0 if p == 1 else 2) + (weight is not None)
    return OpCost(flops=per * out.numel)


@register("aten::multilabel_margin_loss_backward")
def multilabel_margin_loss_backward(self: TensorMeta) -> OpCost:
    """For n = N C elements as many labels: 1 - x[label] n, then for each of C classes 4, g n.

    Per label and class: z, its test, an addition and a subtraction. An upper bound, as if all
    positions held labels. Source: ``LossMultiLabelMargin.cpp``.
    """
    return OpCost(flops=2 * self.numel + 4 * self.numel * self.shape[-1])


@register("aten::_ctc_loss_backward")
def ctc_loss_backward(log_alpha: TensorMeta, *, out: TensorMeta) -> OpCost:
    """log_beta as log_alpha, from the end; (exp x - exp(s + loss - x)) g of each label and step.

    With log_alpha of (batch, steps, states): 9 FLOPs, 3 exp and 1 log for each state before the
    last step; s, for each label, adds up log_alpha + log_beta of its states: 6, 2 exp and 1 log.
    Then 4 and 2 exp for each element of the gradient. All sequences count as long as the longest.
    Source: ``LossCTC.cpp``.
    """
    cells = alignments(log_alpha)
    return OpCost(
        flops=(9 + 6) * cells + 4 * out.numel,
        transcendentals=(4 + 3) * cells + 2 * out.numel,
    )
