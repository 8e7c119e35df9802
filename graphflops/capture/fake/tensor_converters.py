"""Conversion of the tensors of a model and its inputs to fake and meta tensors."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from graphflops.capture.fake import nested_tensors
from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.known_values import MAX_VALUE_NUMEL
from graphflops.capture.fake.sparse_tensors import is_sparse
from graphflops.capture.fake.symbolic_shapes import Size, Specs, symbolic_shape
from graphflops.capture.torch_internals.fake_mode import FakeTensor, FakeTensorMode
from graphflops.errors import ModelSpecError

CPU = torch.device("cpu")
_PLAIN_CLASSES = frozenset({torch.Tensor, nn.Parameter, nn.Buffer})
"""Tensor classes without behavior of their own."""


class ModelTensorConverter:
    """Converts the tensors of a model to fake tensors.

    A meta tensor becomes one on the CPU: there, tensors that the model's code makes of numbers have
    values, and those that it puts on the CPU by mistake do no harm. Tensors that share a storage
    share one as fake tensors.

    Args:
        tracker: Mode of the fake tensors, and their values.
    """

    def __init__(self, tracker: ValueTracker) -> None:
        self._tracker = tracker
        # By the identity of the original storage: a tensor over its meta copy, and its values.
        self._meta_storages: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}

    def convert_weight(self, tensor: torch.Tensor, meta_device: torch.device = CPU) -> torch.Tensor:
        """Return a fake parameter or buffer; small integer buffers keep their values.

        Strides and paddings that a module holds as a buffer decide sizes.

        Args:
            tensor: The parameter or buffer.
            meta_device: Device of the fake tensor of a meta tensor.
        """
        if type(tensor) not in _PLAIN_CLASSES or not _is_dense(tensor):
            return self._from_tensor(tensor)
        is_parameter = type(tensor) is nn.Parameter
        fake = self._fakify(tensor, is_parameter=is_parameter, meta_device=meta_device)
        if not (is_parameter or tensor.is_floating_point()):
            self._assign_value(fake, tensor)
        return fake

    def convert_attribute(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the fake tensor of an attribute, with its value if it is small."""
        if type(tensor) not in _PLAIN_CLASSES or not _is_dense(tensor):
            return self._from_tensor(tensor)
        fake = self._fakify(tensor, is_parameter=type(tensor) is nn.Parameter)
        self._assign_value(fake, tensor)
        return fake

    def _from_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the fake tensor of a tensor subclass or special layout, as torch makes it."""
        if tensor.is_nested:
            return nested_tensors.fakify(tensor, self.convert_attribute, self._tracker.mode)
        fake: torch.Tensor
        if is_sparse(tensor):
            fake = self._tracker.sparse.fake(tensor, CPU if tensor.is_meta else tensor.device)
            vars(fake)["_is_param"] = isinstance(tensor, nn.Parameter)
            return fake.requires_grad_(tensor.requires_grad)
        self._tracker.num_ranks = max(self._tracker.num_ranks, _num_ranks(tensor))
        fake = self._tracker.mode.from_tensor(tensor, static_shapes=True)
        return fake

    def _fakify(
        self, tensor: torch.Tensor, *, is_parameter: bool, meta_device: torch.device = CPU
    ) -> torch.Tensor:
        return self._tracker.factory.make(
            self._to_meta(tensor),
            meta_device if tensor.is_meta else tensor.device,
            is_parameter=is_parameter,
            requires_grad=tensor.requires_grad,
        )

    def _to_meta(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a meta tensor with the same view of a storage as this tensor."""
        storage, shape, strides = tensor.untyped_storage(), tensor.shape, tensor.stride()
        whole = self._meta_storages.get(storage._cdata)
        if whole is None:
            meta = torch.empty_strided(shape, strides, dtype=tensor.dtype, device="meta")
            if storage.nbytes() == tensor.nbytes and not tensor.storage_offset():
                self._meta_storages[storage._cdata] = meta
                return meta
            whole = torch.empty(storage.nbytes(), dtype=torch.uint8, device="meta")
            self._meta_storages[storage._cdata] = whole
        meta = torch.empty(0, dtype=tensor.dtype, device="meta")
        return meta.set_(whole.untyped_storage(), tensor.storage_offset(), shape, strides)

    def _assign_value(self, fake: torch.Tensor, tensor: torch.Tensor) -> None:
        if tensor.is_meta or tensor.numel() > MAX_VALUE_NUMEL:
            return
        storage = tensor.untyped_storage()
        if storage.nbytes() > MAX_VALUE_NUMEL * tensor.element_size():
            self._tracker.assign(fake, tensor.detach().clone())
            return
        if storage._cdata not in self._values:
            whole = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            numel = storage.nbytes() // tensor.element_size()
            whole.set_(storage, 0, (numel,), (1,))
            self._values[storage._cdata] = whole.clone()
        geometry = tensor.shape, tensor.stride(), tensor.storage_offset()
        value = self._values[storage._cdata].view(tensor.dtype).as_strided(*geometry)
        self._tracker.assign(fake, value)


