"""What ``numpy.einsum_path`` says an einsum costs: fvcore and calflops read it off its printout."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from math import prod

from graphflops.core.cost import Dim

Sizes = dict[str, Dim]


def optimized_flops(equation: str, shapes: Sequence[Sequence[Dim]]) -> Dim:
    """FLOPs of the cheapest order of contractions, as numpy counts and searches them.

    A contraction of k operands costs k - 1 multiplications for each combination of their
    labels, and one addition more if a label is summed. Two operands are contracted at once;
    of more, every order of pairs is tried whose intermediates are no larger than the largest
    operand or the result. With symbolic sizes the order is the one written.

    Example:
        >>> optimized_flops("ij,jk->ik", [(2, 3), (3, 5)])
        60
    """
    terms, output, sizes = _labels(equation, shapes)
    everything = set().union(*terms)
    if len(terms) < 3 or everything == output:  # noqa: PLR2004 - a pair has one order
        return _contraction(everything, everything - output, len(terms), sizes)
    if not all(isinstance(size, int) for size in sizes.values()):
        return _in_order(terms, output, sizes)
    limit = max(_volume(term, sizes) for term in (*terms, output))
    found: list[tuple[Dim, list[set[str]]]] = [(0, terms)]
    for _ in range(len(terms) - 1):
        deeper = [
            (cost + step, remaining)
            for cost, left in found
            for pair in combinations(range(len(left)), 2)
            for step, remaining in [_contract(pair, left, output, sizes)]
            if int(_volume(remaining[-1], sizes)) <= int(limit)
        ]
        if not deeper:  # numpy contracts what is left at once
            cost, left = min(found, key=_cost)
            return cost + _contract(tuple(range(len(left))), left, output, sizes)[0]
        found = deeper
    return min(found, key=_cost)[0]


def printed(flops: Dim) -> Dim:
    """A number as numpy prints it, four digits of it; an expression as it is."""
    return int(float(f"{flops:.3e}")) if isinstance(flops, int) else flops


def _cost(found: tuple[Dim, list[set[str]]]) -> int:
    return int(found[0])


def _in_order(terms: list[set[str]], output: set[str], sizes: Sizes) -> Dim:
    total: Dim = 0
    while len(terms) > 1:
        step, terms = _contract((0, 1), terms, output, sizes)
        terms.insert(0, terms.pop())
        total += step
    return total


def _contract(
    picked: tuple[int, ...], terms: list[set[str]], output: set[str], sizes: Sizes
) -> tuple[Dim, list[set[str]]]:
    """Cost of contracting the picked terms, and what remains, the result last."""
    joined = set().union(*(terms[i] for i in picked))
    others = [term for i, term in enumerate(terms) if i not in picked]
    result = joined & output.union(*others)
    return _contraction(joined, joined - result, len(picked), sizes), [*others, result]


def _contraction(joined: set[str], summed: set[str], operands: int, sizes: Sizes) -> Dim:
    return _volume(joined, sizes) * (max(1, operands - 1) + bool(summed))


def _volume(labels: set[str], sizes: Sizes) -> Dim:
    return prod(sizes[label] for label in sorted(labels))


def _labels(
    equation: str, shapes: Sequence[Sequence[Dim]]
) -> tuple[list[set[str]], set[str], Sizes]:
    """Labels of operands and output, and their sizes; an ellipsis has labels of its own."""
    left, arrow, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    ranks = [
        len(s) - len(t.replace("...", "")) for s, t in zip(shapes, terms, strict=True) if "..." in t
    ]
    private = "".join(chr(0x2460 + i) for i in range(max(ranks, default=0)))
    sizes: Sizes = {}
    spelt = []
    for term, shape in zip(terms, shapes, strict=True):
        extra = len(shape) - len(term.replace("...", ""))
        labels = term.replace("...", private[len(private) - extra :] if extra else "")
        for label, size in zip(labels, shape, strict=True):
            if sizes.get(label, 1) == 1:  # an axis of one is broadcast
                sizes[label] = size
        spelt.append(labels)
    if not arrow:
        joined = "".join(spelt)
        output = "..." + "".join(c for c in set(joined) - set(private) if joined.count(c) == 1)
    return [set(term) for term in spelt], set(output.replace("...", private)), sizes
