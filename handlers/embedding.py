"""Lookups and scatters: they move rows, and only the accumulating ones compute."""

from __future__ import annotations

from graphflops.core.cost import OpCost
from graphflops.core.ir import TensorMeta
from graphflops.pricing.memory_traffic import gather_elements, scatter_elements
from graphflops.pricing.registry import free, register

from ._shapes import reduced

free(
    *("aten::embedding", "aten::index", "aten::index_select", "aten::gather", "aten::take"),
    *("aten::take_along_dim", "aten::_unsafe_index", "aten::_unsafe_masked_index"),
    reason="lookup: the indexed elements are copied out",
    traffic=gather_elements,
)

free(
    *("aten::scatter", "aten::index_copy", "aten::index_fill", "aten::masked_scatter"),
    *("aten::slice_scatter", "aten::select_scatter", "aten::diagonal_scatter"),
    *("aten::as_strided_scatter",),
    reason="scatter: elements are copied to their places",
    traffic=scatter_elements,
)


@register("aten::index_put", "aten::_index_put_impl", traffic=scatter_elements)
def index_put(values: TensorMeta, accumulate: bool) -> OpCost:
    """self[indices] = values; with ``accumulate``, one addition per value."""
    return OpCost(flops=values.numel if accumulate else 0)


@register("aten::_unsafe_masked_index_put_accumulate", traffic=scatter_elements)
def masked_index_put(values: TensorMeta) -> OpCost:
    """self[indices] += values where the mask holds: one addition per value."""
    return OpCost(flops=values.numel)


@register("aten::put", traffic=scatter_elements)
def put(source: TensorMeta, accumulate: bool) -> OpCost:
    """self.flatten()[index] = source; with ``accumulate``, one addition per source element."""
    return OpCost(flops=source.numel if accumulate else 0)


@register("aten::scatter_add", traffic=scatter_elements)
def scatter_add(src: TensorMeta) -> OpCost:
    """self[index] += src: one addition per source element."""
    return OpCost(flops=src.numel)


@register("aten::scatter_reduce", traffic=scatter_elements)
def scatter_reduce(src: TensorMeta, reduce: str) -> OpCost:
    """One operation per source element; a mean also counts and divides (2 more)."""
    return OpCost(flops=src.numel * (3 if reduce == "mean" else 1))


@register("aten::index_reduce", traffic=scatter_elements)
def index_reduce(source: TensorMeta, reduce: str, *, out: TensorMeta) -> OpCost:
    """One operation per source element.

    A mean also counts them, and tests and divides every element of the result
    (``TensorAdvancedIndexing.cpp``).
    """
    if reduce == "mean":
        return OpCost(flops=2 * source.numel + 2 * out.numel)
    return OpCost(flops=source.numel)


@register("aten::segment_reduce")
def segment_reduce(data: TensorMeta, reduce: str, initial: object, *, out: TensorMeta) -> OpCost:
    """n elements into m segments: n - m, or n from an ``initial`` value; m more for a mean.

    Where segments end are values; none is taken to be empty.
    """
    combined = reduced(data.numel, out.numel) if initial is None else data.numel
    return OpCost(flops=combined + (out.numel if reduce == "mean" else 0))


@register(
    *("aten::embedding_bag", "aten::_embedding_bag", "aten::_embedding_bag_forward_only"),
    traffic=None,
)
def embedding_bag(
    weight: TensorMeta,
    indices: TensorMeta,
    offsets: TensorMeta,
    mode: int,
    per_sample_weights: TensorMeta | None,
    *,
    out: tuple[TensorMeta, ...],
) -> OpCost:
    """Rows of (V, D) looked up and combined, I rows into bags (``mode`` 0 sum, 1 mean, 2 max).

    n = I * D elements into m = bags * D: n - m additions or comparisons, m divisions for a
    mean, n multiplications for weights per sample. Where bags end are values: none is taken
    to be empty, no index to be padding. Bytes are those of the rows looked up.
    """
    rows = TensorMeta((indices.numel, weight.shape[1]), weight.dtype)
    combined = reduced(rows.numel, out[0].numel)
    divided = out[0].numel if mode == 1 else 0
    weighted = rows.numel if per_sample_weights is not None else 0
    sources = [rows, indices, offsets]
    if per_sample_weights is not None:
        sources.append(per_sample_weights)
    return OpCost(
        flops=combined + divided + weighted,
        bytes_read=sum((tensor.nbytes for tensor in sources), start=0),
        bytes_written=sum((tensor.nbytes for tensor in out), start=0),
    )


@register("aten::index_add", traffic=scatter_elements)
def index_add(source: TensorMeta, alpha: object) -> OpCost:
    """self[index] += alpha * source: one addition per source element, one more to scale."""
    return OpCost(flops=source.numel * (1 if alpha == 1 else 2))


@register("aten::histc")
def histc(self: TensorMeta) -> OpCost:
    """The bin of each element: two range tests, then (x - low) * bins / (high - low).

    5 per element, as the CPU kernel computes it (``HistogramKernel.cpp``).
    """
    return OpCost(flops=5 * self.numel)


@register("aten::embedding_renorm")
def embedding_renorm(self: TensorMeta, indices: TensorMeta) -> OpCost:
    """Each row looked up: its norm (2 per element), a comparison, and if too long its scaling.

    An upper bound, as if all rows were distinct and too long: 3 D + 3 for a row of D elements.
    """
    width = self.shape[-1]
    return OpCost(flops=indices.numel * (3 * width + 3), transcendentals=indices.numel)
