"""Sparse tensors: what makes them, takes them apart, and products that only they have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import OpCost
from graphflops.pricing.memory_traffic import gather_elements, no_traffic, read_all_write_all
from graphflops.pricing.registry import free, register

from ._shapes import contraction, of_stored

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta


@register("aten::_sparse_mm.default", sparse=1)
def sparse_mm(sparse: TensorMeta, dense: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Product of a sparse and a dense matrix, of either of which Z elements are stored.

    (M, K) @ (K, N): MACs = Z * N, or M * Z. ``FlopCounterMode`` counts 0.
    """
    return contraction(of_stored(out.numel * sparse.shape[-1], sparse, dense), out)


@register("aten::_sparse_mm.reduce", sparse=1)
def sparse_mm_reduce(
    sparse: TensorMeta, dense: TensorMeta, reduce: str, *, out: TensorMeta
) -> OpCost:
    """Sum, mean or extremum of the products of Z stored elements with rows of N.

    Z * N products and as many sums or comparisons: of ``sum`` and ``mean`` MACs = Z * N. A mean
    divides each output.
    """
    return _reduced_products(sparse, dense, reduce, out)


@register("aten::_sparse_mm_reduce_impl", sparse=1)
def sparse_mm_reduce_impl(
    self: TensorMeta, other: TensorMeta, reduce: str, *, out: tuple[TensorMeta, ...]
) -> OpCost:
    """The kernel of ``_sparse_mm.reduce``, which costs as much."""
    return _reduced_products(self, other, reduce, out[0])


def _reduced_products(
    sparse: TensorMeta, dense: TensorMeta, reduce: str, out: TensorMeta
) -> OpCost:
    products = of_stored(out.numel * sparse.shape[-1], sparse, dense)
    if reduce in {"amax", "amin"}:
        return OpCost(flops=2 * products)
    return contraction(products, out) + OpCost(flops=out.numel if reduce == "mean" else 0)


@register("aten::sparse_sampled_addmm", sparse=1)
def sampled_addmm(
    self: TensorMeta, mat1: TensorMeta, beta: object, alpha: object, *, out: TensorMeta
) -> OpCost:
    """beta * self + alpha * (mat1 @ mat2) where ``self`` stores its Z elements.

    Each is a dot product over K: MACs = Z * K, and one addition; a scalar that is not 1
    multiplies Z elements.
    """
    scaled = (beta not in {0, 1}) + (alpha != 1)
    added = 0 if beta == 0 else 1
    return contraction(out.stored * mat1.shape[-1], out) + OpCost(
        flops=(scaled + added) * self.stored
    )


free(
    *("aten::sparse_coo_tensor", "aten::_sparse_coo_tensor_unsafe"),
    *("aten::_sparse_coo_tensor_with_dims", "aten::_sparse_coo_tensor_with_dims_and_tensors"),
    *("aten::sparse_compressed_tensor", "aten::_sparse_compressed_tensor_unsafe"),
    *("aten::_sparse_compressed_tensor_with_dims", "aten::sparse_csr_tensor"),
    *("aten::sparse_csc_tensor", "aten::sparse_bsr_tensor", "aten::sparse_bsc_tensor"),
    *("aten::_sparse_csr_tensor_unsafe", "aten::_sparse_csc_tensor_unsafe"),
    *("aten::_sparse_bsr_tensor_unsafe", "aten::_sparse_bsc_tensor_unsafe"),
    *("aten::indices", "aten::_indices", "aten::values", "aten::_values"),
    *("aten::crow_indices", "aten::col_indices", "aten::ccol_indices", "aten::row_indices"),
    *("aten::is_coalesced", "aten::_coalesced", "aten::sparse_dim", "aten::dense_dim"),
    reason="indices and values, put together or taken apart: the same memory",
    traffic=no_traffic,
)

free(
    *("aten::to_sparse", "aten::_to_sparse", "aten::to_sparse_csr", "aten::_to_sparse_csr"),
    *("aten::to_sparse_csc", "aten::_to_sparse_csc", "aten::to_sparse_bsr"),
    *("aten::_to_sparse_bsr", "aten::to_sparse_bsc", "aten::_to_sparse_bsc"),
    *("aten::to_dense", "aten::_to_dense", "aten::_spdiags"),
    reason="another layout: elements are moved, none is computed",
    traffic=read_all_write_all,
)

free(
    "aten::sparse_mask",
    reason="selection: elements are chosen by where others lie",
    traffic=gather_elements,
)
