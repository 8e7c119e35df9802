"""Backward of activation functions, dropout and softmax, as ``torch._decomp`` spells them out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import OpCost
from graphflops.pricing.registry import register

from ._shapes import lanes, reduced
from .pointwise import per_element

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

register("aten::threshold_backward")(per_element("A comparison", 1))
register("aten::hardtanh_backward")(per_element("Two comparisons", 2))
register("aten::hardshrink_backward", "aten::softshrink_backward")(
    per_element("Two comparisons (``Activation.cpp``)", 2)
)
register("aten::sigmoid_backward")(per_element("g y (1 - y)", 3))
register("aten::tanh_backward")(per_element("g (1 - y y)", 3))
register("aten::silu_backward")(per_element("g s (1 + x (1 - s)) with s = sigmoid(x): 4 + 5", 9, 1))
register("aten::leaky_relu_backward")(per_element("gt, mul", 2))
register("aten::hardsigmoid_backward")(per_element("Two comparisons, mul", 3))
register("aten::hardswish_backward")(per_element("Two comparisons, g (x / 3 + 0.5)", 5))
register("aten::softplus_backward")(
    per_element("g z / (z + 1) with z = exp(beta x), below a threshold", 7, 1)
)
register("aten::mish_backward")(
    per_element("g (t + x s (1 - t t)) with t = tanh(softplus(x)), s = sigmoid(x)", 14, 4)
)
register("aten::log_sigmoid_backward")(
    per_element("g (d - sign z / (1 + z)) with z = exp(-|x|) kept from the forward", 6)
)
register("aten::logit_backward")(per_element("Two comparisons, g / (x (1 - x))", 5))
register("aten::infinitely_differentiable_gelu_backward")(
    per_element("As gelu_backward without approximation", 11, 2)
)


@register("aten::gelu_backward")
def gelu_backward(approximate: str, *, out: TensorMeta) -> OpCost:
    """g (cdf(x) + x pdf(x)): 11 FLOPs per element, erf and exp transcendental.

    With ``approximate="tanh"``, the derivative of that: 18 FLOPs, tanh transcendental.
    """
    per, transcendentals = (18, 1) if approximate == "tanh" else (11, 2)
    return OpCost(flops=per * out.numel, transcendentals=transcendentals * out.numel)


@register("aten::elu_backward")
def elu_backward(is_result: bool, *, out: TensorMeta) -> OpCost:
    """g scale, or below 0 g scale alpha exp(x): 7 FLOPs per element, exp transcendental.

    Of the result, from which exp is known, 5.
    """
    if is_result:
        return OpCost(flops=5 * out.numel)
    return OpCost(flops=7 * out.numel, transcendentals=out.numel)


@register("aten::rrelu_with_noise_backward")
def rrelu_backward(lower: float, upper: float, training: bool, *, out: TensorMeta) -> OpCost:
    """Training: g times the slope that was drawn. Evaluation: as ``leaky_relu_backward``, 2."""
    drawn = training and upper - lower > _LEAST_SPREAD
    return OpCost(flops=(1 if drawn else 2) * out.numel)


# Of the slopes of rrelu; below it all count as one (``torch._decomp``).
_LEAST_SPREAD = 1e-6


@register("aten::_prelu_kernel_backward")
def prelu_backward(grad_output: TensorMeta) -> OpCost:
    """Of the input: gt, mul; of every element's weight: gt, mul. 4 FLOPs per element."""
    return OpCost(flops=4 * grad_output.numel)


@register("aten::glu_backward")
def glu_backward(grad_output: TensorMeta) -> OpCost:
    """g s and g s (1 - s) a with s = sigmoid(b): 4 + 5 FLOPs per element of ``grad_output``."""
    return OpCost(flops=9 * grad_output.numel, transcendentals=grad_output.numel)


@register("aten::native_dropout_backward")
def dropout_backward(*, out: TensorMeta) -> OpCost:
    """g * mask * scale: 2 FLOPs per element."""
    return OpCost(flops=2 * out.numel)


@register("aten::_softmax_backward_data")
def softmax_backward(output: TensorMeta, dim: int) -> OpCost:
    """(g - sum(g y)) y along ``dim``, for n elements in m lanes: FLOPs = 4 n - m.

    Product n, sum n - m, product n, subtraction n.
    """
    return OpCost(flops=3 * output.numel + reduced(output.numel, lanes(output, dim)))


@register("aten::_masked_softmax_backward")
def masked_softmax_backward(output: TensorMeta, dim: int | None) -> OpCost:
    """As ``_softmax_backward_data`` along ``dim``, by default the last axis."""
    return softmax_backward(output, -1 if dim is None else dim)


@register("aten::_log_softmax_backward_data")
def log_softmax_backward(output: TensorMeta, dim: int) -> OpCost:
    """g - exp(y) sum(g) along ``dim``, for n elements in m lanes: FLOPs = 4 n - m.

    exp n, sum n - m, product n, subtraction n.
    """
    n = output.numel
    return OpCost(flops=3 * n + reduced(n, lanes(output, dim)), transcendentals=n)
