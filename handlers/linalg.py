"""Dense linear algebra: factorizations, and solving with them.

Costs are LAPACK's own counts (``handlers/_lapack.py`` has the sums and their source), times
the batch. They are FLOPs, not MACs: MACs are those of the graph's contractions. Composite
operators (``linalg_cholesky``, ``linalg_solve``, ``det``, ``pinv``, ...) decompose into these.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.memory_traffic import no_traffic, read_all_write_all
from graphflops.pricing.registry import free, register

from ._lapack import Work, geqrf, getrf, getrs, orgqr, ormqr, potrf, potri, sytrf, trtrs
from ._shapes import reduced, smaller

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta


def batch(matrices: TensorMeta) -> Dim:
    """Number of matrices."""
    return prod(matrices.shape[:-2])


@register("aten::linalg_cholesky_ex", "aten::cholesky")
def cholesky(self: TensorMeta) -> OpCost:
    """A = L L^H of order n: n^3/3 + n^2/2 + n/6 FLOPs, n of them roots (LAWN 41, xPOTRF)."""
    return (potrf(self.shape[-1]) * batch(self)).on(self)


@register("aten::cholesky_inverse")
def cholesky_inverse(self: TensorMeta) -> OpCost:
    """Inverse from a Cholesky factor of order n: 2/3 n^3 + n^2/2 + 5/6 n (LAWN 41, xPOTRI)."""
    return (potri(self.shape[-1]) * batch(self)).on(self)


@register("aten::cholesky_solve")
def cholesky_solve(input2: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Two triangular solves with a factor of order n: 2 n^2 per column (LAWN 41, xPOTRS)."""
    return (trtrs(out.numel, input2.shape[-1]) * 2).on(out)


@register("aten::linalg_lu_factor_ex", "aten::linalg_lu")
def lu(A: TensorMeta) -> OpCost:  # noqa: N803 - the schema's name
    """P A = L U of m x n: 2/3 n^3 - n^2/2 + 5/6 n if square (LAWN 41, xGETRF).

    With and without pivoting: exchanges and the comparisons of the search are not counted.
    LAWN 41 states m >= n; the sums it comes from run to min(m, n). Taking L and U apart is
    selection.
    """
    return (getrf(A.shape[-2], A.shape[-1]) * batch(A)).on(A)


free(
    "aten::lu_unpack",
    reason="selection: triangles of a matrix, and a permutation written out",
    traffic=read_all_write_all,
)

free(
    "aten::_linalg_check_errors",
    reason="check: a flag of each factorization, no tensor arithmetic",
    traffic=no_traffic,
)


@register("aten::linalg_lu_solve")
def lu_solve(LU: TensorMeta, *, out: TensorMeta) -> OpCost:  # noqa: N803 - the schema's name
    """Forward and back substitution of order n: n (2 n - 1) per column (LAWN 41, xGETRS)."""
    return getrs(out.numel, LU.shape[-1]).on(out)


@register("aten::_linalg_solve_ex")
def solve(A: TensorMeta, *, out: tuple[TensorMeta, ...]) -> OpCost:  # noqa: N803 - the schema's
    """A X = B or X A = B by LU, order n: xGETRF once, xGETRS for each column or row of X.

    One factorization for each matrix of ``A``, although ``B`` may have more to solve for:
    2/3 n^3 - n^2/2 + 5/6 n, and n (2 n - 1) per right-hand side (LAWN 41).
    """
    n = A.shape[-1]
    return (getrf(n, n) * batch(A) + getrs(out[0].numel, n)).on(out[0])


@register("aten::linalg_inv_ex")
def inverse(A: TensorMeta) -> OpCost:  # noqa: N803 - the schema's name
    """A X = I as PyTorch solves it, order n: xGETRF, and xGETRS for n columns.

    8/3 n^3 - 3/2 n^2 + 5/6 n (LAWN 41). LAPACK's own inversion, xGETRI, would need 2 n^3 in
    all; PyTorch fills the result with the identity and calls ``linalg_solve_ex``
    (aten/src/ATen/native/BatchLinearAlgebra.cpp).
    """
    n = A.shape[-1]
    return ((getrf(n, n) + getrs(n * n, n)) * batch(A)).on(A)


