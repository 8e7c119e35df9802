"""Tensors of inputs: with values where a capture looks at them, without data everywhere else.

However large an input is asked for, no memory is taken for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from graphflops.capture.fake.constant_propagation import MAX_VALUE_NUMEL
from graphflops.errors import ModelSpecError
from graphflops.render.units import shape as by_axes

_ADDRESSABLE = 2**63
"""Bytes: PyTorch counts them in signed 64-bit integers."""


def blank(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Make a tensor without data.

    Raises:
        ModelSpecError: It is larger than any tensor of PyTorch's can be.
    """
    if math.prod(shape) * dtype.itemsize >= _ADDRESSABLE:
        name = str(dtype).removeprefix("torch.")
        msg = (
            f"an input of {by_axes(tuple(shape))} {name} is larger than any tensor can be, 2**63 "
            "bytes. Ask for a smaller batch, length or size."
        )
        raise ModelSpecError(msg)
    return torch.empty(shape, dtype=dtype, device="meta")


def valued(
    shape: Sequence[int], make: Callable[[], torch.Tensor], dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    """Make a tensor with values by a function, or without where it is too large to be looked at.

    Args:
        shape: The shape that the function gives it.
        make: The function.
        dtype: The dtype that the function gives it.
    """
    return make() if math.prod(shape) <= MAX_VALUE_NUMEL else blank(shape, dtype)


def filled(shape: Sequence[int], value: float, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Make a tensor of one value."""
    return valued(shape, lambda: torch.full(shape, value, dtype=dtype, device="cpu"), dtype)


def ids(*shape: int) -> torch.Tensor:
    """Token ids, with values: what is made of inputs may depend on them."""
    return filled(shape, 0)


def ones(*shape: int) -> torch.Tensor:
    """A mask that lets everything through."""
    return filled(shape, 1)


def repeated(one: torch.Tensor, count: int) -> torch.Tensor:
    """The same tensor for every example, along its first axis."""
    shape = (count * one.shape[0], *one.shape[1:])
    return valued(shape, lambda: one.repeat(count, *[1] * (one.dim() - 1)), one.dtype)
