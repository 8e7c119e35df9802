"""Linear algebra, against algorithms whose every operation is counted and LAPACK's polynomials."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import oracle
import pytest
import sympy
import torch
from calls import count, meta
from hypothesis import given, settings
from hypothesis import strategies as st
from tallied import (
    Tally,
    cholesky,
    cholesky_tally,
    eliminate,
    eliminated,
    numbers,
    substitute,
    substituted,
    values,
    well_conditioned,
)

from graphflops import conventions
from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.pricing.price import price

COMPLEX = torch.complex64


def test_the_algorithms_that_count_their_operations_are_right() -> None:
    a, b, tally = well_conditioned(5, 5), well_conditioned(5, 3), Tally()
    spd, lu, solution = numbers(a @ a.T, tally), numbers(a, tally), numbers(b, tally)
    cholesky(spd)
    assert torch.allclose(values(spd).tril(), torch.linalg.cholesky(a @ a.T))
    eliminate(lu)
    lower, upper = values(lu).tril(-1) + torch.eye(5, dtype=torch.float64), values(lu).triu()
    assert torch.allclose(lower @ upper, a)
    substitute(numbers(a.tril(), tally), solution)
    assert torch.allclose(a.tril() @ values(solution), b)


@pytest.mark.parametrize("order", [1, 2, 5, 8])
def test_cholesky_is_what_its_loops_do(order: int) -> None:
    tally = cholesky_tally(order)
    real = count(torch.linalg.cholesky, meta(3, order, order))
    assert (real.flops, real.transcendentals) == (3 * tally.flops, 3 * order)
    assert tally.roots == order
    assert real.macs == 0
    complex_ = count(torch.linalg.cholesky, meta(order, order, dtype=COMPLEX))
    assert complex_.flops == tally.complex_flops


@pytest.mark.skipif(
    not hasattr(torch.ops.aten, "qr"), reason="a later torch has these in linalg alone"
)
def test_factorizations_under_their_old_names() -> None:
    for old, new in ((torch.cholesky, torch.linalg.cholesky), (torch.qr, torch.linalg.qr)):
        assert count(old, meta(2, 5, 5)).flops == count(new, meta(2, 5, 5)).flops > 0


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 5), (7, 4), (4, 7), (1, 6), (6, 1)])
def test_lu_is_what_its_loops_do(rows: int, columns: int) -> None:
    tally = eliminated(rows, columns)
    for function in (torch.linalg.lu, torch.linalg.lu_factor, torch.lu):
        assert count(function, meta(2, rows, columns)).flops == 2 * tally.flops
    complex_ = count(torch.linalg.lu_factor_ex, meta(rows, columns, dtype=COMPLEX))
    assert complex_.flops == tally.complex_flops


@pytest.mark.parametrize(("order", "columns"), [(1, 1), (5, 3), (4, 7)])
def test_triangular_solves_are_what_their_loops_do(order: int, columns: int) -> None:
    def solve(a: Any, b: Any, **options: Any) -> Any:
        return torch.linalg.solve_triangular(a, b, upper=False, **options)

    a, b = meta(order, order), meta(2, order, columns)
    plain, unit = substituted(order, columns), substituted(order, columns, unit=True)
    assert count(solve, a, b).flops == 2 * plain.flops
    assert count(lambda a, b: solve(a, b, unitriangular=True), a, b).flops == 2 * unit.flops
    assert count(lambda a, b: solve(a, b.mT, left=False), a, b).flops == 2 * plain.flops
    assert count(torch.triangular_solve, b[0], a).flops == plain.flops
    assert count(torch.cholesky_solve, b, a.expand(2, -1, -1)).flops == 2 * 2 * plain.flops
    complex_ = count(solve, a.to(COMPLEX), b.to(COMPLEX))
    assert complex_.flops == 2 * plain.complex_flops


def test_solving_is_elimination_and_two_substitutions() -> None:
    a, b = meta(2, 5, 5), meta(2, 5, 3)
    factor = eliminated(5, 5).flops
    apply = substituted(5, 3, unit=True).flops + substituted(5, 3).flops
    assert count(torch.linalg.solve, a, b).flops == 2 * (factor + apply)
    # One matrix, two sets of right-hand sides: one factorization.
    assert count(torch.linalg.solve, a[0], b).flops == factor + 2 * apply
    vector = substituted(5, 1, unit=True).flops + substituted(5, 1).flops
    assert count(torch.linalg.solve, a[0], b[0, :, 0]).flops == factor + vector
    inverse = substituted(5, 5, unit=True).flops + substituted(5, 5).flops
    assert count(torch.inverse, a).flops == 2 * (factor + inverse)
    factors = (meta(5, 5), meta(5, dtype=torch.int32))
    assert count(torch.linalg.lu_solve, *factors, b[0]).flops == apply
    assert count(torch.lu_solve, b[0], *factors).flops == apply
    # L, D and L^T: two unit triangles, and 5 x 3 divisions.
    ldl = 2 * substituted(5, 3, unit=True).flops + 15
    assert count(torch.linalg.ldl_solve, *factors, b[0]).flops == ldl


def test_determinants_are_elimination_and_a_diagonal() -> None:
    factor = eliminated(5, 5)
    assert count(torch.det, meta(2, 5, 5)).flops == 2 * (factor.flops + 5)
    complex_ = count(torch.det, meta(5, 5, dtype=COMPLEX))
    assert complex_.flops == factor.complex_flops + 5 * 6
    # Signs and their product, magnitudes, logarithms and their sum of five numbers.
    slogdet = count(torch.linalg.slogdet, meta(2, 5, 5))
    assert slogdet.flops == 2 * (factor.flops + 5 + 5 + 5 + 5 + 4)
    assert slogdet.transcendentals == 2 * 5


def of(op: str, inputs: dict[str, TensorMeta], *outputs: TensorMeta, **attrs: Any) -> OpCost:
    """The price of a call made by hand."""
    call = OpCall(op=f"aten::{op}", inputs=inputs, outputs=outputs, attrs=attrs)
    cost = price(call, conventions.exact()).cost
    assert cost is not None
    return cost


def tensor(*shape: Dim, dtype: str = "float32") -> TensorMeta:
    return TensorMeta(shape, dtype)


def polynomial(*terms: Fraction | float) -> int:
    total = sum((Fraction(term) for term in terms), start=Fraction(0))
    assert total.denominator == 1
    return int(total)


@pytest.mark.parametrize("n", [1, 2, 5, 9])
def test_lawn_41_on_square_matrices(n: int) -> None:
    sixth, third = Fraction(1, 6), Fraction(1, 3)
    mults = polynomial(2 * third * n, third * n**3, n**2)
    adds = polynomial(sixth * n, third * n**3, -n * n * Fraction(1, 2))
    assert count(torch.cholesky_inverse, meta(n, n)).flops == mults + adds
    complex_ = count(torch.cholesky_inverse, meta(n, n, dtype=COMPLEX))
    assert complex_.flops == 6 * mults + 2 * adds
    mults = polynomial(10 * third * n, n * n * Fraction(1, 2), sixth * n**3)
    adds = polynomial(-sixth * n, sixth * n**3)
    assert count(torch.linalg.ldl_factor, meta(n, n)).flops == mults + adds


def lawn_geqrf(m: int, n: int) -> tuple[int, int]:
    half, third, sixth = Fraction(1, 2), Fraction(1, 3), Fraction(1, 6)
    if m > n:
        mults = n * (n * (half - third * n + m) + m + 23 * sixth)
        adds = n * (n * (half - third * n + m) + 5 * sixth)
    else:
        mults = m * (m * (-half - third * m + n) + 2 * n + 23 * sixth)
        adds = m * (m * (-half - third * m + n) + n + 5 * sixth)
    return polynomial(mults), polynomial(adds)


def lawn_orgqr(m: int, n: int, k: int) -> tuple[int, int]:
    third = Fraction(1, 3)
    mults = k * (2 * m * n + 2 * n - 5 * third + k * (2 * third * k - (m + n) - 1))
    adds = k * (2 * m * n + n - m + third + k * (2 * third * k - (m + n)))
    return polynomial(mults), polynomial(adds)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (4, 4), (7, 3), (3, 7), (8, 1), (1, 8)])
def test_lawn_41_on_qr(m: int, n: int) -> None:
    p = min(m, n)
    (mults, adds), thin = lawn_geqrf(m, n), lawn_orgqr(m, p, p)
    factor = of("geqrf", {"self": tensor(2, m, n)}, tensor(2, m, n), tensor(2, p))
    assert (factor.flops, factor.transcendentals) == (2 * (mults + adds), 2 * p)
    assert count(lambda a: torch.linalg.qr(a, "r"), meta(m, n)).flops == mults + adds
    reduced = mults + adds + sum(thin)
    assert count(torch.linalg.qr, meta(2, m, n)).flops == 2 * reduced
    full = lawn_orgqr(m, m, p)
    complete = count(lambda a: torch.linalg.qr(a, "complete"), meta(m, n, dtype=COMPLEX))
    assert complete.flops == 6 * (mults + full[0]) + 2 * (adds + full[1])
    product = count(torch.linalg.householder_product, meta(m, p), meta(p))
    assert product.flops == sum(thin)


def reflected(order: int, vectors: int, k: int, scaled: str) -> Tally:
    """k ever shorter reflectors applied to columns, scaling by tau each column or the reflector."""
    tally = Tally()
    for step in range(k):
        length = order - step
        for _ in range(vectors):
            tally.multiplications += length + length  # v^T c, and v times that
            tally.additions += length + length  # summed up from zero, and subtracted from c
        tally.multiplications += vectors if scaled == "column" else length
    return tally


@pytest.mark.parametrize(("left", "scaled", "order"), [(True, "column", 6), (False, "row", 4)])
def test_reflectors_are_applied_one_by_one(left: bool, scaled: str, order: int) -> None:
    other = meta(6, 4)
    tally = reflected(order, 10 - order, 3, scaled)
    args = (meta(order, 3), meta(3), other)
    assert count(lambda a, t, c: torch.ormqr(a, t, c, left), *args).flops == tally.flops


def test_singular_values_are_golub_and_van_loans_table() -> None:
    def svd(m: int, n: int, **options: Any) -> Any:
        return count(lambda a: torch.linalg.svd(a, **options), meta(m, n)).flops

    # 5 x 4: Golub and Reinsch are cheaper; 20 x 3: R-SVD is.
    assert svd(5, 4, full_matrices=False) == min(14 * 5 * 16 + 8 * 64, 6 * 5 * 16 + 20 * 64)
    assert svd(5, 4, full_matrices=False) == 1632
    assert svd(20, 3, full_matrices=False) == 6 * 20 * 9 + 20 * 27
    assert svd(3, 20, full_matrices=False) == svd(20, 3, full_matrices=False)
    assert svd(20, 3) == 4 * 20 * 20 * 3 + 22 * 27  # the figure's own row for R-SVD
    assert svd(4, 4) == svd(4, 4, full_matrices=False) == 22 * 64
    values_only = count(torch.linalg.svdvals, meta(2, 4, 4))
    assert values_only.flops == 2 * 170  # 4 * 64 - 4/3 * 64 = 170.7
    assert count(torch.linalg.svdvals, meta(20, 3)).flops == 2 * 20 * 9 + 2 * 27
    assert count(torch.linalg.svdvals, meta(20, 3, dtype=COMPLEX)).flops == 4 * (360 + 54)


def test_norms_ranks_and_conditions_rest_on_singular_values() -> None:
    a = meta(6, 6)
    values_only = count(torch.linalg.svdvals, a).flops
    assert values_only == 4 * 216 - 4 * 72
    assert count(lambda a: torch.linalg.matrix_norm(a, 2), a).flops == values_only + 5
    assert count(lambda a: torch.linalg.matrix_norm(a, "nuc"), a).flops == values_only + 5
    assert count(lambda a: torch.norm(a, p="nuc"), a).flops == values_only + 5
    assert count(torch.nuclear_norm, a).flops == values_only + 5
    assert count(lambda a: torch.linalg.norm(a, 2), a).flops == values_only + 5
    across = count(lambda a: torch.linalg.norm(a, -2, dim=(2, 0)), meta(6, 3, 6))
    assert across.flops == 3 * (values_only + 5)
    assert count(torch.linalg.cond, a).flops == values_only + 1
    inverse = count(torch.linalg.inv, a).flops
    # Twice: 36 magnitudes, 6 sums of 6, the largest of 6; and one product.
    one = count(lambda a: torch.linalg.cond(a, 1), a).flops
    assert one == inverse + 2 * (36 + 6 * 5 + 5) + 1
    # Product and maximum make the tolerance of six comparisons.
    assert count(torch.linalg.matrix_rank, a).flops == values_only + 2 + 6
    by_eigenvalues = count(lambda a: torch.linalg.matrix_rank(a, hermitian=True), a).flops
    assert by_eigenvalues == 4 * 72 + 6 + 5 + 2 + 6


@pytest.mark.parametrize("ord_", ["fro", 1, -1, float("inf"), float("-inf"), None])
def test_other_norms_equal_the_prims(ord_: Any) -> None:
    def norm(a: torch.Tensor) -> Any:
        return torch.linalg.norm(a, ord_, dim=(0, 2))

    expected = oracle.count(norm, meta(4, 3, 5))
    ours = count(norm, meta(4, 3, 5))
    assert (ours.flops, ours.transcendentals) == (expected.flops, expected.transcendentals)


def test_eigenvalues_are_golub_and_van_loans() -> None:
    n = 6
    assert count(torch.linalg.eigh, meta(2, n, n)).flops == 2 * 9 * n**3
    assert count(torch.linalg.eigvalsh, meta(n, n)).flops == 4 * 72
    assert count(torch.linalg.eigvals, meta(n, n)).flops == 10 * n**3
    # Schur form, back substitution, back transformation: 26.33 n^3.
    assert count(torch.linalg.eig, meta(n, n)).flops == 25 * 216 + 72 + 216
    assert count(torch.linalg.eig, meta(n, n, dtype=COMPLEX)).flops == 4 * (25 * 216 + 72 + 216)


def test_pseudoinverse_is_a_decomposition_scaled_and_multiplied() -> None:
    # Tolerance 2, threshold and reciprocal 4 + 4, V scaled 4 x 4, then (4 x 4) (4 x 5).
    report = count(torch.linalg.pinv, meta(5, 4))
    assert report.macs == 4 * 4 * 5
    assert report.flops == 1632 + 2 + 8 + 16 + 2 * 80
    # 9 n^3, four magnitudes and the largest of them.
    hermitian = count(lambda a: torch.linalg.pinv(a, hermitian=True), meta(4, 4))
    assert hermitian.flops == 9 * 64 + 4 + 3 + 2 + 8 + 16 + 2 * 64


def test_least_squares_by_qr_and_by_svd() -> None:
    def lstsq(m: int, n: int, columns: int, driver: str | None = None) -> OpCost:
        b = tensor(2, m, columns) if columns else tensor(2, m)
        x = tensor(2, n, columns) if columns else tensor(2, n)
        return of("linalg_lstsq", {"self": tensor(2, m, n), "b": b}, x, driver=driver)

    factor, apply = sum(lawn_geqrf(7, 3)), reflected(7, 2, 3, "column").flops
    assert lstsq(7, 3, 2).flops == 2 * (factor + apply + substituted(3, 2).flops)
    assert lstsq(3, 7, 2).flops == lstsq(7, 3, 2, "gels").flops
    one = reflected(7, 1, 3, "column").flops + substituted(3, 1).flops
    assert lstsq(7, 3, 0).flops == lstsq(7, 3, 1).flops == 2 * (factor + one)
    # 2 m n^2 + 11 n^3 beats 4 m n^2 + 8 n^3; U^T b, then V times it.
    by_svd = 2 * 7 * 9 + 11 * 27 + 2 * (2 * 7 * 3 + 2 * 3 * 3)
    assert lstsq(7, 3, 2, "gelsd").flops == 2 * by_svd


def test_matrix_exponential_is_five_products_and_their_combination() -> None:
    product = count(torch.matmul, meta(4, 4), meta(4, 4)).flops
    terms = 25 * 2 * 16 + 3 * 16
    report = count(torch.matrix_exp, meta(2, 4, 4))
    assert (report.flops, report.macs) == (2 * (5 * product + terms), 0)
    complex_ = count(torch.matrix_exp, meta(4, 4, dtype=COMPLEX))
    assert complex_.flops == 5 * 4 * product + 2 * terms
    assert count(torch.matrix_exp, meta(7, 1, 1)).flops == 7


@pytest.mark.parametrize(
    ("dtype", "flops"),
    [
        # SVD: 14 m n^2 + 8 n^3; scaling and the mean with the transpose: 3 n^2; 2 per MAC.
        ("float32", 2 * (14 * 7 * 25 + 8 * 125 + 3 * 25 + 2 * (125 + 7 * 25))),
        # The SVD of complex matrices takes 4 times as much, sums 2, and a MAC is 8.
        ("complex64", 2 * (4 * (14 * 7 * 25 + 8 * 125) + 2 * 3 * 25 + 8 * (125 + 7 * 25))),
    ],
)
def test_a_polar_decomposition_is_what_it_is_composed_of(dtype: str, flops: int) -> None:
    factors = tensor(2, 7, 5, dtype=dtype), tensor(2, 5, 5, dtype=dtype)
    found = of("linalg_polar", {"A": tensor(2, 7, 5, dtype=dtype)}, *factors)
    assert (found.flops, found.macs) == (flops, 2 * (125 + 7 * 25))


@pytest.mark.parametrize(
    ("dtype", "flops"),
    [
        # Eigenvectors: 9 n^3; clamp and root of n; scaling and the mean: 3 n^2; 2 per MAC.
        ("float32", 2 * (9 * 125 + 2 * 5 + 3 * 25 + 2 * 125)),
        ("complex64", 2 * (4 * 9 * 125 + 2 * 5 + 2 * 3 * 25 + 8 * 125)),
    ],
)
def test_a_root_of_a_matrix_is_what_it_is_composed_of(dtype: str, flops: int) -> None:
    matrices = tensor(2, 5, 5, dtype=dtype)
    found = of("linalg_matrix_sqrth", {"self": matrices}, matrices)
    assert (found.flops, found.macs) == (flops, 2 * 125)


@pytest.mark.parametrize(
    "function",
    [
        *(torch.linalg.cholesky, torch.linalg.lu, torch.inverse, torch.det, torch.linalg.qr),
        *(torch.linalg.svd, torch.linalg.svdvals, torch.linalg.eigh, torch.linalg.eig),
        *(torch.linalg.pinv, torch.linalg.matrix_rank, torch.linalg.cond, torch.matrix_exp),
        *(torch.linalg.slogdet, torch.linalg.ldl_factor, torch.cholesky_inverse),
    ],
)
@pytest.mark.parametrize("shape", [(0, 0), (0, 3, 3)])
def test_empty_matrices_cost_nothing(function: Any, shape: tuple[int, ...]) -> None:
    assert count(function, meta(*shape)).flops == 0


SYMBOLS = sympy.symbols("B M N", positive=True, integer=True)
SQUARE: dict[str, Callable[[Dim, Dim, Dim], OpCost]] = {
    "cholesky": lambda b, m, _: of("linalg_cholesky_ex", {"self": tensor(b, m, m)}),
    "cholesky_inverse": lambda b, m, _: of("cholesky_inverse", {"self": tensor(b, m, m)}),
    "ldl": lambda b, m, _: of("linalg_ldl_factor_ex", {"self": tensor(b, m, m)}),
    "slogdet": lambda b, m, _: of("_linalg_slogdet", {"A": tensor(b, m, m)}),
    "eig": lambda b, m, _: of("linalg_eig", {"self": tensor(b, m, m)}),
    "eigvalsh": lambda b, m, _: of("_linalg_eigh", {"A": tensor(b, m, m)}, compute_v=False),
    "inverse": lambda b, m, _: of("linalg_inv_ex", {"A": tensor(b, m, m, dtype="complex64")}),
}
OBLONG: dict[str, Callable[[Dim, Dim, Dim], OpCost]] = {
    "lu": lambda b, m, n: of("linalg_lu", {"A": tensor(b, m, n)}),
    "solve": lambda b, m, n: of(
        "_linalg_solve_ex", {"A": tensor(b, m, m)}, tensor(b, m, n), tensor(b, m, m)
    ),
    "solve_triangular": lambda b, m, n: of(
        "linalg_solve_triangular", {"self": tensor(m, m)}, tensor(b, m, n), unitriangular=False
    ),
    "qr": lambda b, m, n: of(
        "linalg_qr", {"A": tensor(b, m, n)}, tensor(b, m, m), tensor(b, m, n), mode="complete"
    ),
    "svd": lambda b, m, n: of(
        "_linalg_svd", {"A": tensor(b, m, n)}, full_matrices=True, compute_uv=True
    ),
    "svdvals": lambda b, m, n: of(
        "_linalg_svd", {"A": tensor(b, m, n)}, full_matrices=True, compute_uv=False
    ),
    "lstsq": lambda b, m, n: of(
        "linalg_lstsq", {"self": tensor(b, m, n), "b": tensor(b, m, 2)}, driver="gels"
    ),
}
SHAPED = {**SQUARE, **OBLONG}


@functools.cache
def symbolic(name: str) -> OpCost:
    return SHAPED[name](*SYMBOLS)


@pytest.mark.parametrize("name", SHAPED)
@settings(deadline=None)  # the first example builds the expression
@given(sizes=st.tuples(*[st.integers(1, 12)] * 3))
def test_symbolic_costs_are_the_concrete_ones(name: str, sizes: tuple[int, int, int]) -> None:
    bound = symbolic(name).subs(**dict(zip("BMN", sizes, strict=True)))
    assert bound == SHAPED[name](*sizes)
