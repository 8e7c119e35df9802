"""Times that can be drawn: numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.errors import ModelSpecError, UnboundSymbolError

if TYPE_CHECKING:
    from graphflops.analysis.call_time import Seconds


def drawable(seconds: Seconds, model: str) -> float:
    """Return the time of a model as a number.

    Args:
        seconds: The time.
        model: Name of the model.

    Raises:
        UnboundSymbolError: It is symbolic.
        ModelSpecError: It is none.
    """
    if not isinstance(seconds, int | float):
        names = ", ".join(sorted(map(str, seconds.free_symbols)))
        msg = f"a plot shows numbers, and {names} are symbols: bind them by subs() first."
        raise UnboundSymbolError(msg)
    if not seconds:
        raise ModelSpecError(f"no operator of {model} takes time: there is nothing to plot.")
    return float(seconds)
