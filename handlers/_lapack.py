"""Costs of LAPACK's routines for one matrix: multiplications and additions, apart.

The counts are those of LAPACK Working Note 41 (Blackford and Dongarra, "Installation Guide for
LAPACK", appendix "Operation Counts for the BLAS and LAPACK",
https://www.netlib.org/lapack/lawn41/node116.html), written as the sums over the steps of the
unblocked algorithm that its polynomials come from: a sum up to ``smaller(m, n)`` holds for a
symbolic shape and for either orientation. As there, a division or a root is one
multiplication, and the comparisons of a pivot search are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

import sympy

from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import TensorMeta

from ._shapes import smaller


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Operations on numbers of some dtype.

    Attributes:
        multiplications: Multiplications, divisions and roots.
        additions: Additions and subtractions.
        roots: Those of the multiplications that are square roots.
    """

    multiplications: Dim = 0
    additions: Dim = 0
    roots: Dim = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            multiplications=self.multiplications + other.multiplications,
            additions=self.additions + other.additions,
            roots=self.roots + other.roots,
        )

    def __mul__(self, times: Dim) -> Work:
        return Work(
            multiplications=self.multiplications * times,
            additions=self.additions * times,
            roots=self.roots * times,
        )

    def on(self, tensor: TensorMeta) -> OpCost:
        """The cost on elements like those of ``tensor``.

        Complex multiplications are 6 FLOPs and complex additions 2, as LAWN 41 counts them:
        about four times the real count.
        """
        each = (6, 2) if tensor.is_complex else (1, 1)
        flops = each[0] * self.multiplications + each[1] * self.additions
        return OpCost(flops=flops, transcendentals=self.roots)


def exact(numerator: Dim, denominator: int) -> Dim:
    """A quotient that is an integer for every integer size."""
    return numerator // denominator if isinstance(numerator, int) else numerator / denominator


def floor(numerator: Dim, denominator: int) -> Dim:
    """A quotient rounded down: for estimates that are integers of some sizes only."""
    if isinstance(numerator, int):
        return numerator // denominator
    return sympy.floor(numerator / denominator)


def sum_of(x: Dim, steps: Dim) -> Dim:
    """x + (x - 1) + ..., ``steps`` terms."""
    return steps * x - exact(steps * (steps - 1), 2)


def sum_of_products(x: Dim, y: Dim, steps: Dim) -> Dim:
    """x y + (x - 1) (y - 1) + ..., ``steps`` terms."""
    pairs = exact(steps * (steps - 1), 2)
    squares = exact(steps * (steps - 1) * (2 * steps - 1), 6)
    return steps * x * y - (x + y) * pairs + squares


def getrf(m: Dim, n: Dim) -> Work:
    """LU with row pivoting of m x n.

    Step k of min(m, n): one reciprocal, m - k - 1 scalings, and a rank-1 update of
    (m - k - 1) x (n - k - 1). Square: 2/3 n^3 - n^2 / 2 + 5/6 n.
    """
    steps = smaller(m, n)
    update = sum_of_products(m - 1, n - 1, steps)
    return Work(multiplications=steps + sum_of(m - 1, steps) + update, additions=update)


def getrs(elements: Dim, n: Dim) -> Work:
    """Solve from an LU (or an LDL^T) of order n: n^2 and n (n - 1) per right-hand side.

    Every one of the solution's ``elements`` takes part in two triangular solves, of which
    one has a unit diagonal (or, in LDL^T, both have and the diagonal is divided by).
    """
    return Work(multiplications=elements * n, additions=elements * (n - 1))


def potrf(n: Dim) -> Work:
    """Cholesky of order n, n of the multiplications being roots: n^3/3 + n^2/2 + n/6 in all."""
    return Work(
        multiplications=exact(n * (n + 1) * (n + 2), 6),
        additions=exact(n * (n * n - 1), 6),
        roots=n,
    )


def potri(n: Dim) -> Work:
    """Inverse from a Cholesky factor of order n: 2/3 n^3 + n^2/2 + 5/6 n in all.

    The factor is inverted (trtri), the inverse multiplied by its own transpose (lauum).
    """
    return Work(
        multiplications=exact(n * (n + 1) * (n + 2), 3),
        additions=exact(n * (n - 1) * (2 * n - 1), 6),
    )


def sytrf(n: Dim) -> Work:
    """LDL^T of order n by Bunch and Kaufman: n^3/6 + n^2/2 + 10/3 n and n^3/6 - n/6."""
    return Work(
        multiplications=exact(n * (n * n + 3 * n + 20), 6),
        additions=exact(n * (n * n - 1), 6),
    )


def trtrs(elements: Dim, n: Dim, *, unit: bool = False) -> Work:
    """Triangular solve of order n: n (n + 1) / 2 and n (n - 1) / 2 per right-hand side.

    ``elements`` is the solution's; a unit diagonal saves its division.
    """
    divisions = 0 if unit else elements
    half = exact(elements * (n - 1), 2)
    return Work(multiplications=half + divisions, additions=half)


def geqrf(m: Dim, n: Dim) -> Work:
    """Householder QR of m x n: for m > n, 2 m n^2 - 2/3 n^3 + m n + n^2 + 14/3 n in all.

    Step k of min(m, n), with a = m - k and b = n - k - 1: a reflector from a numbers, 2 a + 4
    and a + 1 (one a root), applied to a x b numbers, 2 a b + b and 2 a b.
    """
    steps = smaller(m, n)
    update = 2 * sum_of_products(m, n - 1, steps)
    columns = sum_of(m, steps)
    return Work(
        multiplications=update + sum_of(n - 1, steps) + 2 * columns + 4 * steps,
        additions=update + columns + steps,
        roots=steps,
    )


def orgqr(m: Dim, n: Dim, k: Dim) -> Work:
    """The first n columns of the product of k reflectors of m numbers.

    Each is applied to those after it, with a = m - i and b = n - i - 1 2 a b + b and 2 a b,
    and becomes a column itself, a - 1 and 1.
    """
    update = 2 * sum_of_products(m, n - 1, k)
    return Work(multiplications=update + sum_of(n - 1, k) + sum_of(m - 1, k), additions=update + k)


def ormqr(order: Dim, vectors: Dim, k: Dim, *, left: bool = True) -> Work:
    """k reflectors of ``order`` numbers applied to ``vectors`` columns (left) or rows (right).

    With a = order - i: 2 a ``vectors`` of each, and a product with tau for every column, or
    from the right for every number of the reflector.
    """
    update = 2 * vectors * sum_of(order, k)
    scaled = vectors * k if left else sum_of(order, k)
    return Work(multiplications=update + scaled, additions=update)
