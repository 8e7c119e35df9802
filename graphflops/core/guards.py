"""Conditions on symbolic sizes: guards under which a graph is valid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import sympy

from graphflops.errors import ModelSpecError


def check_assumptions(
    assumptions: Iterable[sympy.Basic], sizes: Mapping[str, int], model: str
) -> None:
    """Check that a graph is valid for some sizes.

    Args:
        assumptions: Conditions under which it is.
        sizes: Sizes by symbol.
        model: Name of the model, for the error.

    Raises:
        ModelSpecError: A condition is false.
    """
    for assumption in assumptions:
        if holds(assumption, sizes) is False:
            listed = ", ".join(f"{name} = {size}" for name, size in sizes.items())
            msg = (
                f"this graph of {model} holds where {assumption}, so not for {listed}. "
                "Count again with inputs of about that size."
            )
            raise ModelSpecError(msg)


def holds(condition: sympy.Basic, sizes: Mapping[str, int]) -> bool | None:
    """Return whether a condition is true for some sizes; ``None`` if it has other symbols too."""
    values = {s: sympy.Integer(sizes[s.name]) for s in condition.free_symbols if s.name in sizes}
    result = condition.xreplace(values)
    return bool(result) if result in (sympy.true, sympy.false) else None


def holds_throughout(
    condition: sympy.Basic, sizes: Mapping[str, int], name: str, first: int, last: int
) -> bool:
    """Return True if a condition is true for every integer from ``first`` to ``last``.

    Args:
        condition: Condition on sizes.
        sizes: Sizes of the other symbols.
        name: Symbol that varies.
        first: Its first value.
        last: Its last value.
    """
    at_ends = all(holds(condition, {**sizes, name: size}) for size in (first, last))
    if not at_ends or _is_linear(condition, name):
        # A linear inequality that is true at both ends is true in between.
        return at_ends
    return all(holds(condition, {**sizes, name: size}) for size in range(first, last))


def _is_linear(condition: sympy.Basic, name: str) -> bool:
    """Return True if a condition is an inequality that is linear in a symbol."""
    if not isinstance(
        condition,
        sympy.StrictLessThan | sympy.LessThan | sympy.GreaterThan | sympy.StrictGreaterThan,
    ):
        return False
    difference = condition.lhs - condition.rhs
    symbol = next((s for s in condition.free_symbols if s.name == name), None)
    if symbol is None:
        return True
    return bool(difference.is_polynomial(symbol)) and sympy.degree(difference, symbol) == 1
