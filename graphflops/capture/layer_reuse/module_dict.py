"""What a module holds."""

from __future__ import annotations

from typing import Any

from torch import nn


def variables(module: nn.Module) -> dict[str, Any]:
    """The attribute dictionary of a module, whoever is watching."""
    found: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return found
