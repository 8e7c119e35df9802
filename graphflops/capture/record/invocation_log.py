"""Log of the invocations of a capture, which does not keep their tensors alive.

An operator without a handler is run again, to price what it decomposes into: on tensors of the
same metadata, and of the same known values.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.record.invocation import Invocation
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.trees import pytree

_ATOMS = frozenset({int, float, bool, str, type(None), torch.dtype, torch.device, torch.SymInt})


class _Layout(NamedTuple):
    """Metadata of a fake tensor, and its value if that is known."""

    shape: tuple[Any, ...]
    strides: tuple[Any, ...]
    dtype: torch.dtype
    device: torch.device
    value: torch.Tensor | None


class InvocationLog:
    """Invocations by the number of the call.

    Args:
        values: Tracker of the values of the fake tensors.
    """

    def __init__(self, values: ValueTracker) -> None:
        self._values = values
        self._invocations: dict[int, Invocation] = {}

    def add(self, index: int, description: Invocation) -> None:
        """Add the description of the invocation of a call."""
        self._invocations[index] = description

    def describe(self, invocation: Invocation) -> Invocation:
        """Return an invocation with descriptions of its tensors in their place."""
        target, args, kwargs, result = invocation
        return Invocation(
            target, self._describe(args), self._describe(kwargs), self._describe(result)
        )

    def remove(self, index: int) -> None:
        """Remove the invocation of a call that is taken off the tape."""
        del self._invocations[index]

    def invocation(self, index: int) -> Invocation:
        """Return the invocation of a call, on tensors like its own."""
        target, *trees = self._invocations[index]
        return Invocation(target, *(self._restore(tree) for tree in trees))

    def _describe(self, value: Any) -> Any:
        """Return a value with descriptions of its tensors in their place."""
        kind = type(value)
        if kind in _ATOMS:
            return value
        if kind is FakeTensor:
            return self._layout(value)
        if kind is tuple or kind is list:
            return kind([self._describe(item) for item in value])
        if kind is dict:
            return {key: self._describe(item) for key, item in value.items()}
        return value

    def _layout(self, tensor: FakeTensor) -> Any:
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
            return tensor
        # Values of floating-point tensors decide no shapes.
        value = None if tensor.dtype.is_floating_point else self._values.value(tensor)
        return _Layout(tensor.shape, tensor.stride(), tensor.dtype, tensor.device, value)

    def _restore(self, tree: Any) -> Any:
        return pytree.tree_map(self._tensor, tree, is_leaf=lambda leaf: isinstance(leaf, _Layout))

    def _tensor(self, leaf: Any) -> Any:
        if not isinstance(leaf, _Layout):
            return leaf
        with no_modes():
            tensor = self._values.factory.empty(*leaf[:-1])
        if leaf.value is not None:
            self._values.assign(tensor, leaf.value)
        return tensor
