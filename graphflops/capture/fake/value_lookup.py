"""Lookup of the values of fake tensors, as the rules that read values see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

import sympy
import torch

from graphflops.capture.fake.leaves import map_leaves, tensors_in

INPUTS, RANDOM = "inputs", "chance"
"""Origins of a known value: the values of inputs, a random number."""
ASSUMED_FLOAT = 0.5
"""Value assumed for a random number, or a float that only data can give, that Python reads."""
UNKNOWN: Any = object()
"""Value of a tensor whose value is not known."""

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


def lookup_all(lookup: Callable[[Any], Any], tree: Any) -> Any:
    """Return a pytree with the values of its leaves, or ``UNKNOWN`` if one of them is not known."""
    if any(lookup(tensor) is UNKNOWN for tensor in tensors_in(tree)):
        return UNKNOWN
    values: list[Any] = []

    def value(leaf: Any) -> Any:
        values.append(lookup(leaf))
        return values[-1]

    found = map_leaves(value, tree)
    return UNKNOWN if any(leaf is UNKNOWN for leaf in values) else found
