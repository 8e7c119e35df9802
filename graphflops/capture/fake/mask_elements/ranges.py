"""Conditions on indices that hold, or fail, for all elements of a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom

from graphflops.capture.fake.mask_elements.expressions import axes_of, index
from graphflops.core.cost import Dim


def decide_conditions(element: Any, shape: Sequence[Dim]) -> Any:
    """Return the element of a tensor without the conditions that its shape decides.

    Args:
        element: Element, as an expression of its indices.
        shape: Shape of the tensor.
    """
    truths = {condition: _truth(condition, shape) for condition in element.atoms(Relational)}
    return element.xreplace({c: truth for c, truth in truths.items() if truth is not None})


def _truth(condition: Any, shape: Sequence[Dim]) -> BooleanAtom | None:
    """Return the truth value of a condition at all indices, or None if there is no single one."""
    lowest = highest = difference = sympy.expand(condition.lhs - condition.rhs)
    for axis in axes_of(difference):
        slope, last = difference.coeff(index(axis)), shape[-1 - axis] - 1
        if not slope.is_number or difference.diff(index(axis)) != slope:
            return None
        first, end = (0, last) if slope.is_positive else (last, 0)
        lowest = lowest.xreplace({index(axis): sympy.sympify(first)})
        highest = highest.xreplace({index(axis): sympy.sympify(end)})
    # A linear condition that is true, or false, at both ends is so between them.
    is_convex = lowest == highest or not isinstance(condition, sympy.Eq | sympy.Ne)
    truths = {condition.func(sympy.expand(bound), 0) for bound in (lowest, highest)}
    # An index is not negative, whatever is known of the size.
    truths = {condition.func(difference, 0)} if len(truths) > 1 else truths
    (truth,) = truths
    return truth if is_convex and isinstance(truth, BooleanAtom) else None
