"""Sympy expressions as plain data, read back without evaluating any text."""

from __future__ import annotations

from typing import Any

import sympy
from sympy.core.relational import Relational

from graphflops.saving.codec import Codec, DataError

_FUNCTIONS: dict[str, Any] = {
    function.__name__: function
    for function in (
        *(sympy.Add, sympy.Mul, sympy.Pow, sympy.Max, sympy.Min, sympy.Abs, sympy.Mod, sympy.Sum),
        *(sympy.floor, sympy.ceiling, sympy.log, sympy.Tuple, sympy.Piecewise),
        *(sympy.And, sympy.Or, sympy.Not, sympy.functions.elementary.piecewise.ExprCondPair),
        *(sympy.Eq, sympy.Ne, sympy.Lt, sympy.Le, sympy.Gt, sympy.Ge),
        sympy.Rational,
    )
}
# Functions of torch's that expressions of sizes may have: equal for the sizes that there are.
_FUNCTIONS |= {
    "FloorDiv": lambda a, b: sympy.floor(a / b),
    "CleanDiv": lambda a, b: a / b,
    "CeilDiv": lambda a, b: sympy.ceiling(a / b),
    "PythonMod": sympy.Mod,
    "ModularIndexing": lambda base, divisor, modulus: sympy.Mod(
        sympy.floor(base / divisor), modulus
    ),
}
_ASSUMPTIONS = ("integer", "positive", "nonnegative")
_MOST = 100_000  # nodes of one expression
_HIGHEST, _BITS = 64, 4096  # exponent, and size of a number that is a power


def _encode(value: Any) -> Any:
    if isinstance(value, int | sympy.Integer):
        return int(value)
    if value in (sympy.true, sympy.false):
        return bool(value)
    if isinstance(value, sympy.Rational):
        return {"function": "Rational", "arguments": [int(value.p), int(value.q)]}
    if isinstance(value, sympy.Symbol):
        assumed = [name for name in _ASSUMPTIONS if value.assumptions0.get(name)]
        return {"symbol": value.name, "assumptions": assumed}
    name = type(value).__name__
    return {"function": name, "arguments": [_encode(argument) for argument in value.args]}


def _is_small_power(base: Any, exponent: Any) -> bool:
    """Return True for a power that takes no time to compute, however it is nested."""
    if not exponent.is_Rational or abs(exponent) > _HIGHEST:
        return False
    digits = max(map(abs, (base.p, base.q))).bit_length() if base.is_Rational else 1
    return bool(digits * abs(exponent) <= _BITS)


class _Reader:
    """Reads one expression, up to a number of nodes."""

    def __init__(self) -> None:
        self._nodes = 0

    def read(self, data: Any) -> Any:
        self._nodes += 1
        if self._nodes > _MOST:
            raise DataError("is an expression that is too large")
        if isinstance(data, bool):
            return sympy.true if data else sympy.false
        if isinstance(data, int):
            return sympy.Integer(data)
        if not isinstance(data, dict):
            raise DataError(f"is {type(data).__name__}, no expression")
        if data.keys() == {"symbol", "assumptions"}:
            return self._symbol(data["symbol"], data["assumptions"])
        if data.keys() != {"function", "arguments"} or not isinstance(data["arguments"], list):
            raise DataError("is no expression")
        function = _FUNCTIONS.get(str(data["function"]))
        if function is None:
            raise DataError(f"has the function {data['function']!r}, which no cost has")
        return self._applied(function, [self.read(argument) for argument in data["arguments"]])

    @staticmethod
    def _symbol(name: Any, assumptions: Any) -> sympy.Symbol:
        if not isinstance(name, str) or not set(assumptions) <= set(_ASSUMPTIONS):
            raise DataError("is no symbol of a size")
        return sympy.Symbol(name, **dict.fromkeys(assumptions, True))

    @staticmethod
    def _applied(function: Any, arguments: list[Any]) -> Any:
        if function is sympy.Pow and not _is_small_power(*arguments):
            raise DataError("has a power that no cost has")
        try:
            return function(*arguments)
        except (TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
            raise DataError(f"is no expression: {error}") from None


def _decode_dim(data: Any) -> Any:
    value = _Reader().read(data)
    return int(value) if value.is_Integer else value


def _decode_condition(data: Any) -> Any:
    value = _Reader().read(data)
    if not isinstance(value, Relational | sympy.logic.boolalg.Boolean):
        raise DataError("is no condition")
    return value


DIM = Codec(_encode, _decode_dim)
"""Codec of a size or a cost: an integer, or an expression."""
CONDITION = Codec(_encode, _decode_condition)
"""Codec of a condition on sizes."""


def encode_expression(value: Any) -> Any:
    """Return an expression or condition as plain data."""
    return _encode(value)


def decode_expression(data: Any) -> Any:
    """Return the expression or condition of plain data.

    Raises:
        DataError: It is neither.
    """
    return _Reader().read(data)
