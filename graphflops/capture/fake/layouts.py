"""Layouts of dense tensors: shapes and strides."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple, TypeAlias

import torch


class Layout(NamedTuple):
    """Metadata of a new tensor."""

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: torch.dtype


Layouts: TypeAlias = tuple[Layout | None, ...]
"""Layouts of the results of an operator; None stands for a result that is None."""
Rule: TypeAlias = Callable[..., Layouts | None]
"""Function from the arguments of an operator to the layouts; None where it does not know them."""


@cache
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of a contiguous tensor.

    Example:
        >>> row_major((2, 3, 4))
        (12, 4, 1)
    """
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


@cache
def keeps_strides(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Return True if a pointwise result has the strides of its one operand."""
    if strides == row_major(shape):
        return True
    if any(size < 2 for size in shape):  # noqa: PLR2004 - the stride of such an axis is arbitrary
        return False
    order = sorted(range(len(shape)), key=strides.__getitem__, reverse=True)
    dense = row_major(tuple(shape[axis] for axis in order))
    return tuple(strides[axis] for axis in order) == dense


@cache
def has_no_overlap(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Return True if no element of a tensor is there twice, as of a part of a dense tensor."""
    reach = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size > 1 and stride < reach:
            return False
        reach = max(reach, stride * size)
    return True


def is_usual(x: torch.Tensor) -> bool:
    """Return True for a row-major tensor without an axis of one element, or of none.

    The first axis may have one: others decide whether channels may be the last axis as well.
    """
    return x.stride() == row_major(x.shape) and all(size > 1 for size in x.shape[1:])
