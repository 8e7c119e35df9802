"""Special functions without a decomposition: one elementary function per element.

As for ``erf`` or ``lgamma``: how many terms a kernel sums depends on the value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import OpCost
from graphflops.pricing.memory_traffic import read_all_write_all
from graphflops.pricing.registry import free, register

from ._shapes import lanes, reduced
from .pointwise import per_element

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

register(
    *("aten::polygamma", "aten::igamma", "aten::igammac", "aten::special_airy_ai"),
    *("prims::igamma", "prims::igammac", "aten::special_bessel_y0", "aten::special_bessel_y1"),
    *(f"aten::special_modified_bessel_{name}" for name in ("i0", "i1", "k0", "k1")),
    *(f"aten::special_scaled_modified_bessel_{name}" for name in ("k0", "k1")),
)(per_element("One elementary function", 1, 1))

register(
    *(f"aten::special_chebyshev_polynomial_{kind}" for kind in "tuvw"),
    *(f"aten::special_shifted_chebyshev_polynomial_{kind}" for kind in "tuvw"),
    *(f"aten::special_hermite_polynomial_{kind}" for kind in ("h", "he")),
    *("aten::special_laguerre_polynomial_l", "aten::special_legendre_polynomial_p"),
)(
    per_element(
        "One elementary function: the recurrence is as long as the degree, which is data", 1, 1
    )
)


@register("aten::angle")
def angle(self: TensorMeta) -> OpCost:
    """Complex: ``atan2``, one elementary function. Real: x < 0 and a NaN test, 2 comparisons.

    As in ``torch._inductor.decomposition.angle``.
    """
    if self.is_complex:
        return OpCost(flops=self.numel, transcendentals=self.numel)
    return OpCost(flops=2 * self.numel)


@register("aten::logcumsumexp")
def logcumsumexp(self: TensorMeta, dim: int) -> OpCost:
    """A scan of ``logaddexp`` along ``dim``: n - m steps for m lanes, 7 FLOPs each.

    max + log1p(exp(min - max)) as in ``torch._refs.logaddexp``: ge, isfinite, eq, sub, exp,
    log1p, add; two of the seven are transcendental.
    """
    steps = reduced(self.numel, lanes(self, dim))
    return OpCost(flops=7 * steps, transcendentals=2 * steps)


free(
    "aten::frexp",
    reason="bit patterns: mantissa and exponent are taken apart",
    traffic=read_all_write_all,
)
