"""Factorizations written out as loops over numbers that tally what is done with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass
class Tally:
    """Operations done so far."""

    multiplications: int = 0
    additions: int = 0
    roots: int = 0

    @property
    def flops(self) -> int:
        return self.multiplications + self.additions

    @property
    def complex_flops(self) -> int:
        return 6 * self.multiplications + 2 * self.additions


class Number:
    """A number that tallies what is done with it; a division or root is a multiplication."""

    def __init__(self, value: float, tally: Tally) -> None:
        self.value, self.tally = value, tally

    def _multiplied(self, value: float) -> Number:
        self.tally.multiplications += 1
        return Number(value, self.tally)

    def __mul__(self, other: Number) -> Number:
        return self._multiplied(self.value * other.value)

    def __truediv__(self, other: Number) -> Number:
        return self._multiplied(self.value / other.value)

    def root(self) -> Number:
        self.tally.roots += 1
        return self._multiplied(math.sqrt(self.value))

    def reciprocal(self) -> Number:
        return self._multiplied(1 / self.value)

    def __sub__(self, other: Number) -> Number:
        self.tally.additions += 1
        return Number(self.value - other.value, self.tally)


Matrix = list[list[Number]]


def numbers(values: torch.Tensor, tally: Tally) -> Matrix:
    return [[Number(float(v), tally) for v in row] for row in values]


def values(matrix: Matrix) -> torch.Tensor:
    return torch.tensor([[n.value for n in row] for row in matrix], dtype=torch.float64)


def cholesky(a: Matrix) -> None:
    """The lower triangle of ``a`` becomes its Cholesky factor, column by column."""
    for j in range(len(a)):
        for k in range(j):
            for i in range(j, len(a)):
                a[i][j] = a[i][j] - a[i][k] * a[j][k]
        a[j][j] = a[j][j].root()
        for i in range(j + 1, len(a)):
            a[i][j] = a[i][j] / a[j][j]


def eliminate(a: Matrix) -> None:
    """``a`` becomes U and, below its diagonal, L."""
    rows, columns = len(a), len(a[0])
    for k in range(min(rows, columns)):
        scale = a[k][k].reciprocal()
        for i in range(k + 1, rows):
            a[i][k] = a[i][k] * scale
            for j in range(k + 1, columns):
                a[i][j] = a[i][j] - a[i][k] * a[k][j]


def substitute(lower: Matrix, b: Matrix, *, unit: bool = False) -> None:
    """``b`` becomes the solution of a lower triangular system."""
    for column in range(len(b[0])):
        for i in range(len(lower)):
            for k in range(i):
                b[i][column] = b[i][column] - lower[i][k] * b[k][column]
            if not unit:
                b[i][column] = b[i][column] / lower[i][i]


def well_conditioned(rows: int, columns: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(rows, columns, generator=generator, dtype=torch.float64)
    return noise + 2 * columns * torch.eye(rows, columns, dtype=torch.float64)


def eliminated(rows: int, columns: int) -> Tally:
    eliminate(numbers(well_conditioned(rows, columns), tally := Tally()))
    return tally


def substituted(order: int, columns: int, *, unit: bool = False) -> Tally:
    tally = Tally()
    lower = numbers(well_conditioned(order, order), tally)
    substitute(lower, numbers(well_conditioned(order, columns), tally), unit=unit)
    return tally


def cholesky_tally(order: int) -> Tally:
    a = well_conditioned(order, order)
    cholesky(numbers(a @ a.T, tally := Tally()))
    return tally
