"""Steps of optimizers in one call: the arithmetic of PyTorch's single-tensor implementations.

What is computed once for a tensor, such as bias corrections, is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.memory_traffic import read_all_write_all
from graphflops.pricing.registry import register

if TYPE_CHECKING:
    from graphflops.core.ir import OpCall, TensorMeta

    Tensors = tuple[TensorMeta, ...]


def gradients_kept(call: OpCall) -> tuple[Dim, Dim]:
    """Each tensor read once and written once but for gradients, which only unscaling writes."""
    read, written = read_all_write_all(call)
    if "grads" in call.writes and "grad_scale" not in call.inputs:
        written -= sum((t.nbytes for name, t in call.tensors() if name == "grads"), start=0)
    return read, written


def _elements(tensors: Tensors) -> Dim:
    return sum((tensor.numel for tensor in tensors), start=0)


def _prepared(grad_scale: object, maximize: bool) -> int:
    """FLOPs per element before the step: unscaled by a division, negated."""
    return (grad_scale is not None) + maximize


# m = lerp(m, g, 1 - b1): 3; v = b2 v + (1 - b2) g g: 1 + 3; sqrt(v) / c + eps: 3; p -= a m / d: 3
_MOMENTS = 3 + 4 + 3 + 3


@register("aten::_fused_adam", traffic=gradients_kept)
def adam(
    self: Tensors,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    grad_scale: TensorMeta | None,
) -> OpCost:
    """13 FLOPs per element, one of them a square root.

    m = lerp(m, g, 1 - b1): 3; v = b2 v + (1 - b2) g g: 4; d = sqrt(v) / c + eps: 3; p -= a m / d:
    3. Weight decay, g + w p, is 2 more, ``amsgrad`` a maximum, ``maximize`` a negation, a
    gradient scale a division.
    """
    decay = 2 if weight_decay else 0
    return _moments(self, decay + amsgrad + _prepared(grad_scale, maximize))


@register("aten::_fused_adamw", traffic=gradients_kept)
def adamw(
    self: Tensors,
    weight_decay: float,
    amsgrad: bool,
    maximize: bool,
    grad_scale: TensorMeta | None,
) -> OpCost:
    """As ``_fused_adam``; weight decay scales the parameter by 1 - lr w, which is 1 per element."""
    decay = 1 if weight_decay else 0
    return _moments(self, decay + amsgrad + _prepared(grad_scale, maximize))


def _moments(parameters: Tensors, further: int) -> OpCost:
    n = _elements(parameters)
    return OpCost(flops=(_MOMENTS + further) * n, transcendentals=n)


@register("aten::_fused_sgd", traffic=gradients_kept)
def sgd(
    self: Tensors,
    weight_decay: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    maximize: bool,
    is_first_step: bool,
    grad_scale: TensorMeta | None,
) -> OpCost:
    """p -= lr g: 2 FLOPs per element.

    Weight decay, g + w p, is 2 more. Momentum, b = mu b + (1 - dampening) g, is 2, or 3 with
    dampening; the first step copies the gradient. ``nesterov``, g + mu b, is 2, ``maximize`` a
    negation, a gradient scale a division.
    """
    flops = 2 + (2 if weight_decay else 0) + _prepared(grad_scale, maximize)
    if momentum and not is_first_step:
        flops += 3 if dampening else 2
    if momentum and nesterov:
        flops += 2
    return OpCost(flops=flops * _elements(self))


@register("aten::_fused_adagrad", traffic=gradients_kept)
def adagrad(
    self: Tensors, weight_decay: float, maximize: bool, grad_scale: TensorMeta | None
) -> OpCost:
    """s += 1 g g: 3; sqrt(s) + eps: 2; p -= lr g / that: 3; 8 FLOPs per element.

    One is a square root. Weight decay, g + w p, is 2 more, ``maximize`` a negation, a gradient
    scale a division.
    """
    n = _elements(self)
    flops = 8 + (2 if weight_decay else 0) + _prepared(grad_scale, maximize)
    return OpCost(flops=flops * n, transcendentals=n)
