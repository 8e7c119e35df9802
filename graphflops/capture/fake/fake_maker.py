"""Fake tensors around tensors on meta."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode


class FakeMaker:
    """Makes fake tensors of a mode, with the attributes of a first one of each device.

    The class's own way takes four times as long: there are thousands of experts.

    Args:
        mode: The mode.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._firsts: dict[tuple[torch.device, bool], tuple[torch.device, dict[str, Any]]] = {}

    def make(
        self,
        like: torch.Tensor,
        device: torch.device,
        *,
        is_parameter: bool = False,
        requires_grad: bool = False,
    ) -> FakeTensor:
        """Return a fake tensor.

        Args:
            like: A tensor on meta that nothing else holds, in whose memory it lies.
            device: Where it is said to be.
            is_parameter: Whether it is an ``nn.Parameter``.
            requires_grad: Whether it is a leaf that asks for a gradient.
        """
        first = self._firsts.get((device, is_parameter))
        if first is None:
            first = self._first(device, is_parameter=is_parameter)
        fake_device, attributes = first
        fake = torch.Tensor._make_subclass(
            FakeTensor,
            like,
            requires_grad,
            dispatch_device=True,
            device_for_backend_keys=fake_device,
        )
        torch._C._set_throw_on_mutable_data_ptr(fake)
        vars(fake).update(attributes)
        return fake

    def like(self, tensor: torch.Tensor) -> FakeTensor:
        """Return a fake tensor of the same metadata, with memory of its own."""
        shape, strides = tensor.shape, tensor.stride()
        like = torch.empty_strided(shape, strides, dtype=tensor.dtype, device="meta")
        return self.make(like, tensor.device)

    def _first(
        self, device: torch.device, *, is_parameter: bool
    ) -> tuple[torch.device, dict[str, Any]]:
        like = torch.empty(0, device="meta")
        first = FakeTensor(self._mode, like, device, _is_param=is_parameter)
        found = self._firsts[device, is_parameter] = first.fake_device, dict(vars(first))
        return found
