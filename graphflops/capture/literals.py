"""Where Python reads tensors: in lists, in texts, as numbers. Fake ones show no values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from graphflops.capture import nested, packed

if TYPE_CHECKING:
    from graphflops.capture.values import KnownValues

_FINITE = {torch.isfinite, torch.isnan, torch.isinf}
"""A count takes numbers to be finite."""


class Literals(TorchFunctionMode):
    """Where Python reads tensors that stand in a list or a text: fake ones show no values."""

    def __init__(self, known: KnownValues) -> None:
        super().__init__()
        self._known = known

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.tensor and not isinstance(args[0], torch.Tensor):
            args = (self._read(args[0]), *args[1:])
        elif func is torch.sparse_coo_tensor and _is_sizeless(args, kwargs or {}):
            args = (*args, self._known.sparse.size(*args))
        elif func is nested.ATTENTION and nested.is_jagged(args[0] if args else None):
            return nested.attention(self._known, *args, **(kwargs or {}))
        elif func is packed.PAD:
            return packed.pad(self._known, *args, **(kwargs or {}))
        elif func in _FINITE and isinstance(args[0], FakeTensor):
            out = func(*args, **(kwargs or {}))
            self._known.assume(out, whether=func is torch.isfinite)
            return out
        elif func is nn.functional.one_hot and self._known.value(args[0]) is None:
            self._known.sizes.is_routed = True
        elif func is torch.Tensor.__float__ and _is_number(args[0]):
            return self._known.number(args[0])
        elif func is torch.Tensor.__int__ and _is_one(args[0]):
            return self._known.integer(args[0])
        elif func is torch.Tensor.__format__ and not args[0].dim():
            number = self._known.number if _is_number(args[0]) else self._read
            return format(number(args[0]), args[1])
        elif func in {torch.Tensor.__getitem__, torch.Tensor.__setitem__}:
            several = isinstance(args[1], tuple)
            index = tuple(map(self._listed, args[1])) if several else self._listed(args[1])
            args = (args[0], index, *args[2:])
        return func(*args, **(kwargs or {}))

    def _read(self, tree: Any) -> Any:
        return pytree.tree_map_only(FakeTensor, self._known.literal, tree)

    def _listed(self, index: Any) -> Any:
        """One index of several: a tensor stays what it is, one in a list is read."""
        return self._read(index) if isinstance(index, list | tuple) else index


def _is_sizeless(args: Any, kwargs: Mapping[str, Any]) -> bool:
    """Return True for fake indices and values of a sparse tensor without its size."""
    return all(isinstance(arg, FakeTensor) for arg in args) and "size" not in kwargs


def _is_number(value: Any) -> bool:
    """Return True for a fake tensor of one floating-point number."""
    return _is_one(value) and value.is_floating_point()


def _is_one(value: object) -> bool:
    """Return True for a fake tensor of one element."""
    return isinstance(value, FakeTensor) and all(size == 1 for size in value.shape)
