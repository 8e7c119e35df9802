"""Models quantized in eager or graph mode: weights packed in objects, observers, refusals."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from graphflops.capture.named_modules import Modules
from graphflops.errors import CaptureError

_OBSERVED = (
    "Observers are left out: they watch the values that a quantization is prepared for, and "
    "hand on what they are given."
)


def packed_weight(packed: Any) -> torch.Tensor | None:
    """Return the weight that an object of packed parameters holds, on meta; ``None`` for others."""
    if not hasattr(packed, "unpack"):
        return None
    with _disable_current_modes():
        weight = packed.unpack()[0]
        return torch.empty(weight.shape, dtype=weight.dtype, device="meta")


def run_quantized(func: Any, args: Any, kwargs: Any) -> Any:
    """Run a quantized operator, if torch has a rule for its shapes.

    Raises:
        CaptureError: It takes quantized tensors, of which there are no fake ones.
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


def leave_out_observers(modules: Modules) -> tuple[str, ...]:
    """Let the observers of a stand-in hand on what they get; a note if there are any."""
    observer: Any = sys.modules.get("torch.ao.quantization.observer")
    kind = getattr(observer, "ObserverBase", ())
    observers = [module for _, module in modules if isinstance(module, kind)]
    for module in observers:
        vars(module)["forward"] = _handed_on
    return (_OBSERVED,) if observers else ()


def _handed_on(x: Any, *_: Any, **__: Any) -> Any:
    return x
