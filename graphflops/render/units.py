"""Numbers as people read them."""

from __future__ import annotations

import sympy

from graphflops.core.cost import Dim

_PREFIXES = ((10**18, "E"), (10**15, "P"), (10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "K"))


def quantity(value: Dim, unit: str = "") -> str:
    """A count with two decimals and an SI prefix; expressions are factored, not rounded.

    Example:
        >>> quantity(32_938_104_193_024, "FLOPs"), quantity(896), quantity(2304)
        ('32.94 TFLOPs', '896', '2.3 K')
    """
    if not isinstance(value, int):
        # B would be read as a symbol of the expression.
        return f"{sympy.factor(value)} {'bytes' if unit == 'B' else unit}".rstrip()
    for factor, prefix in _PREFIXES:
        if value >= factor:
            return f"{round(value / factor, 2):.10g} {prefix}{unit}"
    return f"{value} {unit}".rstrip()


def parameters(value: int) -> str:
    """A number of parameters: ``8.03 B`` where a count of FLOPs has ``8.03 G``."""
    return quantity(value).replace("G", "B")


def percent(part: Dim, whole: Dim) -> str:
    """A share to four decimals; empty where it is symbolic or of nothing.

    Example:
        >>> percent(1, 3), percent(0, 0)
        ('33.3333%', '0%')
    """
    if not isinstance(part, int) or not isinstance(whole, int):
        return ""
    return f"{round(100 * part / whole, 4):.10g}%" if whole else "0%"


def exact(value: Dim) -> str:
    """Every digit, with separators."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def shape(sizes: tuple[Dim, ...]) -> str:
    """A shape as ``1x2048x4096``; a scalar as ``()``."""
    return "x".join(map(str, sizes)) if sizes else "()"
