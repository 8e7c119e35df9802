"""Backward of lookups, views and padding: gradients put, or added, where elements came from.

One addition for each element that is added to its place, as in ``scatter_add``; views in turn
copy their gradient into zeros.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import OpCost
from graphflops.pricing.memory_traffic import read_all_write_all
from graphflops.pricing.registry import free, register

from ._shapes import contraction

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

free(
    *("aten::select_backward", "aten::slice_backward", "aten::diagonal_backward"),
    *("aten::masked_scatter_backward", "aten::max_unpool2d", "aten::max_unpool3d"),
    reason="copy: the gradient is put into zeros",
    traffic=read_all_write_all,
)


@register(
    *("aten::reflection_pad1d_backward", "aten::reflection_pad2d_backward"),
    *("aten::reflection_pad3d_backward", "aten::replication_pad1d_backward"),
    *("aten::replication_pad2d_backward", "aten::replication_pad3d_backward"),
)
def pad_backward(grad_output: TensorMeta) -> OpCost:
    """Each gradient added to the element that it is a copy of: 1 each.

    The reference of reflection gathers 3^d masked copies of the input's size; no kernel does.
    """
    return OpCost(flops=grad_output.numel)


@register("aten::unfold_backward")
def unfold_backward(grad_in: TensorMeta) -> OpCost:
    """Each gradient added to the element it was taken from: 1 each."""
    return OpCost(flops=grad_in.numel)


@register("aten::col2im")
def col2im(self: TensorMeta) -> OpCost:
    """Each element of the columns added to its place in the image: 1 each."""
    return OpCost(flops=self.numel)


@register("aten::_unsafe_index_put")
def unsafe_index_put(values: TensorMeta, accumulate: bool) -> OpCost:
    """self[indices] = values; with ``accumulate``, one addition per value."""
    return OpCost(flops=values.numel if accumulate else 0)


@register("aten::embedding_dense_backward")
def embedding_dense_backward(grad_output: TensorMeta, scale_grad_by_freq: bool) -> OpCost:
    """Each row's gradient added to the row that was looked up: 1 per element.

    By frequency, one division per element more. Which indices are padding are values: none is
    taken to be.
    """
    return OpCost(flops=grad_output.numel * (2 if scale_grad_by_freq else 1))


# ``mode`` of an embedding bag.
_MEAN, _MAX = 1, 2


@register("aten::_embedding_bag_dense_backward")
def embedding_bag_dense_backward(
    grad: TensorMeta,
    indices: TensorMeta,
    scale_grad_by_freq: bool,
    mode: int,
    per_sample_weights: TensorMeta | None,
) -> OpCost:
    """A bag's gradient added to each of I rows of D elements: I D additions.

    Where rows are scaled (for a mean, by frequency, by weights per sample) I D multiplications
    more, and a division per row for the mean and for the frequency. A maximum adds each
    gradient once, to the row that it came from. Source: ``EmbeddingBag.cpp``.
    """
    if mode == _MAX:
        return OpCost(flops=grad.numel)
    rows, width = indices.numel, grad.shape[-1]
    divided = (mode == _MEAN) + scale_grad_by_freq
    scaled = bool(divided) or per_sample_weights is not None
    return OpCost(flops=rows * (width * (1 + scaled) + divided))


@register("aten::_embedding_bag_backward")
def embedding_bag_backward(
    grad: TensorMeta,
    indices: TensorMeta,
    scale_grad_by_freq: bool,
    mode: int,
    per_sample_weights: TensorMeta | None,
) -> OpCost:
    """As ``_embedding_bag_dense_backward``; a sparse gradient adds its rows up later."""
    return embedding_bag_dense_backward(grad, indices, scale_grad_by_freq, mode, per_sample_weights)


@register("aten::_embedding_bag_per_sample_weights_backward")
def embedding_bag_weights_backward(grad: TensorMeta, indices: TensorMeta) -> OpCost:
    """A bag's gradient times the row, for each of I rows of D elements: MACs = I * D."""
    return contraction(indices.numel * grad.shape[-1], grad)


@register("aten::_segment_reduce_backward")
def segment_reduce_backward(data: TensorMeta, output: TensorMeta, reduce: str) -> OpCost:
    """n elements of m segments: of a sum copies, of a mean m divisions.

    Of extrema n comparisons, and m divisions among equals; of a product g y / x, 2 n. Source:
    ``SegmentReduce.cpp``.
    """
    n, m = data.numel, output.numel
    return OpCost(flops={"sum": 0, "mean": m, "prod": 2 * n}.get(reduce, n + m))
