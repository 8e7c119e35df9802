"""Modules of a model under all their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from torch import nn

Modules: TypeAlias = Sequence[tuple[str, nn.Module]]
"""Every module of a model under every name it has, the model itself first."""


def modules_in(model: nn.Module) -> Modules:
    """Return the modules of a model."""
    return list(model.named_modules(remove_duplicate=False))
