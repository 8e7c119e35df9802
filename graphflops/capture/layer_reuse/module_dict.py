"""Access to a module's attribute dictionary."""

from __future__ import annotations

from typing import Any

from torch import nn


def module_dict(module: nn.Module) -> dict[str, Any]:
    """Return the attribute dictionary of a module, without a record in the attribute logs."""
    attributes: dict[str, Any] = object.__getattribute__(module, "__dict__")
    return attributes
