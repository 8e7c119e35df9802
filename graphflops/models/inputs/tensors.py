"""Input tensors: with values where a capture may read them, on the meta device otherwise.

An input of any size takes no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from graphflops.capture.fake.known_values import MAX_VALUE_NUMEL
from graphflops.errors import InputError
from graphflops.render.units import shape as format_shape

_ADDRESSABLE = 2**63
"""Limit of a tensor's bytes, which PyTorch counts in signed 64-bit integers."""


def meta_tensor(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """Return a tensor without data.

    Raises:
        InputError: It is larger than the largest tensor of PyTorch.
    """
    if math.prod(shape) * dtype.itemsize >= _ADDRESSABLE:
        name = str(dtype).removeprefix("torch.")
        msg = (
            f"an input of {format_shape(tuple(shape))} {name} is larger than any tensor can be, "
            "2**63 bytes. Ask for a smaller batch, length or size."
        )
        raise InputError(msg)
    return torch.empty(shape, dtype=dtype, device="meta")


def materialize_if_small(
    shape: Sequence[int], make: Callable[[], torch.Tensor], dtype: torch.dtype = torch.int64
) -> torch.Tensor:
    """Return the tensor of a factory, or a meta tensor if a capture would not read its values.

    Args:
        shape: Shape of the tensor.
        make: Factory of the tensor with values.
        dtype: Dtype of the tensor.
    """
    return make() if math.prod(shape) <= MAX_VALUE_NUMEL else meta_tensor(shape, dtype)


def full(shape: Sequence[int], value: float, dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """Return a tensor filled with one value."""
    return materialize_if_small(
        shape, lambda: torch.full(shape, value, dtype=dtype, device="cpu"), dtype
    )


def ids(*shape: int) -> torch.Tensor:
    """Return token ids with values, which other inputs may depend on."""
    return full(shape, 0)


def ones(*shape: int) -> torch.Tensor:
    """Return a mask that masks nothing."""
    return full(shape, 1)


def repeat_batch(example: torch.Tensor, count: int) -> torch.Tensor:
    """Repeat the tensor of one example along its first axis."""
    shape = (count * example.shape[0], *example.shape[1:])
    return materialize_if_small(
        shape, lambda: example.repeat(count, *[1] * (example.dim() - 1)), example.dtype
    )
