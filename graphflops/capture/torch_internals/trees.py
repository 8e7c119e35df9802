"""Pytrees: nested containers flattened into leaves and a spec."""

from __future__ import annotations

from torch.utils import _pytree as pytree

__all__ = [
    "pytree",
]

PIECES = {
    "pytree": "Functions on pytrees: flatten, unflatten, map, and register containers.",
}
"""What each name is, as the test of it says when torch has changed it."""
