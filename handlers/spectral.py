"""Singular values, eigenvalues and what rests on them: iterations, hence estimates.

How often an iteration repeats depends on the values. The counts here are the textbook's, to
leading order: Golub and Van Loan, "Matrix Computations", 4th edition. A complex operand costs
four times as much (half of the operations multiply, at 6 FLOPs, half add, at 2). Roots are
not listed apart.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

from ._lapack import floor, geqrf, ormqr, trtrs
from ._shapes import contraction, dims_of, lanes, reduced, smaller
from .linalg import batch, inverse
from .reduction import vector_norm

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta


def _estimate(flops: Dim, matrices: TensorMeta) -> OpCost:
    return OpCost(flops=flops * batch(matrices) * (4 if matrices.is_complex else 1))


def _long_and_short(matrix: TensorMeta) -> tuple[Dim, Dim]:
    """Both sizes, the larger first: a wide matrix costs what its transpose does."""
    rows, columns = matrix.shape[-2:]
    short = smaller(rows, columns)
    return rows + columns - short, short


@register("aten::_linalg_svd")
def svd(A: TensorMeta, full_matrices: bool, compute_uv: bool) -> OpCost:  # noqa: N803
    """A = U S V^H of m x n, m >= n or its transpose: an estimate.

    The cheaper of Golub and Reinsch's SVD and R-SVD (QR first), as LAPACK's drivers choose by
    shape; Golub and Van Loan, Figure 8.6.1. S alone: 4 m n^2 - 4/3 n^3 or 2 m n^2 + 2 n^3. S, V
    and n columns of U: 14 m n^2 + 8 n^3 or 6 m n^2 + 20 n^3. All m columns of U: 2 n (2 m - n)
    (m - n) more, which is what xORGQR needs for them and the figure's difference for R-SVD.
    """
    m, n = _long_and_short(A)
    if not compute_uv:
        return _estimate(smaller(floor(4 * (3 * m - n) * n**2, 3), 2 * (m + n) * n**2), A)
    flops = smaller((14 * m + 8 * n) * n**2, (6 * m + 20 * n) * n**2)
    if full_matrices:
        flops += 2 * n * (2 * m - n) * (m - n)
    return _estimate(flops, A)


@register("aten::linalg_svdvals")
def svdvals(A: TensorMeta) -> OpCost:  # noqa: N803 - the schema's name
    """S alone, as ``_linalg_svd`` without vectors.

    This and the other operators that need values alone have handlers because traced under fake
    tensors they ask for vectors too, as for a gradient; run, they do not.
    """
    return svd(A, full_matrices=False, compute_uv=False)


@register("aten::_linalg_eigh")
def eigh(A: TensorMeta, compute_v: bool) -> OpCost:  # noqa: N803 - the schema's name
    """Symmetric QR algorithm of order n: 9 n^3 with eigenvectors, 4/3 n^3 without, rounded down.

    An estimate: Golub and Van Loan, Algorithm 8.3.3.
    """
    n = A.shape[-1]
    return _estimate(9 * n**3 if compute_v else floor(4 * n**3, 3), A)


@register("aten::linalg_eigvalsh")
def eigvalsh(self: TensorMeta) -> OpCost:
    """Eigenvalues alone, as ``_linalg_eigh`` without vectors: 4/3 n^3, rounded down."""
    return eigh(self, compute_v=False)


@register("aten::linalg_eig")
def eig(self: TensorMeta) -> OpCost:
    """Eigenvalues and eigenvectors of order n: 79/3 n^3, rounded down; an estimate.

    The QR algorithm with Q and T, 25 n^3 (Golub and Van Loan, Algorithm 7.5.2), back
    substitution for n eigenvectors of T, n^3/3, and their product with Q, n^3: the 26.33 n^3
    that the LAPACK Users' Guide (section 3.6) takes for xGEEV.
    """
    return _estimate(floor(79 * self.shape[-1] ** 3, 3), self)


@register("aten::linalg_eigvals", "aten::_linalg_eigvals")
def eigvals(self: TensorMeta) -> OpCost:
    """Eigenvalues alone, order n: 10 n^3 (Golub and Van Loan, Algorithm 7.5.2); an estimate."""
    return _estimate(10 * self.shape[-1] ** 3, self)


@register("aten::linalg_matrix_norm")
def matrix_norm(self: TensorMeta, ord: float | str, dim: tuple[int, ...]) -> OpCost:
    """A norm of each m x n matrix over the two axes of ``dim``.

    2, -2 and nuc: singular values, and the extremum or the sum of the min(m, n). fro: as the
    vector norm, 2 m n, one of them a root. 1, -1 and +-inf: magnitudes m n, and sums and their
    extremum m n - 1.
    """
    rows, columns = (self.shape[axis] for axis in dim)
    count = lanes(self, dim)
    if ord == "fro":
        return OpCost(flops=2 * self.numel, transcendentals=count)
    if ord in {2, -2, "nuc"}:
        matrices = replace(self, shape=(count, rows, columns), strides=None)
        rest = reduced(smaller(rows, columns), 1)
        return svdvals(matrices) + OpCost(flops=rest * count)
    return OpCost(flops=self.numel + reduced(self.numel, count))


@register("aten::nuclear_norm.dim")
def nuclear_norm_of(self: TensorMeta, dim: tuple[int, ...]) -> OpCost:
    """As ``linalg_matrix_norm`` with ``nuc``: singular values and their sum."""
    return matrix_norm(self, "nuc", dim)


@register("aten::nuclear_norm")
def nuclear_norm(self: TensorMeta) -> OpCost:
    """As ``linalg_matrix_norm`` with ``nuc``: singular values and their sum."""
    return matrix_norm(self, "nuc", (-2, -1))


@register("aten::linalg_norm")
def norm(
    self: TensorMeta, ord: float | str | None, dim: tuple[int, ...] | None, *, out: TensorMeta
) -> OpCost:
    """As ``linalg_matrix_norm`` if there is an ``ord`` and two axes, else ``linalg_vector_norm``.

    Without ``ord`` it is the 2-norm of all elements.
    """
    axes = dims_of(dim, len(self.shape))
    if ord is not None and len(axes) == 2:
        return matrix_norm(self, ord, axes)
    return vector_norm(self, 2 if ord is None else float(ord), dim, out=out)


@register("aten::linalg_cond")
def cond(self: TensorMeta, p: float | str | None) -> OpCost:
    """By 2 or -2: singular values and one division. Else: |A| |A^-1|, inversion and two norms."""
    if self.numel == 0:
        return OpCost()
    if p in {None, 2, -2}:
        return svdvals(self) + OpCost(flops=batch(self))
    both = matrix_norm(self, p, (-2, -1)) * 2
    return inverse(self) + both + OpCost(flops=batch(self))


@register("aten::linalg_matrix_rank")
def matrix_rank(self: TensorMeta, hermitian: bool) -> OpCost:
    """Number of the p = min(m, n) singular values (or n eigenvalues) above a tolerance.

    The values, and 2 for the tolerance, and p comparisons; for eigenvalues, magnitudes n and
    the largest of them n - 1.
    """
    if self.numel == 0:
        return OpCost()
    rank = smaller(self.shape[-2], self.shape[-1])
    values = eigvalsh(self) if hermitian else svdvals(self)
    magnitudes = rank + reduced(rank, 1) if hermitian else 0
    return values + OpCost(flops=magnitudes + 2 + rank) * batch(self)


@register(
    *("aten::linalg_matrix_rank.tol_tensor", "aten::linalg_matrix_rank.out_tol_tensor"),
    *("aten::linalg_matrix_rank.atol_rtol_tensor", "aten::linalg_matrix_rank.atol_rtol_tensor_out"),
)
def matrix_rank_by_tensor(input: TensorMeta, hermitian: bool) -> OpCost:
    """As ``linalg_matrix_rank``: values, tolerance and comparisons."""
    return matrix_rank(input, hermitian)


@register("aten::linalg_lstsq")
def lstsq(self: TensorMeta, b: TensorMeta, driver: str | None) -> OpCost:
    """min |A X - B| of m x n with r right-hand sides.

    By QR, m >= n or the transpose (drivers gels and gelsy, whose column exchanges are not
    counted): xGEQRF, xORMQR on r columns, xTRTRS (LAWN 41). By SVD (gelss and gelsd), an
    estimate: the cheaper of 4 m n^2 + 8 n^3 and 2 m n^2 + 11 n^3 (Golub and Van Loan,
    Figure 8.6.1, S and V), and 2 n (m + n) per right-hand side to apply it.
    """
    m, n = _long_and_short(self)
    columns = b.shape[-1] if len(b.shape) == len(self.shape) else 1
    if driver in {"gelss", "gelsd"}:
        factor = smaller((4 * m + 8 * n) * n**2, (2 * m + 11 * n) * n**2)
        return _estimate(factor + 2 * n * (m + n) * columns, self)
    work = geqrf(m, n) + ormqr(m, columns, n) + trtrs(n * columns, n)
    return (work * batch(self)).on(self)


@register("aten::linalg_pinv")
def pinv(self: TensorMeta, hermitian: bool, *, out: TensorMeta) -> OpCost:
    """V S^+ U^H of m x n, p = min(m, n): an estimate, its last product apart.

    PyTorch's own composition (BatchLinearAlgebra.cpp): ``_linalg_svd`` with p columns or, if
    hermitian, ``_linalg_eigh`` and the largest of n magnitudes; 2 for the tolerance; p
    comparisons and p reciprocals; V scaled, n p; and a matrix product, m n p MACs.
    """
    if self.numel == 0:
        return OpCost()
    rank = smaller(self.shape[-2], self.shape[-1])
    few = 2 + 2 * rank + self.shape[-1] * rank
    if hermitian:
        factors = eigh(self, compute_v=True)
        few += rank + reduced(rank, 1)
    else:
        factors = svd(self, full_matrices=False, compute_uv=True)
    rest = OpCost(flops=few) * batch(self)
    return factors + rest + contraction(out.numel * rank, out)


@register("aten::linalg_matrix_sqrth")
def matrix_sqrth(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Root of a positive-definite matrix of order n: an estimate, its product apart.

    PyTorch's own composition: ``_linalg_eigh``; n eigenvalues clamped, and their roots; V scaled
    by them, n^2; its product with V^H, n^3 MACs; and the mean of that and its transpose, 2 n^2.
    """
    n = self.shape[-1]
    factors = eigh(self, compute_v=True)
    rest = OpCost(flops=2 * n * batch(self)) + _scaled_and_made_symmetric(out)
    return factors + rest + contraction(out.numel * n, out)


