"""What FlopCounterMode sees of a forward and a backward pass on meta tensors."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode


def flop_counter(
    model: nn.Module,
    kwargs: dict[str, Any],
    loss: Callable[[Any], torch.Tensor],
    *,
    checked_convolutions: bool = False,
) -> int:
    """FlopCounterMode's figure around ``loss(model(**kwargs)).backward()``.

    On meta, because on a CPU it misses attention; under fake tensors, because transformers
    looks at values of masks, which meta tensors refuse.

    Args:
        model: On meta; its parameters have no gradients afterwards.
        kwargs: Inputs, on meta too.
        loss: From its output to a scalar.
        checked_convolutions: Count the backward of a convolution as arithmetic has it, where
            FlopCounterMode's own formula overcounts groups (pytorch issue 183405).
    """
    own: Any = {torch.ops.aten.convolution_backward: _convolution} if checked_convolutions else {}
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, FlopCounterMode(display=False, custom_mapping=own) as counter:
        loss(model(**kwargs)).backward()  # type: ignore[no-untyped-call]  # torch's gap
    for parameter in model.parameters():
        parameter.grad = None
    return int(counter.get_total_flops())


def _convolution(
    grad: torch.Size, inputs: torch.Size, weight: torch.Size, *args: Any, **_: Any
) -> int:
    """A multiply-add for each position of the window slid, for each gradient asked for."""
    transposed, mask = args[4], args[-1]
    positions = inputs if transposed else grad
    gradients = int(mask[0]) + int(mask[1])
    return 2 * prod(positions) * prod(weight[1:]) * gradients
