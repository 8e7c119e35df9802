"""Activation functions, spelled out as PyTorch's reference decompositions do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import OpCost
from graphflops.pricing.registry import register

from ._shapes import lanes, reduced
from .pointwise import per_element

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

register("aten::relu", sparse=1)(per_element("A comparison", 1))
register("aten::relu6", "aten::hardtanh")(per_element("Clamp to two bounds, 2 each", 4))
register("aten::threshold")(per_element("A comparison", 1))
register("aten::sigmoid")(
    per_element("1 / (1 + exp(-x)): neg, exp, add, div", 4, 1, complex_flops=2 + 1 + 2 + 11)
)
register("aten::silu")(per_element("x * sigmoid(x): 4 + 1", 5, 1, complex_flops=16 + 6))
register("aten::mish")(per_element("x * tanh(softplus(x)): 3 + 2", 5, 3))
register("aten::leaky_relu")(per_element("gt, mul", 2))
register("aten::rrelu", "aten::rrelu_with_noise")(
    per_element("As leaky_relu, its slope given or drawn at random: gt, mul", 2)
)
register("aten::prelu", "aten::_prelu_kernel")(per_element("gt, mul", 2))
register("aten::elu")(per_element("gt, scale the input, mul, expm1, mul", 5, 1))
register("aten::selu")(per_element("expm1, mul, gt, mul", 4, 1))
register("aten::celu")(per_element("div, expm1, mul, gt", 4, 1))
register("aten::hardsigmoid")(per_element("add, clamp to two bounds, div", 6))
register("aten::hardswish")(per_element("x * hardsigmoid(x)", 7))
register("aten::hardshrink")(per_element("abs, comparison", 2))
register("aten::softshrink")(per_element("abs, gt, sign, mul, sub, mul", 6))
register("aten::log_sigmoid")(per_element("min(0, x) - log1p(exp(-|x|))", 6, 2))
register("aten::glu")(per_element("a * sigmoid(b), the input split in two", 5, 1))


@register("aten::log_sigmoid_forward")
def log_sigmoid_forward(self: TensorMeta) -> OpCost:
    """As ``log_sigmoid``; the exp(-|x|) it returns too is a by-product."""
    return OpCost(flops=6 * self.numel, transcendentals=2 * self.numel)


@register("aten::gelu")
def gelu(approximate: str, *, out: TensorMeta) -> OpCost:
    """x * (1 + erf(x / sqrt 2)) / 2: 5 FLOPs per element, erf transcendental.

    With ``approximate="tanh"``, x * (1 + tanh(c (x + 0.044715 x^3))) / 2: 9 FLOPs, tanh
    transcendental.
    """
    per = 9 if approximate == "tanh" else 5
    return OpCost(flops=per * out.numel, transcendentals=out.numel)


@register("aten::softplus")
def softplus(beta: float, *, out: TensorMeta) -> OpCost:
    """log1p(exp(beta x)) / beta above a threshold: exp, log1p, gt; 2 more unless beta is 1."""
    scaling = 0 if beta == 1 else 2
    return OpCost(flops=(3 + scaling) * out.numel, transcendentals=2 * out.numel)


@register("aten::softmax", "aten::_softmax")
def softmax(self: TensorMeta, dim: int, *, out: TensorMeta) -> OpCost:
    """exp(x - max) / sum along ``dim``, for n elements in m lanes: FLOPs = 5 n - 2 m.

    Maximum n - m, subtraction n, exp n, sum n - m, division n.
    """
    n, m = out.numel, lanes(self, dim)
    return OpCost(flops=3 * n + 2 * reduced(n, m), transcendentals=n)


@register("aten::_safe_softmax")
def safe_softmax(self: TensorMeta, dim: int, *, out: TensorMeta) -> OpCost:
    """As ``softmax``, and a test of each element for lanes that a mask hides: 6 n - 2 m."""
    return softmax(self, dim, out=out) + OpCost(flops=out.numel)


@register("aten::_masked_softmax")
def masked_softmax(self: TensorMeta, dim: int | None, *, out: TensorMeta) -> OpCost:
    """As ``softmax`` along ``dim``, by default the last axis; what is masked counts too."""
    return softmax(self, -1 if dim is None else dim, out=out)


@register("aten::log_softmax", "aten::_log_softmax")
def log_softmax(self: TensorMeta, dim: int, *, out: TensorMeta) -> OpCost:
    """x - logsumexp(x) along ``dim``, for n elements in m lanes: FLOPs = 5 n + 2 m.

    Maximum n - m, its test for infinity 2 m, subtraction n, exp n, sum n - m, log m, add m,
    subtraction n.
    """
    n, m = out.numel, lanes(self, dim)
    return OpCost(flops=5 * n + 2 * m, transcendentals=n + m)


@register("aten::logsumexp")
def logsumexp(self: TensorMeta, dim: tuple[int, ...]) -> OpCost:
    """As ``log_softmax`` without its last subtraction: FLOPs = 4 n + 2 m."""
    n, m = self.numel, lanes(self, dim)
    return OpCost(flops=4 * n + 2 * m, transcendentals=n + m)
