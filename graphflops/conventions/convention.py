"""What a convention states about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphflops.pricing.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """A way of counting, in words.

    Attributes:
        registry: Loads its prices.
        unit: What its FLOP is.
        counts: What it sees and prices.
        omits: What it does not see, or prices at nothing.
        source: Where its rules stand.
    """

    registry: Callable[[], Registry]
    unit: str
    counts: str
    omits: str
    source: str
