"""Pytrees: nested containers flattened into leaves and a spec."""

from __future__ import annotations

from torch.export._tree_utils import reorder_kwargs
from torch.utils import _pytree as pytree

__all__ = [
    "pytree",
    "reorder_kwargs",
]

PIECES = {
    "pytree": "Functions on pytrees: flatten, unflatten, map, and register containers.",
    "reorder_kwargs": "Return keyword inputs in the order of a program's input spec.",
}
"""What each name is, as the test of it says when torch has changed it."""
