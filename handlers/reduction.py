"""Reductions, scans and ordering: n elements reduced to m cost n - m operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

from ._shapes import contraction, dims_of, lanes, log2_ceil, reduced, smaller
from .pointwise import per_element

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta


@register("aten::prod", "aten::amax", "aten::amin", "aten::argmax", "aten::argmin")
def reduce(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """One operation per element that disappears: n - m; a complex addition is two."""
    return OpCost(flops=(2 if self.is_complex else 1) * reduced(self.numel, out.numel))


@register(
    *("aten::sum", "aten::_sparse_sum", "aten::_sparse_csr_sum"),
    *("aten::coalesce", "aten::_coalesce"),
    sparse=1,
)
def sum_of(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """An addition for each element that disappears, of those that are stored: n - m.

    A complex one is two.
    """
    return OpCost(flops=(2 if self.is_complex else 1) * reduced(self.stored, out.stored))


@register("aten::nansum")
def nansum(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """A test for NaN, n, and a sum, n - m."""
    return OpCost(flops=self.numel + reduced(self.numel, out.numel))


@register("aten::max", "aten::min")
def extremum(self: TensorMeta, *, out: TensorMeta | tuple[TensorMeta, ...]) -> OpCost:
    """Along an axis or over everything, with or without indices: n - m comparisons."""
    values = out[0] if isinstance(out, tuple) else out
    return OpCost(flops=reduced(self.numel, values.numel))


register("aten::max.other", "aten::min.other")(per_element("One comparison", 1))


@register("aten::all")
def every(self: TensorMeta) -> OpCost:
    """A comparison of each element with 0; combining the results is integer work."""
    return OpCost(flops=self.numel)


@register("aten::mean")
def mean(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Sum n - m and divide m: n; twice that if complex."""
    return OpCost(flops=(2 if self.is_complex else 1) * _mean(self.numel, out.numel))


def _mean(n: Dim, m: Dim) -> Dim:
    return reduced(n, m) + m


@register("aten::var")
def var(self: TensorMeta) -> OpCost:
    """Sum, divide, subtract, multiply, sum, divide: (n - m) + m + n + n + (n - m) + m = 4 n."""
    return OpCost(flops=4 * self.numel)


