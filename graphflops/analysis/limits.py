"""Limits of figures as people write them: ``1.2 TFLOP``, ``flops>+0.5%``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, TypeAlias, cast

from graphflops.analysis.changes import FigureChange
from graphflops.core.arguments import check_choice
from graphflops.core.cost import Dim
from graphflops.errors import ModelSpecError, UnboundSymbolError

_BYTES = ("B", "byte", "bytes")
UNITS = {
    "flops": ("FLOP", "FLOPs"),
    "macs": ("MAC", "MACs"),
    "transcendentals": (),
    "bytes_read": _BYTES,
    "bytes_written": _BYTES,
    "bytes": _BYTES,
    "params": ("params", "parameters"),
    "params_trainable": ("params", "parameters"),
    "unsupported": ("calls",),
}
"""Figures that may have a limit, and the units that it may be written in."""
_DECIMAL = {"": 1, **{prefix: 1000 ** (i + 1) for i, prefix in enumerate("KMGTPE")}}
_PREFIXES = {
    **_DECIMAL,
    "k": 1000,
    **{f"{prefix}i": 1024 ** (i + 1) for i, prefix in enumerate("KMGTPE")},
}
_QUANTITY = re.compile(r"(?P<number>[+-]?\d+(_\d+)*(\.\d+)?(e[+-]?\d{1,2})?)\s*(?P<unit>[A-Za-z]*)")
_THRESHOLD = re.compile(r"\s*(?P<figure>\w+)\s*(?P<operator>>=|>)\s*(?P<value>.+?)\s*")
_PERCENT = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*%")
Operator: TypeAlias = Literal[">", ">="]


def parse_quantity(figure: str, value: Any) -> Fraction:
    """Return a number that is written with a prefix and a unit, exactly.

    Args:
        figure: Figure that it is a number of, which says what units there are.
        value: Number, or text such as ``"1.2 TFLOP"``, ``"8.03 B"`` of parameters, ``"16 GiB"``.

    Raises:
        ModelSpecError: It is no number, or in another unit.

    Example:
        >>> int(parse_quantity("flops", "1.2 TFLOP")), int(parse_quantity("bytes", "2KiB"))
        (1200000000000, 2048)
    """
    check_choice("figure", figure, UNITS)
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf"):
        return Fraction(value)
    match = _QUANTITY.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        msg = f"{figure} = {value!r} is no number. Write e.g. {_example(figure)}."
        raise ModelSpecError(msg)
    factor = _factors(figure).get(match["unit"])
    if factor is None:
        units = ", ".join(UNITS[figure]) or "none"
        msg = (
            f"{figure} = {value!r} is in no unit of {figure}: {match['unit']!r}. Units: {units}, "
            f"with a prefix K, M, G, T, P or E. Write e.g. {_example(figure)}."
        )
        raise ModelSpecError(msg)
    return Fraction(match["number"].replace("_", "")) * factor


def _factors(figure: str) -> dict[str, int]:
    """Return the factors of units with their prefixes."""
    factors = {
        prefix + unit: factor
        for prefix, factor in _PREFIXES.items()
        for unit in ("", *UNITS[figure])
        if figure.startswith("bytes") or not prefix.endswith("i")
    }
    # Parameters are counted in billions.
    return {**factors, "B": 10**9} if figure.startswith("params") else factors


def _example(figure: str) -> str:
    unit = UNITS[figure][0] if UNITS[figure] else ""
    return "0" if figure == "unsupported" else f'"1.5 {"M" if unit == "params" else "G"}{unit}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Largest increase of a figure that passes, as ``flops>+0.5%`` says what fails.

    Attributes:
        text: The threshold as it is written.
        figure: Name of the figure.
        operator: ``">"``, or ``">="`` if the value itself fails too.
        value: Increase: a number, or percent of the figure before.
        is_relative: True if the value is in percent.
    """

    text: str
    figure: str
    operator: Operator
    value: Fraction
    is_relative: bool

    def failure(self, total: Mapping[str, FigureChange]) -> str | None:
        """Return a sentence if a change of totals exceeds the threshold, else ``None``.

        Raises:
            UnboundSymbolError: The change is no number.
        """
        change = total[self.figure]
        difference = change.difference
        if not isinstance(difference, int):
            raise UnboundSymbolError(_no_number(self.figure, f"changes by {difference}"))
        if not self._is_exceeded(difference, change.before):
            return None
        percent = "" if change.percent is None else f" = {change.percent:+.4g}%"
        return (
            f"{self.figure} changes by {difference:+,}{percent}, from {change.before:,} to "
            f"{change.after:,}: fails {self.text}."
        )

    def _is_exceeded(self, difference: int, before: Dim) -> bool:
        if not self.is_relative or difference == 0:
            limit = self.value
        elif isinstance(before, int):
            limit = self.value * before / 100
        else:
            raise UnboundSymbolError(_no_number(self.figure, f"is {before} before"))
        return difference > limit or (self.operator == ">=" and difference == limit)


def parse_threshold(text: str) -> Threshold:
    """Parse a threshold: a figure, ``>`` or ``>=``, and an increase.

    Raises:
        ModelSpecError: The text does not have that form.

    Example:
        >>> threshold = parse_threshold("flops>+0.5%")
        >>> threshold.figure, threshold.value, threshold.is_relative
        ('flops', Fraction(1, 2), True)
    """
    match = _THRESHOLD.fullmatch(text)
    if match is None:
        msg = (
            f"{text!r} is no threshold. Write a figure, > or >= and an increase, in percent or "
            'absolute: "flops>+0.5%" or "params>1.5M".'
        )
        raise ModelSpecError(msg)
    check_choice("figure", match["figure"], UNITS)
    percent = _PERCENT.fullmatch(match["value"])
    value = Fraction(percent[1]) if percent else parse_quantity(match["figure"], match["value"])
    return Threshold(
        text=text.strip(),
        figure=match["figure"],
        operator=cast("Operator", match["operator"]),
        value=value,
        is_relative=percent is not None,
    )


def _no_number(figure: str, what: str) -> str:
    return (
        f"{figure} {what}, which is no number yet. Give numbers for the sizes with report.subs, "
        "or count without symbolic sizes."
    )
