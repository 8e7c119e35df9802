"""Reductions, scans and ordering: n elements reduced to m cost n - m operations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.cost import Dim, OpCost
from graphflops.registry import register

from ._shapes import lanes, log2_ceil, reduced
from .pointwise import per_element

if TYPE_CHECKING:
    from graphflops.ir import TensorMeta


@register("aten::sum", "aten::prod", "aten::amax", "aten::amin", "aten::argmax", "aten::argmin")
def reduce(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """One operation per element that disappears: n - m."""
    return OpCost(flops=reduced(self.numel, out.numel))


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
def mean(self: TensorMeta) -> OpCost:
    """Sum n - m and divide m: n."""
    return OpCost(flops=self.numel)


@register("aten::var")
def var(self: TensorMeta) -> OpCost:
    """Sum, divide, subtract, multiply, sum, divide: (n - m) + m + n + n + (n - m) + m = 4 n."""
    return OpCost(flops=4 * self.numel)


@register("aten::std")
def std(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """``var`` and a square root: 4 n + m."""
    return OpCost(flops=4 * self.numel + out.numel, transcendentals=out.numel)


@register("aten::var_mean")
def var_mean(self: TensorMeta) -> OpCost:
    """``var`` and ``mean``, each on its own: 4 n + n."""
    return OpCost(flops=5 * self.numel)


@register("aten::std_mean")
def std_mean(self: TensorMeta, *, out: tuple[TensorMeta, ...]) -> OpCost:
    """``std`` and ``mean``: 5 n + m."""
    return OpCost(flops=5 * self.numel + out[0].numel, transcendentals=out[0].numel)


@register("aten::linalg_vector_norm")
def vector_norm(self: TensorMeta, ord: float, *, out: TensorMeta) -> OpCost:
    """(sum |x|^p)^(1/p).

    p = 2: square n, sum n - m, root m. p = 1: abs n, sum n - m. p = inf: abs n, extremum
    n - m. p = 0: compare n, sum n - m. Else: power n, sum n - m, root m, and abs n unless p is
    even. Of a single number: its absolute value.
    """
    n, m = self.numel, out.numel
    if not self.shape:
        return OpCost(flops=1)
    if ord in {0, 1, float("inf"), float("-inf")}:
        return OpCost(flops=2 * n - m)
    if ord == 2:
        return OpCost(flops=2 * n, transcendentals=m)
    absolute = 0 if ord % 2 == 0 else n
    return OpCost(flops=2 * n + absolute, transcendentals=n + m)


@register("aten::cumsum", "aten::cumprod", "aten::cummax", "aten::cummin")
def scan(self: TensorMeta, dim: int) -> OpCost:
    """Running total along ``dim``: n - m for m lanes.

    The reference decomposition sums every prefix afresh; no kernel does.
    """
    return OpCost(flops=self.numel - lanes(self, dim))


@register("aten::sort", "aten::argsort")
def sort(self: TensorMeta, dim: int) -> OpCost:
    """n ceil(log2 L) comparisons for lanes of length L, as XLA's cost analysis counts."""
    return OpCost(flops=self.numel * log2_ceil(_length(self, dim)))


@register("aten::topk")
def topk(self: TensorMeta, k: Dim, dim: int) -> OpCost:
    """Select, then order: (L - k) + k ceil(log2 k) comparisons for each lane of length L.

    k = 1 is a maximum (L - 1), k = L a full sort.
    """
    length = _length(self, dim)
    return OpCost(flops=lanes(self, dim) * ((length - k) + k * log2_ceil(k)))


def _length(tensor: TensorMeta, dim: int) -> Dim:
    return tensor.shape[dim] if tensor.shape else 1


@register("aten::_weight_norm")
def weight_norm(v: TensorMeta, g: TensorMeta) -> OpCost:
    """v * (g / |v|) with one norm per element of g: 2 n for the norms, m to divide, n to scale.

    n elements in ``v``, m norms, m of the FLOPs transcendental (the roots).
    """
    n, m = v.numel, g.numel
    return OpCost(flops=3 * n + m, transcendentals=m)