@register("aten::linalg_polar")
def polar(A: TensorMeta, *, out: tuple[TensorMeta, ...]) -> OpCost:  # noqa: N803
    """A = U H of m x n: an estimate, its products apart.

    PyTorch's own composition: ``_linalg_svd`` with n columns; V^H scaled, n^2; H, n^3 MACs, and
    the mean of it and its transpose, 2 n^2; and U, m n^2 MACs.
    """
    unitary, symmetric = out
    factors = svd(A, full_matrices=False, compute_uv=True)
    products = contraction((unitary.numel + symmetric.numel) * A.shape[-1], A)
    return factors + _scaled_and_made_symmetric(symmetric) + products


def _scaled_and_made_symmetric(matrices: TensorMeta) -> OpCost:
    """Columns times real factors, a sum of two matrices, and half of that."""
    return OpCost(flops=3 * matrices.numel * (2 if matrices.is_complex else 1))


@register("aten::linalg_matrix_exp")
def matrix_exp(self: TensorMeta) -> OpCost:
    """Taylor polynomial of degree 18, order n: 10 n^3 + 53 n^2; an estimate.

    Bader, Blanes and Casas, Mathematics 2019, 7, 1174, as PyTorch implements it: 5 matrix
    products, 25 terms of linear combinations, 3 sums. PyTorch takes a lower degree where the
    norm is small and squares the result, 2 n^3 each time, where it is large. Of order 1: ``exp``.
    """
    n = self.shape[-1]
    if n == 1:
        return OpCost(flops=self.numel, transcendentals=self.numel)
    # The coefficients are real: their products with complex numbers are 2 multiplications.
    products, terms = (40, 106) if self.is_complex else (10, 53)
    return OpCost(flops=(products * n**3 + terms * n**2) * batch(self))
