"""Where Python reads tensors: in lists, in texts, as numbers. Fake ones show no values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from graphflops.capture.fake import nested, packed

if TYPE_CHECKING:
    from graphflops.capture.fake.constant_propagation import ValueTracker


class Literals(TorchFunctionMode):
    """Where Python reads tensors that stand in a list or a text: fake ones show no values."""

    def __init__(self, known: ValueTracker) -> None:
        super().__init__()
        self._known = known

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        reader = _READERS.get(func)
        if reader is None:
            return func(*args, **(kwargs or {}))
        return reader(self, func, args, kwargs or {})

    def _new(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if not isinstance(args[0], torch.Tensor):
            args = (self._read(args[0]), *args[1:])
        return func(*args, **kwargs)

    def _sparse(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if all(isinstance(arg, FakeTensor) for arg in args) and "size" not in kwargs:
            args = (*args, self._known.sparse.size(*args))
        return func(*args, **kwargs)

    def _attention(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if nested.is_jagged(args[0] if args else None):
            return nested.attention(self._known, *args, **kwargs)
        return func(*args, **kwargs)

    def _padded(self, _: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        return packed.pad(self._known, *args, **kwargs)

    def _finite(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Take numbers to be finite."""
        out = func(*args, **kwargs)
        if isinstance(args[0], FakeTensor):
            self._known.assign_truth(out, whether=func is torch.isfinite)
        return out

    def _one_hot(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if self._known.value(args[0]) is None:
            self._known.sizes.is_routed = True
        return func(*args, **kwargs)

    def _float(self, func: Any, args: Any, _: Mapping[str, Any]) -> Any:
        return self._known.number(args[0]) if _is_number(args[0]) else func(*args)

    def _int(self, func: Any, args: Any, _: Mapping[str, Any]) -> Any:
        return self._known.integer(args[0]) if _is_one(args[0]) else func(*args)

    def _format(self, func: Any, args: Any, _: Mapping[str, Any]) -> Any:
        if args[0].dim():
            return func(*args)
        number = self._known.number if _is_number(args[0]) else self._read
        return format(number(args[0]), args[1])

    def _at(self, func: Any, args: Any, _: Mapping[str, Any]) -> Any:
        several = isinstance(args[1], tuple)
        index = tuple(map(self._listed, args[1])) if several else self._listed(args[1])
        return func(args[0], index, *args[2:])

    def _read(self, tree: Any) -> Any:
        return pytree.tree_map_only(FakeTensor, self._known.literal, tree)

    def _listed(self, index: Any) -> Any:
        """One index of several: a tensor stays what it is, one in a list is read."""
        return self._read(index) if isinstance(index, list | tuple) else index


def _is_number(value: Any) -> bool:
    """Return True for a fake tensor of one floating-point number."""
    return _is_one(value) and value.is_floating_point()


def _is_one(value: object) -> bool:
    """Return True for a fake tensor of one element."""
    return isinstance(value, FakeTensor) and all(size == 1 for size in value.shape)


_READERS: dict[Any, Callable[[Literals, Any, Any, Mapping[str, Any]], Any]] = {
    torch.tensor: Literals._new,
    torch.sparse_coo_tensor: Literals._sparse,
    nested.ATTENTION: Literals._attention,
    packed.PAD: Literals._padded,
    **dict.fromkeys((torch.isfinite, torch.isnan, torch.isinf), Literals._finite),
    nn.functional.one_hot: Literals._one_hot,
    torch.Tensor.__float__: Literals._float,
    torch.Tensor.__int__: Literals._int,
    torch.Tensor.__format__: Literals._format,
    torch.Tensor.__getitem__: Literals._at,
    torch.Tensor.__setitem__: Literals._at,
}
