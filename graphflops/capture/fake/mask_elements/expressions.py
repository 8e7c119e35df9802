"""Elements of tensors as expressions of their indices.

Axes are numbered from the last one on, so that tensors that are broadcast together agree:
``index(0)`` is the index along the last axis. An axis of one element has no index.
"""

from __future__ import annotations

import itertools
import math
from functools import cache
from typing import Any

import sympy
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational
from sympy.logic.boolalg import BooleanAtom, BooleanFunction

_NUMBERS = itertools.count()


class Unknown(sympy.Dummy):  # type: ignore[misc]  # sympy is untyped
    """An element that nobody knows: a number between bounds.

    Attributes:
        bound: Its largest absolute value.
    """

    bound: float = 1.0


@cache
def index(axis: int) -> sympy.Symbol:
    """Index along an axis, numbered from the last one on."""
    return sympy.Symbol(f"index{axis}", integer=True, nonnegative=True)


def axes_of(expr: sympy.Basic) -> list[int]:
    """Axes along which an element varies."""
    names = [s.name for s in expr.free_symbols if isinstance(s, sympy.Symbol)]
    return sorted(int(n[5:]) for n in names if n.startswith("index") and n[5:].isdigit())


def unknown(*, truth: bool, bound: float) -> sympy.Basic:
    """An element that nobody knows, a truth value or a number within a bound."""
    made = Unknown("unknown", integer=True, nonnegative=True) if truth else Unknown(real=True)
    made.bound = 1.0 if truth else bound
    return sympy.Ne(made, 0) if truth else made


def table(name_of_value: int, axes: tuple[int, ...]) -> sympy.Expr:
    """An element of a tensor whose values are known, at the indices along some axes."""
    function = sympy.Function(f"values{name_of_value}", real=True)
    return function(*map(index, axes))


def next_table() -> int:
    """A number that no table of values has yet."""
    return next(_NUMBERS)


def table_number(expr: AppliedUndef) -> int:
    """The number of the table that an element is in."""
    return int(expr.func.__name__.removeprefix("values"))


def is_truth(expr: object) -> bool:
    """Whether an element is a truth value."""
    return isinstance(expr, BooleanAtom | BooleanFunction | Relational)


def number(expr: Any) -> Any:
    """An element as a number: a truth value is 0 or 1."""
    return sympy.Piecewise((1, expr), (0, True)) if is_truth(expr) else expr


def truth(expr: Any) -> Any:
    """An element as a truth value."""
    return expr if is_truth(expr) else sympy.Ne(expr, 0)


def constant(value: float) -> sympy.Basic | None:
    """A plain number or truth value as an element; whole ones exactly."""
    if isinstance(value, bool):
        return sympy.true if value else sympy.false
    if isinstance(value, int):
        return sympy.Integer(value)
    if math.isnan(value):
        return None
    if math.isinf(value):
        return sympy.oo if value > 0 else -sympy.oo
    return sympy.Integer(int(value)) if value.is_integer() else sympy.Float(value)