def _num_ranks(tensor: torch.Tensor) -> int:
    """Return the number of ranks over which a tensor is distributed; 1 for plain tensors."""
    distributed: Any = sys.modules.get("torch.distributed.tensor")
    if distributed is None or not isinstance(tensor, distributed.DTensor):
        return 1
    dtensor: Any = tensor
    num_ranks: int = dtensor.device_mesh.size()
    return num_ranks


def _is_dense(tensor: torch.Tensor) -> bool:
    """Return True for a strided autograd leaf that is not lazily conjugated or negated."""
    return (
        tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_quantized
        and tensor.is_leaf
        and not (tensor.is_conj() or tensor.is_neg())
    )


class MetaTensorConverter:
    """Converts the tensors of a model and its inputs to meta tensors."""

    def convert_weight(self, tensor: torch.Tensor, _: torch.device = CPU) -> torch.Tensor:
        """Return the meta tensor of a parameter or buffer."""
        return self.convert(tensor)

    def convert_attribute(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the meta tensor of an attribute."""
        return self.convert(tensor)

    def convert(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a meta tensor of the same class."""
        if is_sparse(tensor) or tensor.is_nested:
            return tensor.to("meta")
        meta = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(meta, requires_grad=tensor.requires_grad)
        return meta.requires_grad_(tensor.requires_grad)


class InputTensorConverter:
    """Converts inputs to fake tensors on the model's device; small ones keep their values.

    Args:
        tracker: Mode of the fake tensors, and their values.
        device: Device of the model.
        specs: Symbolic axes of the inputs; an input with such axes has no values.
    """

    def __init__(self, tracker: ValueTracker, device: torch.device, specs: Specs) -> None:
        self._tracker, self._device, self._specs = tracker, device, specs

    def convert(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the fake tensor of an input, with the same ``requires_grad``."""
        return self._fakify(tensor).requires_grad_(tensor.requires_grad)

    def _fakify(self, tensor: torch.Tensor) -> torch.Tensor:
        mode, device = self._tracker.mode, self._device
        if tensor.is_nested or is_sparse(tensor):
            return self._fakify_sparse_or_nested(tensor)
        if id(tensor) in self._specs:
            shape = symbolic_shape(self._tracker.symbols, tensor, self._specs[id(tensor)])
            fake = _symbolic(tensor, shape, mode, device)
            if _has_values(tensor):
                # A mask of ones is a mask of ones at any size.
                self._tracker.elements.assign_ones(fake, tensor)
            return fake
        if _has_values(tensor):
            return self._tracker.fake_input_with_value(tensor, device)
        with mode:
            return torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device
            )

    def _fakify_sparse_or_nested(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the fake tensor of a sparse or nested input."""
        if id(tensor) in self._specs:
            raise ModelSpecError(
                "dynamic_shapes names axes of a sparse or nested input: how much it stores is a "
                "number. Leave it out of the symbolic ones."
            )
        if not tensor.is_nested:
            return self._tracker.sparse.fake(tensor, self._device)
        return nested_tensors.fakify(tensor, self._fakify, self._tracker.mode)


def _symbolic(
    tensor: torch.Tensor, shape: Sequence[Size], mode: FakeTensorMode, device: torch.device
) -> torch.Tensor:
    """Return a fake tensor of a symbolic shape, with axes in the same memory order."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    with mode:
        dense = torch.empty([shape[axis] for axis in order], dtype=tensor.dtype, device=device)
        return dense.permute([order.index(axis) for axis in range(tensor.dim())])


def _has_values(tensor: torch.Tensor) -> bool:
    return (
        not (tensor.is_meta or isinstance(tensor, FakeTensor)) and tensor.numel() <= MAX_VALUE_NUMEL
    )


def device_of(parameter: torch.Tensor | None, inputs: Sequence[Any]) -> torch.device:
    """Return the device of a model's fake tensors: the CPU for a model on meta.

    Args:
        parameter: One of the model's parameters or buffers, if it has any.
        inputs: Leaves of the inputs, whose device is used if it has none.
    """
    first = _first_tensor(parameter, inputs)
    if first is None or (parameter is not None and parameter.is_meta):
        return CPU
    return first.device


def is_on_meta(parameter: torch.Tensor | None, inputs: Sequence[Any]) -> bool:
    """Return True if a model is on the meta device.

    Args:
        parameter: One of the model's parameters or buffers, if it has any.
        inputs: Leaves of the inputs, whose device is used if it has none.
    """
    first = _first_tensor(parameter, inputs)
    return first is not None and first.is_meta


def _first_tensor(parameter: torch.Tensor | None, inputs: Sequence[Any]) -> torch.Tensor | None:
    if parameter is not None:
        return parameter
    return next((leaf for leaf in inputs if isinstance(leaf, torch.Tensor)), None)
