"""Fake tensors for the nodes of an FX graph, from recorded metadata."""

from __future__ import annotations

from typing import Any

import torch

from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.symbolic_shapes import SymbolicShapes
from graphflops.capture.fake.tensor_map import TensorMap
from graphflops.capture.torch_internals.fake_mode import FakeTensorMode
from graphflops.core.cost import Dim
from graphflops.core.ir import TensorMeta

_SAMPLE = 64
"""Sample of a symbolic size; no branch is taken by it."""


class RecordedMasks:
    """Masked elements and sequence offsets of fake tensors, as the capture has recorded them."""

    def __init__(self) -> None:
        self.elements: TensorMap[TensorMeta] = TensorMap()
        self._arguments: TensorMap[TensorMeta] = TensorMap()

    def record_result(self, tensor: torch.Tensor, meta: TensorMeta) -> None:
        """Record what the call that returns a tensor tells of it."""
        if meta.masked_elements is not None:
            self.elements[tensor] = self._arguments[tensor] = meta

    def record_argument(self, tensor: torch.Tensor, meta: TensorMeta) -> None:
        """Record what a call that takes a tensor tells of it, which may be more."""
        if meta.masked_elements is not None or meta.known_values is not None:
            self._arguments[tensor] = meta

    def masked_elements(self, tensor: torch.Tensor) -> Dim | None:
        """Return the number of masked elements of a tensor, if it is known."""
        meta = self._arguments.get(tensor)
        return None if meta is None else meta.masked_elements

    def sequence_starts(self, tensor: torch.Tensor) -> tuple[int, ...] | None:
        """Return the offsets of packed sequences, if they are known."""
        meta = self._arguments.get(tensor)
        return None if meta is None else meta.known_values


class FakeValues:
    """Fake tensors of one mode; tensors in one storage share one here too.

    Attributes:
        masks: What is known of the values of masks among them.

    Args:
        device: Device of the tensors.
    """

    def __init__(self, device: torch.device) -> None:
        shapes = SymbolicShapes()
        mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=shapes)
        # A count of the graph asks the mode what masks hide.
        self.masks = vars(mode)["recorded_masks"] = RecordedMasks()
        self._factory = FakeTensorFactory(mode)
        self._symbols = shapes.symbols
        self._device = device
        self._storages: dict[str, Any] = {}

    def value(self, meta: TensorMeta, storage: str) -> torch.Tensor:
        """Return a fake tensor.

        Args:
            meta: Its metadata.
            storage: Name of the storage that it lies in.
        """
        tensor = self._factory.make(self._meta_tensor(meta, storage), self._device)
        self.masks.record_result(tensor, meta)
        return tensor

    def size(self, value: Any) -> int | torch.SymInt:
        """Return an expression in symbolic sizes as torch's; a number as it is."""
        if isinstance(value, int):
            return value
        for symbol in getattr(value, "free_symbols", ()):
            self._symbols.size(symbol.name, _SAMPLE)
        return self._symbols.expression(value)

    def _sizes(self, sizes: tuple[Dim, ...]) -> tuple[int | torch.SymInt, ...]:
        return tuple([size if type(size) is int else self.size(size) for size in sizes])

    def _meta_tensor(self, meta: TensorMeta, storage: str) -> torch.Tensor:
        dtype = getattr(torch, meta.dtype)
        shape = self._sizes(meta.shape)
        if meta.strides is None:  # sparse or nested
            return torch.empty(shape, dtype=dtype, device="meta")
        strides = self._sizes(meta.strides)
        if storage not in self._storages:
            tensor = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
            self._storages[storage] = tensor.untyped_storage()
            return tensor
        view = torch.empty(0, dtype=dtype, device="meta")
        return view.set_(self._storages[storage], 0, shape, strides)
