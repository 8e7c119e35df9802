"""Jagged nested tensors."""

from __future__ import annotations

from torch.nested._internal.nested_tensor import NestedTensor

__all__ = [
    "NestedTensor",
]

PIECES = {
    "NestedTensor": "Class of a jagged nested tensor.",
}
"""What each name is, as the test of it says when torch has changed it."""
