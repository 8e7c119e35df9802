"""Tensors wrapped by functorch transforms."""

from __future__ import annotations

from torch._C import _functorch as functorch

__all__ = [
    "functorch",
]

PIECES = {
    "functorch": "Functions on wrapped tensors and on the stack of transforms.",
}
"""What each name is, as the test of it says when torch has changed it."""
