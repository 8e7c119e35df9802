"""Jagged nested tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch.nested._internal.nested_tensor import NestedTensor

__all__ = ["NestedTensor", "jagged_kernel"]


def jagged_kernel(
    func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Callable[..., Any] | None:
    """Return the function that runs an operator on jagged tensors, or ``None``.

    Args:
        func: Operator overload.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
    """
    # Imports a good part of torch: only models with such tensors pay for it.
    from torch.nested._internal.ops import lookup_jagged

    kernel: Callable[..., Any] | None = lookup_jagged(func, *args, **kwargs)
    return kernel


PIECES = {
    "NestedTensor": "Class of a jagged nested tensor.",
    "jagged_kernel": "Return the function that runs an operator on jagged tensors, or ``None``.",
}
"""What each name is, as the test of it says when torch has changed it."""
