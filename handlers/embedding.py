"""Lookups and scatters: they move rows, and only the accumulating ones compute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.cost import OpCost
from graphflops.registry import free, register
from graphflops.traffic import gathered, scattered

if TYPE_CHECKING:
    from graphflops.ir import TensorMeta

free(
    *("aten::embedding", "aten::index", "aten::index_select", "aten::gather", "aten::take"),
    *("aten::take_along_dim", "aten::_unsafe_index"),
    reason="lookup: the indexed elements are copied out",
    traffic=gathered,
)

free(
    *("aten::scatter", "aten::index_copy", "aten::index_fill", "aten::masked_scatter"),
    *("aten::slice_scatter", "aten::select_scatter", "aten::diagonal_scatter"),
    reason="scatter: elements are copied to their places",
    traffic=scattered,
)


@register("aten::index_put", "aten::_index_put_impl", traffic=scattered)
def index_put(values: TensorMeta, accumulate: bool) -> OpCost:
    """self[indices] = values; with ``accumulate``, one addition per value."""
    return OpCost(flops=values.numel if accumulate else 0)


@register("aten::scatter_add", traffic=scattered)
def scatter_add(src: TensorMeta) -> OpCost:
    """self[index] += src: one addition per source element."""
    return OpCost(flops=src.numel)


@register("aten::scatter_reduce", traffic=scattered)
def scatter_reduce(src: TensorMeta, reduce: str) -> OpCost:
    """One operation per source element; a mean also counts and divides (2 more)."""
    return OpCost(flops=src.numel * (3 if reduce == "mean" else 1))


@register("aten::index_add", traffic=scattered)
def index_add(source: TensorMeta, alpha: object) -> OpCost:
    """self[index] += alpha * source: one addition per source element, one more to scale."""
    return OpCost(flops=source.numel * (1 if alpha == 1 else 2))


@register("aten::histc")
def histc(self: TensorMeta) -> OpCost:
    """Which bin an element falls in: two range tests, then (x - low) * bins / (high - low).

    5 per element, as the CPU kernel computes it (``HistogramKernel.cpp``).
    """
    return OpCost(flops=5 * self.numel)
