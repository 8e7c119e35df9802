"""Expressions of tensor elements in terms of their indices.

Axes are numbered from the last one, so that they agree under broadcasting: ``index(0)`` is the
index along the last axis. An axis of size one has no index.
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

_TABLE_IDS = itertools.count()


class Unknown(sympy.Dummy):  # type: ignore[misc]  # sympy is untyped
    """Unknown number between bounds.

    Attributes:
        bound: Largest absolute value.
    """

    bound: float = 1.0


@cache
def index(axis: int) -> sympy.Symbol:
    """Return the index along an axis, numbered from the last one."""
    return sympy.Symbol(f"index{axis}", integer=True, nonnegative=True)


def axes_of(expr: sympy.Basic) -> list[int]:
    """Return the axes along which an element varies."""
    names = [s.name for s in expr.free_symbols if isinstance(s, sympy.Symbol)]
    return sorted(int(n[5:]) for n in names if n.startswith("index") and n[5:].isdigit())


def unknown(*, truth: bool, bound: float) -> sympy.Basic:
    """Return an unknown element, a truth value or a number within a bound."""
    symbol = Unknown("unknown", integer=True, nonnegative=True) if truth else Unknown(real=True)
    symbol.bound = 1.0 if truth else bound
    return sympy.Ne(symbol, 0) if truth else symbol


def table(table_id: int, axes: tuple[int, ...]) -> sympy.Expr:
    """Return the element of a table of known values, at the indices along some axes."""
    function = sympy.Function(f"values{table_id}", real=True)
    return function(*map(index, axes))


def next_table_id() -> int:
    """Return a new table id."""
    return next(_TABLE_IDS)


def table_id_of(expr: AppliedUndef) -> int:
    """Return the id of the table of an element."""
    return int(expr.func.__name__.removeprefix("values"))


def is_truth(expr: object) -> bool:
    """Return True for an element that is a truth value."""
    return isinstance(expr, BooleanAtom | BooleanFunction | Relational)


def number(expr: Any) -> Any:
    """Return an element as a number: a truth value is 0 or 1."""
    return sympy.Piecewise((1, expr), (0, True)) if is_truth(expr) else expr


def truth(expr: Any) -> Any:
    """Return an element as a truth value."""
    return expr if is_truth(expr) else sympy.Ne(expr, 0)


def constant(value: float) -> sympy.Basic | None:
    """Return the element of a Python number or truth value, as an exact integer if it is whole."""
    if isinstance(value, bool):
        return sympy.true if value else sympy.false
    if isinstance(value, int):
        return sympy.Integer(value)
    if math.isnan(value):
        return None
    if math.isinf(value):
        return sympy.oo if value > 0 else -sympy.oo
    return sympy.Integer(int(value)) if value.is_integer() else sympy.Float(value)
