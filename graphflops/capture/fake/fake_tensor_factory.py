"""Construction of fake tensors from meta tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphflops.capture.torch_internals.fake_mode import (
    FakeTensor,
    FakeTensorMode,
    forbid_data_ptr,
    make_subclass,
)
from graphflops.capture.torch_internals.no_modes import no_modes


class FakeTensorFactory:
    """Makes fake tensors of a mode with the attributes of a template for each device.

    The constructor of ``FakeTensor`` takes four times as long, and a model may have thousands of
    experts.

    Args:
        mode: The mode.
    """

    def __init__(self, mode: FakeTensorMode) -> None:
        self._mode = mode
        self._templates: dict[tuple[torch.device, bool], tuple[torch.device, dict[str, Any]]] = {}

    def make(
        self,
        meta: torch.Tensor,
        device: torch.device,
        *,
        is_parameter: bool = False,
        requires_grad: bool = False,
    ) -> FakeTensor:
        """Return a fake tensor.

        Args:
            meta: Meta tensor that nothing else references; the fake tensor shares its storage.
            device: Device of the fake tensor.
            is_parameter: True for an ``nn.Parameter``.
            requires_grad: True for an autograd leaf that requires a gradient.
        """
        template = self._templates.get((device, is_parameter))
        if template is None:
            template = self._template(device, is_parameter=is_parameter)
        fake_device, attributes = template
        fake: FakeTensor = make_subclass(
            FakeTensor,
            meta,
            requires_grad,
            dispatch_device=True,
            device_for_backend_keys=fake_device,
        )
        forbid_data_ptr(fake)
        fake.__dict__ = attributes.copy()  # an update in place takes twice as long
        return fake

    def empty_like(self, tensor: torch.Tensor) -> FakeTensor:
        """Return a fake tensor of the same metadata, with a storage of its own."""
        return self.empty(tensor.shape, tensor.stride(), tensor.dtype, tensor.device)

    def empty_like_all(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return fake tensors of the same metadata, which share memory as these do."""
        storages = [tensor.untyped_storage()._cdata for tensor in tensors]
        bases: dict[int, FakeTensor] = {}
        new: list[torch.Tensor] = []
        with no_modes():
            for tensor, storage in zip(tensors, storages, strict=True):
                if storages.count(storage) == 1:
                    new.append(self.empty_like(tensor))
                    continue
                if storage not in bases:
                    nbytes = tensor.untyped_storage().nbytes()
                    bases[storage] = self.empty([nbytes], [1], torch.uint8, tensor.device)
                new.append(self.alias(bases[storage], tensor))
        return new

    def alias(self, tensor: torch.Tensor, like: torch.Tensor) -> FakeTensor:
        """Return a fake tensor in the memory of another, of the metadata of a third."""
        meta = torch.empty(0, dtype=like.dtype, device="meta")
        storage = tensor.untyped_storage()
        meta.set_(storage, like.storage_offset(), like.shape, like.stride())
        return self.make(meta, tensor.device)

    def empty(
        self, shape: Sequence[Any], strides: Sequence[Any], dtype: torch.dtype, device: torch.device
    ) -> FakeTensor:
        """Return a fake tensor of some metadata, with a storage of its own."""
        meta = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
        return self.make(meta, device)

    def _template(
        self, device: torch.device, *, is_parameter: bool
    ) -> tuple[torch.device, dict[str, Any]]:
        with no_modes():  # the template is no tensor of the model
            meta = torch.empty(0, device="meta")
            fake = FakeTensor(self._mode, meta, device, _is_param=is_parameter)
        template = self._templates[device, is_parameter] = fake.fake_device, dict(vars(fake))
        return template
