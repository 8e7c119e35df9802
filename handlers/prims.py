"""PyTorch's primitives: what its reference decompositions end in.

An operator without a handler of its own is priced through these, so that its price is what
its reference decomposition costs: one FLOP per output element of each arithmetic prim.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import OpCost
from graphflops.pricing.memory_traffic import (
    no_traffic,
    overwrite_target,
    read_all_write_all,
    write_only,
)
from graphflops.pricing.registry import free, register

from ._shapes import reduced
from .pointwise import per_element

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

register(
    *(
        "prims::abs",
        "prims::fmod",
        "prims::remainder",
        "prims::maximum",
        "prims::minimum",
        "prims::sign",
    ),
    *("prims::floor", "prims::ceil", "prims::round", "prims::trunc"),
    *("prims::eq", "prims::ne", "prims::lt", "prims::le", "prims::gt", "prims::ge"),
    *("prims::nextafter", "prims::fmax", "prims::fmin", "prims::isfinite"),
)(per_element("One arithmetic operation or comparison", 1))

register(
    *("prims::exp", "prims::exp2", "prims::expm1", "prims::log", "prims::log1p", "prims::log2"),
    *("prims::log10", "prims::sqrt", "prims::rsqrt", "prims::cbrt", "prims::pow", "prims::sin"),
    *("prims::cos", "prims::tan", "prims::asin", "prims::acos", "prims::atan", "prims::atan2"),
    *("prims::sinh", "prims::cosh", "prims::tanh", "prims::asinh", "prims::acosh"),
    *("prims::atanh", "prims::erf", "prims::erfc", "prims::erf_inv", "prims::erfcx"),
    *("prims::lgamma", "prims::digamma", "prims::hypot", "prims::ndtri", "prims::zeta"),
    *("prims::bessel_i0", "prims::bessel_i0e", "prims::bessel_i1", "prims::bessel_i1e"),
    *("prims::bessel_j0", "prims::bessel_j1", "prims::spherical_bessel_j0"),
)(per_element("One elementary function", 1, 1))

register("prims::add", "prims::sub", "prims::neg")(
    per_element("An addition or negation", 1, complex_flops=2)
)


@register("prims::sum", "prims::amax", "prims::amin", "prims::prod")
def reduce(inp: TensorMeta, *, out: TensorMeta) -> OpCost:
    """One operation per element that disappears: n - m."""
    return OpCost(flops=(2 if inp.is_complex else 1) * reduced(inp.numel, out.numel))


@register("prims::var")
def var(inp: TensorMeta) -> OpCost:
    """Sum, divide, subtract, multiply, sum, divide: (n - m) + m + n + n + (n - m) + m = 4 n."""
    return OpCost(flops=4 * inp.numel)


free(
    *("prims::where", "prims::bitwise_and", "prims::bitwise_or", "prims::bitwise_xor"),
    *("prims::bitwise_not", "prims::shift_left", "prims::shift_right_arithmetic"),
    *("prims::signbit", "prims::gcd", "prims::xor_sum"),
    reason="selection, logic or bit patterns: no floating-point arithmetic",
    traffic=read_all_write_all,
)
free(
    *("prims::broadcast_in_dim", "prims::transpose", "prims::squeeze", "prims::split_dim"),
    *(
        "prims::collapse_view",
        "prims::as_strided",
        "prims::view_of",
        "prims::conj",
        "prims::real",
        "prims::imag",
    ),
    reason="view: the same memory under other sizes and strides",
    traffic=no_traffic,
)
free(
    *("prims::convert_element_type", "prims::clone", "prims::cat", "prims::collapse"),
    *("prims::rev", "prims::reshape", "prims::device_put", "prims::conj_physical"),
    reason="copy or conversion: elements are moved, none is computed",
    traffic=read_all_write_all,
)
free(
    *("prims::copy_to", "prims::copy_strided"),
    reason="copy into an existing tensor",
    traffic=overwrite_target,
)
free(
    *("prims::iota", "prims::fill", "prims::scalar_tensor", "prims::full", "prims::full_like"),
    *("prims::empty_strided", "prims::empty_permuted", "prims::normal", "prims::resize"),
    "prims::uniform",
    reason="fill, range, allocation or random numbers: no floating-point arithmetic",
    traffic=write_only,
)
