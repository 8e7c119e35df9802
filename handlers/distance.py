"""Distances between rows."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import TensorMeta
from graphflops.pricing.registry import register

from ._shapes import contraction, reduced
from .reduction import vector_norm

if TYPE_CHECKING:
    from collections.abc import Sequence

# ``compute_mode`` of cdist: up to this many rows on either side, differences are cheaper.
_FEW_ROWS = 25
_BY_PRODUCT, _BY_DIFFERENCE = 1, 2


@register("aten::pdist", "aten::_pdist_forward")
def pdist(self: TensorMeta, p: float, *, out: TensorMeta) -> OpCost:
    """All N (N - 1) / 2 pairs of rows of length M: M differences each, and their p-norm."""
    return _differences(out.numel, self.shape[-1], p)


@register("aten::cdist", "aten::_cdist_forward")
def cdist(
    x1: TensorMeta, x2: TensorMeta, p: float, compute_mode: int | None, *, out: TensorMeta
) -> OpCost:
    """P rows (B, P, M) to R rows (B, R, M): M differences and their p-norm for each pair.

    Euclidean distances (p = 2) go through a matrix product where either side has more than
    25 rows, a symbolic number included, or as ``compute_mode`` 1 or 2 says
    (``Distance.cpp``): |a|^2 - 2 ab + |b|^2 as a product over M + 2 columns, MACs = B * P * R
    * (M + 2); squared norms 2 n - rows for each side, -2 a for one, and for each pair a clamp
    (2) and a root. Source: ``torch._decomp`` of ``_euclidean_dist``.
    """
    rows = (x1.shape[-2], x2.shape[-2])
    if p != 2 or not _by_product(rows, compute_mode):
        return _differences(out.numel, x1.shape[-1], p)
    return euclidean_distance(x1, x2, out=out)


@register("aten::_euclidean_dist")
def euclidean_distance(x1: TensorMeta, x2: TensorMeta, *, out: TensorMeta) -> OpCost:
    """``cdist`` as a product: |a|^2 - 2 ab + |b|^2 over M + 2 columns, clamped, its root."""
    norms = sum(
        (x.numel + reduced(x.numel, prod(x.shape[:-1])) for x in (x1, x2)),
        start=0,
    )
    flops = norms + x1.numel + 3 * out.numel
    product = contraction(out.numel * (x1.shape[-1] + 2), out)
    return product + OpCost(flops=flops, transcendentals=out.numel)


def _by_product(rows: Sequence[Dim], compute_mode: int | None) -> bool:
    if compute_mode in {_BY_PRODUCT, _BY_DIFFERENCE}:
        return compute_mode == _BY_PRODUCT
    return any(not isinstance(size, int) or size > _FEW_ROWS for size in rows)


def _differences(pairs: Dim, length: Dim, p: float) -> OpCost:
    each = TensorMeta((pairs, length))
    return OpCost(flops=each.numel) + vector_norm(each, p, -1, out=TensorMeta((pairs,)))


@register("aten::_cdist_backward")
def cdist_backward(x1: TensorMeta, p: float, cdist: TensorMeta) -> OpCost:
    """The gradient of ``x1``: for each pair and column its term, added up.

    p = 1: g sign(d) for the difference d, 3. p = 2: g d / dist where that is not 0, 4. p = inf:
    g sign(d) where |d| is the distance, 5. p = 0: nothing. Else g d |d|^(p - 2) / dist^(p - 1),
    8 of which 2 are transcendental. And the addition. Source: ``DistanceOpsKernel.cpp``.
    """
    return _terms(cdist.numel * x1.shape[-1], p, additions=1)


@register("aten::_pdist_backward")
def pdist_backward(self: TensorMeta, p: float, pdist: TensorMeta) -> OpCost:
    """As ``_cdist_backward``; each term is added to one row and subtracted from the other."""
    return _terms(pdist.numel * self.shape[-1], p, additions=2)


def _terms(n: Dim, p: float, additions: int) -> OpCost:
    if p == 0:
        return OpCost()
    per = {1: 3, 2: 4, float("inf"): 5}.get(p, 8)
    return OpCost(flops=(per + additions) * n, transcendentals=2 * n if per == 8 else 0)