@register("aten::std")
def std(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """``var`` and a square root: 4 n + m."""
    return OpCost(flops=4 * self.numel + out.numel, transcendentals=out.numel)


@register("aten::var_mean")
def var_mean(self: TensorMeta, *, out: tuple[TensorMeta, ...]) -> OpCost:
    """``var`` and ``mean``, each on its own: 4 n + n."""
    return OpCost(flops=4 * self.numel + _mean(self.numel, out[0].numel))


@register("aten::std_mean")
def std_mean(self: TensorMeta, *, out: tuple[TensorMeta, ...]) -> OpCost:
    """``std`` and ``mean``: 5 n + m."""
    n, m = self.numel, out[0].numel
    return OpCost(flops=4 * n + _mean(n, m) + m, transcendentals=m)


@register("aten::linalg_vector_norm")
def vector_norm(self: TensorMeta, ord: float, dim: object, *, out: TensorMeta) -> OpCost:
    """(sum |x|^p)^(1/p).

    p = 2: square n, sum n - m, root m. p = 1: abs n, sum n - m. p = inf: abs n, extremum
    n - m. p = 0: compare n, sum n - m. Else: power n, sum n - m, root m, and abs n unless p is
    even; the root of p = 1/2 is a square. Of a single element: its absolute value.
    """
    lengths = [self.shape[axis] for axis in dims_of(dim, len(self.shape))] if self.shape else []
    if all(size == 1 for size in lengths) and (dim is None or lengths) and not _plain(ord):
        return OpCost(flops=self.numel)
    return norm(self.numel, out.numel, ord)


@register("aten::norm.ScalarOpt_dim", "aten::norm.ScalarOpt_dim_dtype")
def norm_along(self: TensorMeta, p: float | None, dim: object, *, out: TensorMeta) -> OpCost:
    """As ``linalg_vector_norm`` of order ``p``, by default 2."""
    return vector_norm(self, 2 if p is None else p, dim, out=out)


@register("aten::norm.Scalar", "aten::norm.ScalarOpt_dtype")
def norm_of_all(self: TensorMeta, p: float | None, *, out: TensorMeta) -> OpCost:
    """As ``linalg_vector_norm`` over everything."""
    return vector_norm(self, 2 if p is None else p, None, out=out)


@register("aten::trace")
def trace(self: TensorMeta) -> OpCost:
    """The diagonal's n elements summed: n - 1."""
    return OpCost(flops=reduced(smaller(*self.shape), 1))


def norm(n: Dim, m: Dim, p: float) -> OpCost:
    """m norms of order p over n elements in all, as ``vector_norm`` spells them out."""
    if _plain(p):
        return OpCost(flops=n + reduced(n, m))
    flops = n + reduced(n, m) + m
    if p == 2:
        return OpCost(flops=flops, transcendentals=m)
    absolute = 0 if p % 2 == 0 else n
    return OpCost(flops=flops + absolute, transcendentals=n + (0 if p == 0.5 else m))


def _plain(p: float) -> bool:
    return p in {0, 1, float("inf"), float("-inf")}


@register("aten::cumsum", "aten::cumprod", "aten::cummax", "aten::cummin")
def scan(self: TensorMeta, dim: int) -> OpCost:
    """Running total along ``dim``: n - m for m lanes.

    The reference decomposition sums every prefix afresh; no kernel does.
    """
    return OpCost(flops=reduced(self.numel, lanes(self, dim)))


@register("aten::sort", "aten::argsort")
def sort(self: TensorMeta, dim: int) -> OpCost:
    """n ceil(log2 L) comparisons for lanes of length L, as XLA's cost analysis counts."""
    return OpCost(flops=self.numel * log2_ceil(_length(self, dim)))


@register("aten::searchsorted")
def searchsorted(sorted_sequence: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Binary search: ceil(log2(L + 1)) comparisons per output in a sequence of L."""
    return OpCost(flops=out.numel * log2_ceil(sorted_sequence.shape[-1] + 1))


@register("aten::bucketize")
def bucketize(boundaries: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Binary search: ceil(log2(L + 1)) comparisons per output among L boundaries."""
    return OpCost(flops=out.numel * log2_ceil(boundaries.shape[-1] + 1))


@register("aten::topk")
def topk(self: TensorMeta, k: Dim, dim: int) -> OpCost:
    """Select, then order: (L - k) + k ceil(log2 k) comparisons for each lane of length L.

    k = 1 is a maximum (L - 1), k = L a full sort.
    """
    length = _length(self, dim)
    return OpCost(flops=lanes(self, dim) * ((length - k) + k * log2_ceil(k)))


@register("aten::kthvalue", "aten::median.dim", "aten::nanmedian.dim")
def select(self: TensorMeta, dim: int) -> OpCost:
    """Selecting one of L: L - 1 comparisons for each lane, the fewest that can do.

    So many settle one element's rank, as in ``topk`` of 1. Quickselect expects up to 3.4 L, by
    values; a radix select compares none.
    """
    return OpCost(flops=reduced(self.numel, lanes(self, dim)))


@register("aten::median", "aten::nanmedian")
def select_of_all(self: TensorMeta) -> OpCost:
    """As ``kthvalue`` of all n elements: n - 1 comparisons."""
    return OpCost(flops=reduced(self.numel, 1))


@register("aten::mode")
def mode(self: TensorMeta, dim: int) -> OpCost:
    """Sorted, and neighbours compared: n ceil(log2 L) + n - m for m lanes of length L."""
    n = self.numel
    return OpCost(flops=n * log2_ceil(_length(self, dim)) + reduced(n, lanes(self, dim)))


@register("aten::_unique", "aten::_unique2")
def unique(self: TensorMeta) -> OpCost:
    """Sorted, and neighbours compared: n ceil(log2 n) + n - 1."""
    n = self.numel
    return OpCost(flops=n * log2_ceil(n) + reduced(n, 1))


@register("aten::unique_dim")
def unique_along(self: TensorMeta, dim: int) -> OpCost:
    """As ``unique``, of L slices along ``dim`` with n elements in all.

    n ceil(log2 L) + n - n / L, if slices that are compared are compared to their ends: an
    upper bound.
    """
    n = self.numel
    return OpCost(flops=n * log2_ceil(_length(self, dim)) + reduced(n, lanes(self, dim)))


@register("aten::unique_consecutive")
def unique_consecutive(self: TensorMeta, dim: int | None) -> OpCost:
    """Neighbours compared: n - 1, or n - n / L along an axis of length L."""
    return OpCost(flops=reduced(self.numel, 1 if dim is None else lanes(self, dim)))


def _length(tensor: TensorMeta, dim: int) -> Dim:
    return tensor.shape[dim] if tensor.shape else 1


@register("aten::_weight_norm", "aten::_weight_norm_interface")
def weight_norm(v: TensorMeta, g: TensorMeta) -> OpCost:
    """v * (g / |v|) with one norm per element of g: 2 n for the norms, m to divide, n to scale.

    n elements in ``v``, m norms, m of the FLOPs transcendental (the roots).
    """
    n, m = v.numel, g.numel
    return OpCost(flops=3 * n + m, transcendentals=m)


@register("aten::cov")
def cov(self: TensorMeta, fweights: object, aweights: object, *, out: TensorMeta) -> OpCost:
    """Covariance of M variables (rows) over N observations: MACs = M^2 N.

    Mean (N - 1 sums and a division a row), centred (M N), the product, divided (M^2). Weights
    multiply the sum's terms and the product's (M N each) and are added up (N - 1); ``fweights``
    with ``aweights`` are multiplied first (N); ``aweights`` also correct the divisor by their
    own mean: N products, N - 1 sums, 3 more. Source: ``Correlation.cpp``.
    """
    observations: Dim = self.shape[-1] if self.shape else 1
    variables = self.numel // observations
    flops = 2 * self.numel + out.numel
    if fweights is not None or aweights is not None:
        flops += 2 * self.numel + observations - 1
    if fweights is not None and aweights is not None:
        flops += observations
    if aweights is not None:
        flops += 2 * observations + 2
    return contraction(variables * self.numel, out) + OpCost(flops=flops)


@register("aten::corrcoef")
def corrcoef(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Covariance divided by both deviations (M roots, 2 M^2), held to [-1, 1] (4 M^2).

    Source: ``Correlation.cpp``.
    """
    covariance = cov(self, None, None, out=out)
    if not out.shape:
        return covariance + OpCost(flops=1)
    variables = out.shape[0]
    scaled = OpCost(flops=variables + 6 * out.numel, transcendentals=variables)
    return covariance + scaled
