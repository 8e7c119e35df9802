"""Models quantized in eager or graph mode: packed weights, unsupported operators."""

from __future__ import annotations

from typing import Any

import torch

from graphflops.capture.torch_internals.dispatch import disable_current_modes
from graphflops.errors import CaptureError


def packed_weight(packed: Any) -> torch.Tensor | None:
    """Return the weight in an object of packed parameters, on meta; None for other objects."""
    if not hasattr(packed, "unpack"):
        return None
    with disable_current_modes():
        weight = packed.unpack()[0]
        return torch.empty(weight.shape, dtype=weight.dtype, device="meta")


def run_quantized(func: Any, args: Any, kwargs: Any) -> Any:
    """Run a quantized operator, if torch has a shape rule for it.

    Raises:
        CaptureError: The operator takes quantized tensors, which cannot be fake.
    """
    try:
        return func(*args, **kwargs)
    except NotImplementedError as error:
        msg = (
            f"{func.name()} takes quantized tensors, which torch can neither make nor run without "
            "data. Count the model from before it was converted, or a program that PT2E "
            "quantized: it holds plain tensors."
        )
        raise CaptureError(msg) from error
