"""Element by element: arithmetic, comparisons and elementary functions.

Every operator here costs a fixed number of FLOPs per *output* element, after broadcasting:
one for each arithmetic prim in PyTorch's reference decomposition. A comparison of floats is
one (IEEE 754 lists it among the operations); selecting, converting and copying are none.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.memory_traffic import read_all_write_all_in_training
from graphflops.pricing.registry import register

from ._shapes import broadcast_numel, lanes

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphflops.core.ir import TensorMeta


def per_element(
    formula: str, flops: int, transcendentals: int = 0, *, complex_flops: int | None = None
) -> Callable[..., OpCost]:
    """A handler that charges a constant per output element; ``formula`` becomes its docstring.

    ``complex_flops`` is what a complex element costs in real operations, if not the same.
    """

    def handler(*, out: TensorMeta) -> OpCost:
        per = flops if complex_flops is None or not out.is_complex else complex_flops
        return OpCost(flops=per * out.stored, transcendentals=transcendentals * out.stored)

    split = f", {transcendentals} of them transcendental" if transcendentals else ""
    split += f"; {complex_flops} if complex" if complex_flops else ""
    handler.__doc__ = f"{formula}: {flops} FLOPs per output element{split}."
    return handler


register(
    *(
        "aten::abs",
        "aten::absolute",
        "aten::sign",
        "aten::sgn",
        "aten::floor",
        "aten::ceil",
        "aten::round",
    ),
    *("aten::trunc", "aten::fix", "aten::fmod", "aten::remainder"),
    *("aten::maximum", "aten::minimum", "aten::fmax", "aten::fmin"),
    *("aten::eq", "aten::ne", "aten::lt", "aten::le", "aten::gt", "aten::ge", "aten::isnan"),
    sparse=1,
)(per_element("One arithmetic operation or comparison", 1))


@register("aten::mul", "aten::multiply", "prims::mul", sparse=2)
def mul(self: object, other: object, *, out: TensorMeta) -> OpCost:
    """A multiplication: 1 FLOP per output element.

    Complex: (a + bi)(c + di) is 4 multiplications and 2 additions, 6; by a real number 2.
    """
    return OpCost(flops=_COMPLEX_PRODUCT[_complex_operands(self, other)] * out.stored)


@register("aten::div", "aten::divide", "aten::true_divide", "prims::div", sparse=1)
def div(self: object, other: object, *, out: TensorMeta) -> OpCost:
    """A division: 1 FLOP per output element.

    Complex: a product with the conjugate (6), c^2 + d^2 (3) and two divisions, 11; by a real
    number 2.
    """
    del self
    by_complex = _complex_operands(other) == 1
    per = 11 if by_complex else 2
    return OpCost(flops=(per if out.is_complex else 1) * out.stored)


_COMPLEX_PRODUCT = (1, 2, 6)


def _complex_operands(*operands: object) -> int:
    return sum(
        # A real scalar may have been promoted: it scales all the same.
        operand.imag != 0
        if isinstance(operand, complex)
        else getattr(operand, "is_complex", False) is True
        for operand in operands
    )


register("aten::square", "aten::outer", sparse=1)(
    per_element("A multiplication", 1, complex_flops=6)
)
register("aten::reciprocal", "prims::reciprocal")(per_element("A division", 1, complex_flops=11))
register("aten::neg", "aten::negative", sparse=1)(per_element("A negation", 1, complex_flops=2))

register(
    *("aten::exp", "aten::exp2", "aten::expm1", "aten::log", "aten::log1p", "aten::log2"),
    *("aten::log10", "aten::sqrt", "aten::rsqrt", "aten::sin", "aten::cos", "aten::tan"),
    *("aten::asin", "aten::acos", "aten::atan", "aten::atan2", "aten::sinh", "aten::cosh"),
    *("aten::tanh", "aten::asinh", "aten::acosh", "aten::atanh", "aten::erf", "aten::erfc"),
    *("aten::erfinv", "aten::lgamma", "aten::digamma", "aten::arctan2"),
    sparse=1,
)(per_element("One elementary function", 1, 1))


@register("aten::add", "aten::sub", "aten::subtract", "aten::rsub", sparse=2)
def add(self: object, other: object, alpha: object, *, out: TensorMeta) -> OpCost:
    """self + alpha * other: 1 FLOP per output element, and 1 per element of ``other`` to scale it.

    In graphs of a compiler either may be a number. An ``alpha`` of 1, or a number as ``other``,
    scales nothing. With a sparse one, additions are made where both have an element: those stored
    in either, less those of the result.
    """
    scaled = 0 if alpha == 1 or isinstance(other, int | float) else getattr(other, "stored", 0)
    sums = out.numel
    if any(getattr(operand, "sparse", None) is not None for operand in (self, other)):
        sums = sum(getattr(operand, "stored", 0) for operand in (self, other)) - out.stored
    # A complex addition is two real ones, and so is scaling by a real number.
    return OpCost(flops=(2 if out.is_complex else 1) * (sums + scaled))


register("aten::logical_not")(per_element("A comparison with 0", 1))
register("aten::logical_and", "aten::logical_or", "aten::logical_xor")(
    per_element("Each operand compared with 0", 2)
)
register("aten::isfinite")(per_element("A test of the exponent", 1))
register("aten::isinf")(per_element("|x| compared with infinity", 2))
register("aten::hypot")(per_element("One elementary function", 1, 1))
register("aten::copysign")(per_element("|x| and -|x|, of which the sign chooses", 3))
register("aten::linalg_cross")(per_element("Two products and a difference", 3))
register("aten::logit")(per_element("log(x / (1 - x)), x clamped to two bounds", 5, 1))
register("aten::logaddexp")(
    per_element("max + log1p(exp(-|x - y|)), infinities tested: 4 + 3", 7, 2)
)
register("aten::frac")(per_element("x - trunc(x)", 2))
register("aten::sinc")(per_element("sin(pi x) / (pi x), 1 at 0: mul, eq, sin, div", 4, 1))
register("aten::nan_to_num")(per_element("Three comparisons, each with a selection", 3))


@register("aten::addcmul", "aten::addcdiv")
def addcmul(tensor1: TensorMeta, tensor2: TensorMeta, *, out: TensorMeta) -> OpCost:
    """self + value * tensor1 * tensor2 (or / tensor2), from left to right.

    Scale ``tensor1``, combine with ``tensor2``, add to every output.
    """
    product = broadcast_numel(tensor1.shape, tensor2.shape)
    return OpCost(flops=tensor1.numel + product + out.numel)


@register("aten::polar")
def polar(angle: TensorMeta, *, out: TensorMeta) -> OpCost:
    """abs * cos(angle) + i abs * sin(angle): cos and sin per angle, 2 products per output."""
    return OpCost(flops=2 * (angle.numel + out.numel), transcendentals=2 * angle.numel)


@register("aten::pow")
def pow_(self: object, exponent: object, *, out: TensorMeta) -> OpCost:
    """self ** exponent: 1 FLOP per output element, transcendental unless the exponent is 2.

    Exponent 2 is a multiplication, 1 a copy and 0 a fill, as in ``torch._refs.pow``; every
    other one is ``pow``, ``sqrt`` (0.5) or ``exp2`` (base 2), one elementary function.
    """
    del self
    if exponent in {0, 1}:
        return OpCost()
    return OpCost(flops=out.numel, transcendentals=0 if exponent == 2 else out.numel)


@register("aten::clamp", "aten::clip")
def clamp(self: TensorMeta, min: object, max: object) -> OpCost:
    """Each bound given: a NaN test of what is clamped, and a comparison with the bound."""
    flops: Dim = 0
    shapes = [self.shape]
    for bound in (min, max):
        if bound is not None:
            clamped = broadcast_numel(*shapes)
            shapes.append(getattr(bound, "shape", ()))
            flops += clamped + broadcast_numel(*shapes)
    return OpCost(flops=flops)


@register("aten::clamp_min", "aten::clamp_max")
def clamp_one(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """A NaN test of each element and a comparison of each output."""
    return OpCost(flops=self.numel + out.numel)


@register("aten::round.decimals")
def round_to(decimals: int, *, out: TensorMeta) -> OpCost:
    """Scale by 10^decimals, round, scale back: 3 FLOPs per output element, 1 without decimals."""
    return OpCost(flops=(3 if decimals else 1) * out.numel)


@register("aten::div.Tensor_mode", "aten::div.Scalar_mode")
@register("aten::divide.Tensor_mode", "aten::divide.Scalar_mode")
def div_rounded(rounding_mode: str | None, *, out: TensorMeta) -> OpCost:
    """A division, and as ``rounding_mode``: none 1, ``trunc`` 2, ``floor`` as floor_divide 17."""
    return OpCost(flops={None: 1, "trunc": 2, "floor": _FLOOR_DIVIDE}[rounding_mode] * out.numel)


_FLOOR_DIVIDE = 17


@register("aten::floor_divide")
def floor_divide(*, out: TensorMeta) -> OpCost:
    """Floor of a quotient on floats: 17 FLOPs per output element in ``torch._refs``.

    fmod, exact quotient, sign corrections and signed zeros, each a prim.
    """
    return OpCost(flops=_FLOOR_DIVIDE * out.numel)


@register("aten::dropout", traffic=read_all_write_all_in_training)
def dropout(p: float, train: bool, *, out: TensorMeta) -> OpCost:
    """Training: compare a uniform sample, mask, scale, 3 FLOPs per element. Evaluation: none.

    Nor is there any where p is 0 (the input) or 1 (zeros).
    """
    return OpCost(flops=3 * out.numel if train and p not in {0, 1} else 0)


@register("aten::native_dropout")
def native_dropout(input: TensorMeta, p: float, train: bool | None) -> OpCost:
    """As ``dropout``; the mask it returns too is a by-product. Trains unless told otherwise."""
    return dropout(p, train is not False, out=input)


@register("aten::diff")
def diff(self: TensorMeta, n: int, dim: int, *, out: TensorMeta) -> OpCost:
    """n-th difference along ``dim``: n rounds of subtraction, each one element shorter.

    With m lanes, n * numel(out) + m * n (n - 1) / 2 FLOPs.
    """
    return OpCost(flops=n * out.numel + lanes(self, dim) * (n * (n - 1) // 2))


@register("aten::feature_dropout", traffic=read_all_write_all_in_training)
def feature_dropout(p: float, train: bool, *, out: TensorMeta) -> OpCost:
    """Training: a sample per channel scaled (1), and a multiplication per element.

    As the composite kernel does (``Dropout.cpp``); with p = 1 a product with zero, in
    evaluation nothing.
    """
    if not train or p in {0, 1}:
        return OpCost(flops=out.numel if train and p else 0)
    return OpCost(flops=out.numel + prod(out.shape[:2]))


@register("aten::feature_alpha_dropout", traffic=read_all_write_all_in_training)
def feature_alpha_dropout(p: float, train: bool, *, out: TensorMeta) -> OpCost:
    """Training: a slope and an offset per channel (4), a product and a sum per element.

    As the composite kernel does (``Dropout.cpp``); with p = 1 a product with zero, in
    evaluation nothing.
    """
    if not train or p in {0, 1}:
        return OpCost(flops=out.numel if train and p else 0)
    return OpCost(flops=2 * out.numel + 4 * prod(out.shape[:2]))


@register("aten::lerp")
def lerp(weight: object, *, out: TensorMeta) -> OpCost:
    """self + weight * (end - self): 3 FLOPs per output element.

    Weights in a tensor are first compared with 1/2, for accuracy: 3 more per weight.
    """
    weights = getattr(weight, "numel", 0)
    return OpCost(flops=3 * (out.numel + weights))


@register("aten::arange")
def arange(end: object, *, out: TensorMeta) -> OpCost:
    """start + i * step on floats: 2 FLOPs per element. Integer ranges are not FLOPs."""
    return _range((end,), out)


@register("aten::arange.start")
def arange_from(start: object, end: object, *, out: TensorMeta) -> OpCost:
    """As ``arange``."""
    return _range((start, end), out)


@register("aten::arange.start_step")
def arange_by(start: object, end: object, step: object, *, out: TensorMeta) -> OpCost:
    """As ``arange``."""
    return _range((start, end, step), out)


def _range(bounds: tuple[object, ...], out: TensorMeta) -> OpCost:
    floating = any(isinstance(bound, float) for bound in bounds)
    return OpCost(flops=2 * out.numel if floating else 0)
