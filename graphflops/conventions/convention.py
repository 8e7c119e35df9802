"""Description of a convention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from graphflops.pricing.registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Convention:
    """Way of counting, in words.

    Attributes:
        registry: Function that loads its registry.
        unit: Definition of its FLOP.
        counts: Operators that it prices.
        omits: Operators that it does not see, or prices at 0.
        source: Source of its rules.
    """

    registry: Callable[[], Registry]
    unit: str
    counts: str
    omits: str
    source: str