@register("aten::_linalg_det")
def det(A: TensorMeta) -> OpCost:  # noqa: N803 - the schema's name
    """LU of order n (LAWN 41, xGETRF), and the n factors of its diagonal and its sign.

    2/3 n^3 - n^2/2 + 11/6 n.
    """
    n = A.shape[-1]
    return ((getrf(n, n) + Work(multiplications=n)) * batch(A)).on(A)


@register("aten::_linalg_slogdet")
def slogdet(A: TensorMeta) -> OpCost:  # noqa: N803 - the schema's name
    """LU of order n (LAWN 41, xGETRF), then sign and logarithm along its diagonal.

    n signs and n products of them; n magnitudes, n logarithms, and their sum, n - 1.
    """
    n = A.shape[-1]
    signs = (getrf(n, n) + Work(multiplications=n)) * batch(A)
    rest = OpCost(flops=3 * n + reduced(n, 1), transcendentals=n)
    return signs.on(A) + rest * batch(A)


@register("aten::linalg_ldl_factor_ex")
def ldl(self: TensorMeta) -> OpCost:
    """P A P^T = L D L^T of order n: n^3/3 + n^2/2 + 19/6 n (LAWN 41, xSYTRF)."""
    return (sytrf(self.shape[-1]) * batch(self)).on(self)


@register("aten::linalg_ldl_solve")
def ldl_solve(LD: TensorMeta, *, out: TensorMeta) -> OpCost:  # noqa: N803 - the schema's name
    """Solve from L D L^T of order n: n (2 n - 1) per column (LAWN 41, xSYTRS)."""
    return getrs(out.numel, LD.shape[-1]).on(out)


@register("aten::linalg_solve_triangular")
def solve_triangular(self: TensorMeta, unitriangular: bool, *, out: TensorMeta) -> OpCost:
    """Substitution of order n: n^2 per column (or row) of the solution (LAWN 41, xTRTRS).

    A unit diagonal saves its n divisions.
    """
    return trtrs(out.numel, self.shape[-1], unit=unitriangular).on(out)


@register("aten::triangular_solve")
def triangular_solve(
    A: TensorMeta,  # noqa: N803 - the schema's name
    unitriangular: bool,
    *,
    out: tuple[TensorMeta, ...],
) -> OpCost:
    """As ``linalg_solve_triangular``: n^2 per column of the solution (LAWN 41, xTRTRS)."""
    return trtrs(out[0].numel, A.shape[-1], unit=unitriangular).on(out[0])


@register("aten::geqrf")
def householder_qr(self: TensorMeta) -> OpCost:
    """R and the reflectors of Q, m x n: 2 m n^2 - 2/3 n^3 + ... for m > n (LAWN 41, xGEQRF).

    One root for each of the min(m, n) reflectors.
    """
    return (geqrf(self.shape[-2], self.shape[-1]) * batch(self)).on(self)


@register("aten::linalg_qr")
def qr(A: TensorMeta, mode: str, *, out: tuple[TensorMeta, ...]) -> OpCost:  # noqa: N803
    """Householder QR of m x n, and Q from its reflectors unless only R is wanted.

    xGEQRF, then xORGQR (LAWN 41) for the columns of Q: min(m, n) if reduced, m if complete.
    Thin and leading: 4 m n^2 - 4/3 n^3.
    """
    m, n = A.shape[-2], A.shape[-1]
    work = geqrf(m, n)
    if mode != "r":
        work += orgqr(m, out[0].shape[-1], smaller(m, n))
    return (work * batch(A)).on(A)


@register("aten::linalg_householder_product")
def householder_product(input: TensorMeta, tau: TensorMeta) -> OpCost:
    """The first n columns of the product of k reflectors of length m (LAWN 41, xORGQR).

    Leading: 4 m n k - 2 (m + n) k^2 + 4/3 k^3.
    """
    m, n = input.shape[-2], input.shape[-1]
    return (orgqr(m, n, tau.shape[-1]) * batch(input)).on(input)


@register("aten::ormqr")
def ormqr_(input2: TensorMeta, left: bool, *, out: TensorMeta) -> OpCost:
    """k reflectors applied to m x n from the left or the right (LAWN 41, xORMQR).

    Leading: 4 m n k - 2 n k^2 from the left, m and n exchanged from the right. ``input2``
    holds the k scalars of the reflectors.
    """
    m, n = out.shape[-2], out.shape[-1]
    order, vectors = (m, n) if left else (n, m)
    return (ormqr(order, vectors, input2.shape[-1], left=left) * batch(out)).on(out)
