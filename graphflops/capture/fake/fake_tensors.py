"""Fake tensors for those of a model and its inputs: as much like them as metadata can be."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from graphflops.capture.fake import nested
from graphflops.capture.fake.constant_propagation import LARGEST, ValueTracker
from graphflops.capture.fake.sparse import is_sparse
from graphflops.capture.fake.symbolic_shapes import Size, Specs, symbolic_shape
from graphflops.errors import ModelSpecError

CPU = torch.device("cpu")
USUAL = frozenset({torch.Tensor, nn.Parameter, nn.Buffer})
"""Classes of tensors that are nothing but tensors."""


class FakeTensors:
    """Makes a fake tensor for each tensor of a model.

    A tensor on meta becomes one on the CPU: what the model's code makes of numbers has a value
    there, and what its code puts on the CPU by mistake does no harm. Tensors that share memory
    do so as fakes.

    Args:
        known: The mode of the fake tensors, with what it knows of values.
    """

    def __init__(self, known: ValueTracker) -> None:
        self._known = known
        # By the identity of the memory: a tensor that is all of it on meta, and what is known.
        self._memory: dict[int, torch.Tensor] = {}
        self._values: dict[int, torch.Tensor] = {}

    def weight(self, tensor: torch.Tensor, of_meta: torch.device = CPU) -> torch.Tensor:
        """Return a fake parameter or buffer; values of whole numbers are known, if they are few.

        Strides and paddings that a module holds as a buffer decide sizes.

        Args:
            tensor: The parameter or buffer.
            of_meta: Where one stands that is on meta.
        """
        if type(tensor) not in USUAL or not _is_dense(tensor):
            return self._converted(tensor)
        is_parameter = type(tensor) is nn.Parameter
        fake = self._fake(tensor, is_parameter=is_parameter, of_meta=of_meta)
        if not (is_parameter or tensor.is_floating_point()):
            self._know(fake, tensor)
        return fake

    def plain(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a fake tensor for one that is an attribute, with its value if it is small."""
        if type(tensor) not in USUAL or not _is_dense(tensor):
            return self._converted(tensor)
        fake = self._fake(tensor, is_parameter=type(tensor) is nn.Parameter)
        self._know(fake, tensor)
        return fake

    def _converted(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a fake tensor of an unusual class or layout, as torch makes it."""
        if tensor.is_nested:
            return nested.like(tensor, self.plain, self._known.mode)
        fake: torch.Tensor
        if is_sparse(tensor):
            fake = self._known.sparse.fake(tensor, CPU if tensor.is_meta else tensor.device)
            vars(fake)["_is_param"] = isinstance(tensor, nn.Parameter)
            return fake.requires_grad_(tensor.requires_grad)
        self._known.ranks = max(self._known.ranks, _ranks(tensor))
        fake = self._known.mode.from_tensor(tensor, static_shapes=True)
        return fake

    def _fake(
        self, tensor: torch.Tensor, *, is_parameter: bool, of_meta: torch.device = CPU
    ) -> torch.Tensor:
        return self._known.fakes.make(
            self._on_meta(tensor),
            of_meta if tensor.is_meta else tensor.device,
            is_parameter=is_parameter,
            requires_grad=tensor.requires_grad,
        )

    def _on_meta(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor on meta that lies in memory as this one does."""
        memory, shape, strides = tensor.untyped_storage(), tensor.shape, tensor.stride()
        whole = self._memory.get(memory._cdata)
        if whole is None:
            like = torch.empty_strided(shape, strides, dtype=tensor.dtype, device="meta")
            if memory.nbytes() == tensor.nbytes and not tensor.storage_offset():
                self._memory[memory._cdata] = like
                return like
            whole = torch.empty(memory.nbytes(), dtype=torch.uint8, device="meta")
            self._memory[memory._cdata] = whole
        like = torch.empty(0, dtype=tensor.dtype, device="meta")
        return like.set_(whole.untyped_storage(), tensor.storage_offset(), shape, strides)

    def _know(self, fake: torch.Tensor, tensor: torch.Tensor) -> None:
        if tensor.is_meta or tensor.numel() > LARGEST:
            return
        memory = tensor.untyped_storage()
        if memory.nbytes() > LARGEST * tensor.element_size():
            self._known.assign(fake, tensor.detach().clone())
            return
        if memory._cdata not in self._values:
            whole = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
            count = memory.nbytes() // tensor.element_size()
            whole.set_(memory, 0, (count,), (1,))
            self._values[memory._cdata] = whole.clone()
        place = tensor.shape, tensor.stride(), tensor.storage_offset()
        value = self._values[memory._cdata].view(tensor.dtype).as_strided(*place)
        self._known.assign(fake, value)


def _ranks(tensor: torch.Tensor) -> int:
    """Return over how many ranks a tensor is distributed: 1 for most."""
    distributed: Any = sys.modules.get("torch.distributed.tensor")
    if distributed is None or not isinstance(tensor, distributed.DTensor):
        return 1
    found: Any = tensor
    ranks: int = found.device_mesh.size()
    return ranks


def _is_dense(tensor: torch.Tensor) -> bool:
    """Return True for a tensor that has strides, and no history."""
    return (
        tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_quantized
        and tensor.is_leaf
        and not (tensor.is_conj() or tensor.is_neg())
    )


class MetaTensors:
    """Makes a tensor on meta for each tensor of a model and its inputs."""

    def weight(self, tensor: torch.Tensor, _: torch.device = CPU) -> torch.Tensor:
        """Return a parameter or buffer on meta."""
        return self.of(tensor)

    def plain(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor on meta for one that is an attribute."""
        return self.of(tensor)

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a tensor on meta of the same class."""
        if is_sparse(tensor) or tensor.is_nested:
            return tensor.to("meta")
        like = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        if isinstance(tensor, nn.Parameter):
            return nn.Parameter(like, requires_grad=tensor.requires_grad)
        return like.requires_grad_(tensor.requires_grad)


class InputTensors:
    """Makes a fake tensor on the model's device for each input; small ones keep their values.

    Args:
        known: The mode of the fake tensors.
        device: Where the model computes.
        specs: Axes that are to be symbolic; such a tensor has no values.
    """

    def __init__(self, known: ValueTracker, device: torch.device, specs: Specs) -> None:
        self._known, self._device, self._specs = known, device, specs

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the fake tensor of an input; it asks for a gradient where the input does."""
        return self._fake(tensor).requires_grad_(tensor.requires_grad)

    def _fake(self, tensor: torch.Tensor) -> torch.Tensor:
        mode, device = self._known.mode, self._device
        if tensor.is_nested or is_sparse(tensor):
            return self._stored(tensor)
        if id(tensor) in self._specs:
            shape = symbolic_shape(self._known.symbols, tensor, self._specs[id(tensor)])
            fake = _symbolic(tensor, shape, mode, device)
            if _has_values(tensor):
                # A mask of ones is one at any size.
                self._known.elements.assign_ones(fake, tensor)
            return fake
        if _has_values(tensor):
            return self._known.fake_input_with_value(tensor, device)
        with mode:
            return torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device
            )

    def _stored(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the fake tensor of one that stores fewer elements than its shape has."""
        if id(tensor) in self._specs:
            raise ModelSpecError(
                "dynamic_shapes names axes of a sparse or nested input: how much it stores is a "
                "number. Leave it out of the symbolic ones."
            )
        if not tensor.is_nested:
            return self._known.sparse.fake(tensor, self._device)
        return nested.like(tensor, self._fake, self._known.mode)


def _symbolic(
    tensor: torch.Tensor, shape: Sequence[Size], mode: FakeTensorMode, device: torch.device
) -> torch.Tensor:
    """Return a fake tensor of a symbolic shape whose axes lie in memory in the same order."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    with mode:
        dense = torch.empty([shape[axis] for axis in order], dtype=tensor.dtype, device=device)
        return dense.permute([order.index(axis) for axis in range(tensor.dim())])


def _has_values(tensor: torch.Tensor) -> bool:
    return not (tensor.is_meta or isinstance(tensor, FakeTensor)) and tensor.numel() <= LARGEST


def device_of(parameter: torch.Tensor | None, inputs: Sequence[Any]) -> torch.device:
    """Return where a model computes: off meta, where fake tensors are.

    Args:
        parameter: One of its parameters or buffers.
        inputs: Its inputs, which decide if it has none.
    """
    given = (leaf for leaf in inputs if isinstance(leaf, torch.Tensor))
    first = next(given, None) if parameter is None else parameter
    if first is None or (parameter is not None and parameter.is_meta):
        return CPU
    return first.device
