"""Overrides of torch functions that read tensor values in Python, where fake tensors have none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from graphflops.capture.fake import nested_tensors, packed_sequences
from graphflops.capture.fake.data_sizes import DataSizes
from graphflops.capture.fake.leaves import are_small
from graphflops.capture.fake.sparse_tensors import SparseRules
from graphflops.capture.fake.value_lookup import ValueLookup
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.trees import pytree

SCATTER = (torch.scatter, torch.Tensor.scatter, torch.Tensor.scatter_)
"""Functions that make one-hot rows, if they write ones."""


class _Tracker(ValueLookup, Protocol):
    """Values of fake tensors as Python reads them."""

    @property
    def sizes(self) -> DataSizes: ...

    @property
    def sparse(self) -> SparseRules: ...

    @property
    def max_numel(self) -> int: ...

    def as_literal(self, tensor: torch.Tensor) -> Any: ...

    def as_float(self, tensor: torch.Tensor) -> float: ...

    def as_int(self, tensor: torch.Tensor) -> int: ...

    def assign_bool(self, fake: torch.Tensor, *, value: bool) -> None: ...

    def assign(self, fake: torch.Tensor, value: torch.Tensor) -> None: ...


class TorchFunctionOverrides(TorchFunctionMode):
    """Overrides torch functions that read values of fake tensors in a list, a text or a number."""

    def __init__(self, tracker: _Tracker) -> None:
        super().__init__()
        self._tracker = tracker

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Call a torch function, or its override."""
        override = _OVERRIDES.get(func)
        if override is None:
            return func(*args, **kwargs)
        return override(self, func, *_with_leading_positional(func, args, kwargs))

    def _tensor(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if not isinstance(args[0], torch.Tensor):
            args = (self._to_literals(args[0]), *args[1:])
        return func(*args, **kwargs)

    def _sparse_coo_tensor(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if all(isinstance(arg, FakeTensor) for arg in args) and "size" not in kwargs:
            args = (*args, self._tracker.sparse.size(*args))
        return func(*args, **kwargs)

    def _attention(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if nested_tensors.is_jagged(args[0] if args else None):
            return nested_tensors.attention(self._tracker, *args, **kwargs)
        return func(*args, **kwargs)

    def _pad_packed_sequence(self, _: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        return packed_sequences.pad(self._tracker, *args, **kwargs)

    def _is_finite(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Assume that numbers are finite."""
        out = func(*args, **kwargs)
        if isinstance(args[0], FakeTensor):
            self._tracker.assign_bool(out, value=func is torch.isfinite)
        return out

    def _allocation(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Give integers a value: code that fills them in parts reads none before it is written."""
        out = func(*args, **kwargs)
        is_integer = isinstance(out, FakeTensor) and not out.is_floating_point()
        if is_integer and are_small(out, self._tracker.max_numel):
            with no_modes():
                zeros = torch.empty_strided(out.shape, out.stride(), dtype=out.dtype).zero_()
            self._tracker.assign(out, zeros)
        return out

    def _one_hot(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        if self._tracker.value(args[0]) is None:
            self._tracker.sizes.has_routing = True
        return func(*args, **kwargs)

    def _scatter(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        choices = chosen_classes(args)
        if choices is not None and self._tracker.value(choices[0]) is None:
            self._tracker.sizes.has_routing = True
        return func(*args, **kwargs)

    def _float(self, func: Any, args: Any, _: Mapping[str, Any]) -> Any:
        return self._tracker.as_float(args[0]) if _is_single_float(args[0]) else func(*args)

    def _int(self, func: Any, args: Any, _: Mapping[str, Any]) -> Any:
        return self._tracker.as_int(args[0]) if _is_single(args[0]) else func(*args)

    def _format(self, func: Any, args: Any, _: Mapping[str, Any]) -> Any:
        if args[0].dim():
            return func(*args)
        read = self._tracker.as_float if _is_single_float(args[0]) else self._to_literals
        return format(read(args[0]), args[1])

    def _index(self, func: Any, args: Any, _: Mapping[str, Any]) -> Any:
        is_tuple = isinstance(args[1], tuple)
        index = tuple(map(self._read_list, args[1])) if is_tuple else self._read_list(args[1])
        return func(args[0], index, *args[2:])

    def _to_literals(self, tree: Any) -> Any:
        return pytree.tree_map_only(FakeTensor, self._tracker.as_literal, tree)

    def _read_list(self, index: Any) -> Any:
        """Return an index with the tensors in a list read; an index that is a tensor is kept."""
        return self._to_literals(index) if isinstance(index, list | tuple) else index


def chosen_classes(args: Any) -> tuple[torch.Tensor, Any] | None:
    """Return the indices and the number of classes, if ``scatter`` makes one-hot rows of them."""
    if len(args) != 4 or isinstance(args[3], torch.Tensor) or args[3] != 1:  # noqa: PLR2004 - (input, dim, index, value)
        return None
    return args[2], args[0].shape[args[1]]


def _with_leading_positional(
    func: Any, args: Any, kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of a call, those that an override reads by position."""
    rest = dict(kwargs)
    for name in _LEADING.get(func, ())[len(args) :]:
        if name not in rest:
            break
        args = (*args, rest.pop(name))
    return args, rest


def _is_single_float(value: Any) -> bool:
    """Return True for a fake tensor of one floating-point number."""
    return _is_single(value) and value.is_floating_point()


def _is_single(value: object) -> bool:
    """Return True for a fake tensor of one element."""
    return isinstance(value, FakeTensor) and all(size == 1 for size in value.shape)


_ALLOCATIONS = (torch.empty, torch.empty_like, torch.empty_strided, torch.Tensor.new_empty)
_OVERRIDES: dict[Any, Callable[[TorchFunctionOverrides, Any, Any, Mapping[str, Any]], Any]] = {
    torch.tensor: TorchFunctionOverrides._tensor,
    torch.sparse_coo_tensor: TorchFunctionOverrides._sparse_coo_tensor,
    nested_tensors.SDPA: TorchFunctionOverrides._attention,
    packed_sequences.PAD: TorchFunctionOverrides._pad_packed_sequence,
    **dict.fromkeys((torch.isfinite, torch.isnan, torch.isinf), TorchFunctionOverrides._is_finite),
    **dict.fromkeys(_ALLOCATIONS, TorchFunctionOverrides._allocation),
    nn.functional.one_hot: TorchFunctionOverrides._one_hot,
    **dict.fromkeys(SCATTER, TorchFunctionOverrides._scatter),
    torch.Tensor.__float__: TorchFunctionOverrides._float,
    torch.Tensor.__int__: TorchFunctionOverrides._int,
    torch.Tensor.__format__: TorchFunctionOverrides._format,
    torch.Tensor.__getitem__: TorchFunctionOverrides._index,
    torch.Tensor.__setitem__: TorchFunctionOverrides._index,
}
_LEADING: dict[Any, tuple[str, ...]] = {
    torch.tensor: ("data",),
    torch.sparse_coo_tensor: ("indices", "values"),
    nested_tensors.SDPA: ("query", "key", "value"),
    **dict.fromkeys((torch.isfinite, torch.isnan, torch.isinf, nn.functional.one_hot), ("input",)),
    **dict.fromkeys(SCATTER, ("input", "dim", "index", "value")),
}
"""Names of the parameters that an override reads, where they may be given by keyword."""
