"""Lookup of the values of fake tensors, as the rules that read values see it."""

from __future__ import annotations

from typing import Protocol, TypeAlias

import sympy
import torch

INPUTS, RANDOM = "inputs", "chance"
"""Origins of a known value: the values of inputs, a random number."""
ASSUMED_FLOAT = 0.5
"""Value assumed for a random number, or a float that only data can give, that Python reads."""

TensorState: TypeAlias = tuple[torch.Tensor | None, set[str] | None, sympy.Basic | None]
"""State of a tensor: its value and the origins of that, or else its symbolic element."""


class ValueLookup(Protocol):
    """Values of fake tensors, and a record of what depends on them."""

    def value(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Return the value of a tensor, if it is known."""
        ...

    def note_dependence(self, tensor: torch.Tensor) -> None:
        """Record that a size or a branch follows from a tensor's value."""
        ...
