"""Axis labels with SI prefixes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.ticker import Formatter


def si_formatter(unit: str) -> Formatter:
    """Return a formatter of ticks as ``2.5 GB`` or ``100 TFLOP/s``."""
    from matplotlib.ticker import EngFormatter

    return EngFormatter(unit=unit)
