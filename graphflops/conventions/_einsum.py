"""Cost of an einsum by ``numpy.einsum_path``, whose printout fvcore and calflops parse."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod
from typing import TypeAlias

from graphflops.core.cost import Dim

Sizes = dict[str, Dim]


def optimized_flops(equation: str, shapes: Sequence[Sequence[Dim]]) -> Dim:
    """Return the FLOPs of the cheapest order of contractions, as numpy counts and searches it.

    A contraction of k operands costs k - 1 multiplications for each combination of their
    labels, and one addition more if a label is summed. Two operands are contracted in one step;
    for more operands, every order of pairs is tried whose intermediates are no larger than the
    largest operand or the result. With symbolic sizes, operands are contracted from left to
    right.

    Example:
        >>> optimized_flops("ij,jk->ik", [(2, 3), (3, 5)])
        60
    """
    terms, output, sizes = _labels(equation, shapes)
    labels = set().union(*terms)
    if len(terms) < 3 or labels == output:  # noqa: PLR2004 - a pair has one order
        return _contraction_cost(labels, labels - output, len(terms), sizes)
    if not all(isinstance(size, int) for size in sizes.values()):
        return _left_to_right(terms, output, sizes)
    limit = max(_volume(term, sizes) for term in (*terms, output))
    paths: list[_Path] = [(0, terms)]
    for _ in range(len(terms) - 1):
        extended = [
            (cost + step, remaining)
            for cost, operands in paths
            for pair in combinations(range(len(operands)), 2)
            for step, remaining in [_contract(pair, operands, output, sizes)]
            if int(_volume(remaining[-1], sizes)) <= int(limit)
        ]
        if not extended:  # numpy contracts the remaining operands in one step
            cost, operands = min(paths, key=_path_cost)
            return cost + _contract(tuple(range(len(operands))), operands, output, sizes)[0]
        paths = extended
    return min(paths, key=_path_cost)[0]


def round_as_printed(flops: Dim) -> Dim:
    """Return a number rounded to four digits, as numpy prints it; an expression unchanged."""
    return int(float(f"{flops:.3e}")) if isinstance(flops, int) else flops


_Path: TypeAlias = tuple[Dim, list[set[str]]]
"""Cost of the contractions so far, and labels of the remaining operands."""


def _path_cost(path: _Path) -> int:
    return int(path[0])


def _left_to_right(terms: list[set[str]], output: set[str], sizes: Sizes) -> Dim:
    total: Dim = 0
    while len(terms) > 1:
        step, terms = _contract((0, 1), terms, output, sizes)
        terms.insert(0, terms.pop())
        total += step
    return total


def _contract(
    positions: tuple[int, ...], terms: list[set[str]], output: set[str], sizes: Sizes
) -> tuple[Dim, list[set[str]]]:
    """Return the cost of contracting some terms, and the remaining terms, the result last."""
    labels = set().union(*(terms[i] for i in positions))
    others = [term for i, term in enumerate(terms) if i not in positions]
    result = labels & output.union(*others)
    return _contraction_cost(labels, labels - result, len(positions), sizes), [*others, result]


def _contraction_cost(labels: set[str], summed: set[str], operands: int, sizes: Sizes) -> Dim:
    return _volume(labels, sizes) * (max(1, operands - 1) + bool(summed))


def _volume(labels: set[str], sizes: Sizes) -> Dim:
    return prod(sizes[label] for label in sorted(labels))


def _labels(
    equation: str, shapes: Sequence[Sequence[Dim]]
) -> tuple[list[set[str]], set[str], Sizes]:
    """Return labels of operands and output, and their sizes; ellipses get private labels."""
    operands, arrow, output = equation.replace(" ", "").partition("->")
    terms = operands.split(",")
    ranks = [
        len(s) - len(t.replace("...", "")) for s, t in zip(shapes, terms, strict=True) if "..." in t
    ]
    private = "".join(chr(0x2460 + i) for i in range(max(ranks, default=0)))
    sizes: Sizes = {}
    expanded = []
    for term, shape in zip(terms, shapes, strict=True):
        extra = len(shape) - len(term.replace("...", ""))
        labels = term.replace("...", private[len(private) - extra :] if extra else "")
        for label, size in zip(labels, shape, strict=True):
            if sizes.get(label, 1) == 1:  # an axis of one is broadcast
                sizes[label] = size
        expanded.append(labels)
    if not arrow:
        joined = "".join(expanded)
        output = "..." + "".join(c for c in set(joined) - set(private) if joined.count(c) == 1)
    return [set(term) for term in expanded], set(output.replace("...", private)), sizes
