"""Operators that Inductor's decompositions and passes put into graphs."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import OpCost
from graphflops.pricing.memory_traffic import (
    copy_unless_view,
    gather_elements,
    read_all_write_all,
    scatter_elements,
    write_only,
)
from graphflops.pricing.registry import free, register

from ._shapes import per_axis
from .pointwise import per_element

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

register("prims::fma")(per_element("A multiplication and an addition", 2, complex_flops=8))


@register("prims::prepare_softmax_online")
def prepare_softmax_online(a: TensorMeta, *, out: tuple[TensorMeta, ...]) -> OpCost:
    """Maximum, subtract, exp, sum of n elements to m: (n - m) + n + n + (n - m)."""
    return OpCost(flops=4 * a.numel - 2 * out[0].numel, transcendentals=a.numel)


@register("prims::_low_memory_max_pool_with_offsets")
def low_memory_max_pool(kernel_size: tuple[int, ...], *, out: tuple[TensorMeta, ...]) -> OpCost:
    """As ``aten::max_pool2d``: w - 1 comparisons for a window of w."""
    return OpCost(flops=out[0].numel * (prod(per_axis(kernel_size, len(kernel_size))) - 1))


@register("prims::_unsafe_index_put_", traffic=scatter_elements)
def unsafe_index_put(values: TensorMeta, accumulate: bool) -> OpCost:
    """As ``aten::index_put``: with ``accumulate``, one addition per value."""
    return OpCost(flops=values.numel if accumulate else 0)


free(
    "prims::_low_memory_max_pool_offsets_to_indices",
    reason="index arithmetic is not floating-point",
    traffic=read_all_write_all,
)
free(
    *("prims::inductor_seed", "prims::inductor_seeds", "prims::inductor_random"),
    *("prims::inductor_randint", "prims::inductor_rand_eager_offset"),
    "prims::inductor_rand_eager_offsets",
    reason="random numbers: the generator's integer work is not floating-point arithmetic",
    traffic=write_only,
)
free("prims::inductor_lookup_seed", reason="lookup of a number", traffic=gather_elements)
free(
    "prims::inductor_force_stride_order",
    reason="copy, unless the strides are as asked for",
    traffic=copy_unless_view,
)
free(
    "prims::inductor_cvt_e8m0_rceil",
    reason="conversion to a power of two, by the bits of the number",
    traffic=read_all_write_all,
)
