"""Symbolic sizes: arithmetic over a closed list of functions, read without ``eval``.

A program says how sizes follow from each other in the notation of ``sympy.srepr``. Torch reads
it with ``sympy.sympify``, which evaluates any Python; here it is parsed, and torch is handed
what is written of the expression that came out.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any, NamedTuple

import sympy

from graphflops.capture.export.pt2.errors import UnreadableError, shown
from graphflops.capture.torch_internals.symbolic import functions
from graphflops.runtime.interruption import raise_interruption

MAX_TEXT = 16_384
"""Characters of an expression: hundreds of operations, as cropped and padded images have."""
MAX_TERMS = 1_000
"""Terms of an expression when it is multiplied out, which PyTorch does."""
MAX_EXPONENT = 16
"""Sizes are raised to small powers: the volume of a cube, an area."""
MAX_BITS = 63
"""Sizes and strides are 64-bit integers with a sign."""
MAX_COMPARED = 8
"""Arguments of a maximum, which sympy compares with each other."""

_SYMBOL = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_ASSUMPTIONS = {"integer", "positive", "nonnegative", "real", "nonzero"}
_SUMS, _PRODUCTS = {"Add"}, {"Mul"}
_POWERS = {"Pow", "PowByNatural", "FloatPow", "LShift", "RShift"}
_COMPARED = {"Max", "Min", "And", "Or"}
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    name: getattr(sympy, name)
    for name in (
        *("Add", "Mul", "Pow", "Max", "Min", "Mod", "Equality", "Unequality", "Not", "And", "Or"),
        *("StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "floor", "ceiling"),
        *("Abs", "Piecewise", "ExprCondPair"),
    )
    if hasattr(sympy, name)
} | {
    name: getattr(functions, name)
    for name in (
        *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt"),
        *("FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv"),
        *("IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat", "TruncToInt"),
        *("RoundToInt", "RoundDecimal", "ToFloat", "Identity"),
    )
    if hasattr(functions, name)
}
_NAMES = {"true": sympy.true, "false": sympy.false, "oo": sympy.oo}


class _Parsed(NamedTuple):
    expression: Any
    terms: int


@cache
def checked_expression(text: str) -> str:
    """An expression as ``sympy.srepr`` writes it, once it is known to be arithmetic.

    Raises:
        UnreadableError: It is anything else, or would grow beyond bounds.

    Example:
        >>> checked_expression("Add(Symbol('s0', integer=True), Integer(1))")
        "Add(Symbol('s0', integer=True), Integer(1))"
    """
    if len(text) > MAX_TEXT:
        raise UnreadableError(f"has a size of {len(text):,} characters")
    try:
        tree = ast.parse(text, mode="eval").body
        return str(sympy.srepr(_parse(tree).expression))
    except UnreadableError:
        raise
    except Exception as error:  # a parser and a library of algebra, on any text at all
        raise_interruption(error)
        reason = type(error).__name__
        raise UnreadableError(
            f"has a size that is no arithmetic: {shown(text)} ({reason})"
        ) from error


def _parse(node: ast.expr) -> _Parsed:
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _Parsed(_NAMES[node.id], 1)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise UnreadableError(f"has a size that is no arithmetic: {shown(ast.unparse(node))}")
    name = node.func.id
    if name in {"Symbol", "Integer", "Rational", "Float"}:
        return _Parsed(_leaf(name, node), 1)
    if name not in _FUNCTIONS or node.keywords:
        raise UnreadableError(f"has a size with {shown(name)}, which is no arithmetic")
    parts = [_parse(argument) for argument in node.args]
    terms = _terms(name, parts)
    if terms > MAX_TERMS or (name in _COMPARED and len(parts) > MAX_COMPARED):
        raise UnreadableError(f"has a size of too many terms: {shown(ast.unparse(node))}")
    return _Parsed(_bounded(_FUNCTIONS[name](*(part.expression for part in parts))), terms)


def _terms(name: str, parts: list[_Parsed]) -> int:
    if name in _SUMS:
        return sum(part.terms for part in parts)
    if name in _PRODUCTS:
        return prod(part.terms for part in parts)
    if name in _POWERS:
        base, exponent = parts
        power = exponent.expression
        # A root, and one over something, are powers too.
        if not (power.is_Rational and abs(power) <= MAX_EXPONENT):
            raise UnreadableError(f"has a size with the power {shown(str(power))}")
        return int(base.terms ** max(1, abs(int(power))))
    return 1


def _leaf(name: str, node: ast.Call) -> Any:
    values = [ast.literal_eval(argument) for argument in node.args]
    if name == "Symbol":
        (symbol,) = values
        given = {str(word.arg): bool(ast.literal_eval(word.value)) for word in node.keywords}
        if _SYMBOL.fullmatch(symbol) and given.keys() <= _ASSUMPTIONS:
            return sympy.Symbol(symbol, **given)
        raise UnreadableError(f"has a size called {shown(symbol)}")
    if name == "Float":
        return sympy.Float(float(values[0]))
    if all(type(value) is int for value in values):
        return _bounded(getattr(sympy, name)(*values))
    raise UnreadableError(f"has a size of {shown(ast.unparse(node))}")


def _bounded(expression: Any) -> Any:
    for number in (expression.p, expression.q) if expression.is_Rational else ():
        if abs(int(number)).bit_length() > MAX_BITS:
            raise UnreadableError("has a size beyond 64 bits")
    return expression
