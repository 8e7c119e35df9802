"""Symbolic sizes: arithmetic over a closed list of functions, parsed without ``eval``.

A program has its sizes in the notation of ``sympy.srepr``. Torch reads it with
``sympy.sympify``, which evaluates any Python; here it is parsed, and torch gets the ``srepr`` of
the parsed expression.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any, NamedTuple

import sympy

from graphflops.capture.export.pt2.errors import UnreadableError, quote
from graphflops.capture.torch_internals.symbolic import functions
from graphflops.runtime.interruption import raise_interruption

MAX_TEXT = 16_384
"""Maximum characters of an expression: hundreds of operations, as of cropped, padded images."""
MAX_TERMS = 1_000
"""Maximum terms of an expression after expansion, which PyTorch does."""
MAX_EXPONENT = 16
"""Maximum exponent: sizes are raised to small powers, as in an area or a volume."""
MAX_BITS = 63
"""Maximum bits of a number: sizes and strides are signed 64-bit integers."""
MAX_EXTREMUM_ARGUMENTS = 8
"""Maximum arguments of a maximum, which sympy compares pairwise."""

_SYMBOL = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_ASSUMPTIONS = {"integer", "positive", "nonnegative", "real", "nonzero"}
_SUMS, _PRODUCTS = {"Add"}, {"Mul"}
_POWERS = {"Pow", "PowByNatural", "FloatPow", "LShift", "RShift"}
_EXTREMA = {"Max", "Min", "And", "Or"}
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
def check_expression(text: str) -> str:
    """Return the ``sympy.srepr`` of an expression if it is arithmetic.

    Raises:
        UnreadableError: It is anything else, or exceeds a limit.

    Example:
        >>> check_expression("Add(Symbol('s0', integer=True), Integer(1))")
        "Add(Symbol('s0', integer=True), Integer(1))"
    """
    if len(text) > MAX_TEXT:
        raise UnreadableError(f"has a size of {len(text):,} characters")
    try:
        tree = ast.parse(text, mode="eval").body
        return str(sympy.srepr(_parse(tree).expression))
    except UnreadableError:
        raise
    except Exception as error:  # the parser and sympy may raise anything on arbitrary text
        raise_interruption(error)
        reason = type(error).__name__
        raise UnreadableError(
            f"has a size that is no arithmetic: {quote(text)} ({reason})"
        ) from error


def _parse(node: ast.expr) -> _Parsed:
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _Parsed(_NAMES[node.id], 1)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise UnreadableError(f"has a size that is no arithmetic: {quote(ast.unparse(node))}")
    name = node.func.id
    if name in {"Symbol", "Integer", "Rational", "Float"}:
        return _Parsed(_leaf(name, node), 1)
    if name not in _FUNCTIONS or node.keywords:
        raise UnreadableError(f"has a size with {quote(name)}, which is no arithmetic")
    parts = [_parse(argument) for argument in node.args]
    terms = _terms(name, parts)
    if terms > MAX_TERMS or (name in _EXTREMA and len(parts) > MAX_EXTREMUM_ARGUMENTS):
        raise UnreadableError(f"has a size of too many terms: {quote(ast.unparse(node))}")
    return _Parsed(_check_bits(_FUNCTIONS[name](*(part.expression for part in parts))), terms)


def _terms(name: str, parts: list[_Parsed]) -> int:
    if name in _SUMS:
        return sum(part.terms for part in parts)
    if name in _PRODUCTS:
        return prod(part.terms for part in parts)
    if name in _POWERS:
        base, exponent = parts
        power = exponent.expression
        # Roots and reciprocals are powers too.
        if not (power.is_Rational and abs(power) <= MAX_EXPONENT):
            raise UnreadableError(f"has a size with the power {quote(str(power))}")
        return int(base.terms ** max(1, abs(int(power))))
    return 1


def _leaf(name: str, node: ast.Call) -> Any:
    values = [ast.literal_eval(argument) for argument in node.args]
    if name == "Symbol":
        (symbol,) = values
        assumptions = {
            str(keyword.arg): bool(ast.literal_eval(keyword.value)) for keyword in node.keywords
        }
        if _SYMBOL.fullmatch(symbol) and assumptions.keys() <= _ASSUMPTIONS:
            return sympy.Symbol(symbol, **assumptions)
        raise UnreadableError(f"has a size called {quote(symbol)}")
    if name == "Float":
        return sympy.Float(float(values[0]))
    if all(type(value) is int for value in values):
        return _check_bits(getattr(sympy, name)(*values))
    raise UnreadableError(f"has a size of {quote(ast.unparse(node))}")


def _check_bits(expression: Any) -> Any:
    for number in (expression.p, expression.q) if expression.is_Rational else ():
        if abs(int(number)).bit_length() > MAX_BITS:
            raise UnreadableError("has a size beyond 64 bits")
    return expression
