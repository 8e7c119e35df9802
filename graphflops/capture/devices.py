"""Inputs of the model's kind: fake, meta, or on its device, whatever they came as."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree


def alike(model: nn.Module, inputs: Any) -> Any:
    """The inputs as tensors of the model's kind: fake, meta, or on its device."""
    parameters = list(model.parameters())
    if not parameters:
        return inputs
    device = parameters[0].device
    if isinstance(parameters[0], FakeTensor):
        mode = parameters[0].fake_mode
    elif any(parameter.is_meta for parameter in parameters):
        # Code that ignores the device context leaves single parameters on the CPU.
        return pytree.tree_map_only(torch.Tensor, lambda t: t.to("meta"), inputs)
    elif any(isinstance(t, torch.Tensor) and t.is_meta for t in pytree.tree_leaves(inputs)):
        mode = FakeTensorMode(allow_non_fake_inputs=True)
    else:
        return inputs

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, FakeTensor):
            return tensor
        with mode:
            return torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device
            )

    return pytree.tree_map_only(torch.Tensor, fake, inputs)
