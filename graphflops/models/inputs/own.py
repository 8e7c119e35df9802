"""The few models whose inputs no general rule can tell, each with the reason."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflops.models.inputs.subject import Subject

_OWN: dict[str, dict[str, Callable[[Subject], Any]]] = {}


def rules(model: Any) -> dict[str, Callable[[Subject], Any]]:
    """Rules of a model's own, which come before the general ones."""
    return _OWN.get(type(model).__name__, {})
