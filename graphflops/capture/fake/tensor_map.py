"""Mapping from tensors, by identity, that keeps none of them alive."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar
from weakref import ref

import torch

_Value = TypeVar("_Value")


class _Entry(ref[torch.Tensor]):
    """Weak reference to a tensor, with what it is mapped to."""

    __slots__ = ("key", "value")
    key: int
    value: Any
    # A reference compares by its tensor, which an entry outlives.
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class TensorMap(Generic[_Value]):
    """Mapping from tensors by identity; an entry goes with its tensor.

    ``WeakIdKeyDictionary`` of torch makes a reference for each look, and takes ten times as long.

    Attributes:
        entries: The entries, by the identity of their tensors.
    """

    def __init__(self) -> None:
        self.entries: dict[int, _Entry] = {}

    def get(self, tensor: torch.Tensor) -> _Value | None:
        """Return what a tensor is mapped to, or None."""
        entry = self.entries.get(id(tensor))
        return None if entry is None else entry.value

    def __setitem__(self, tensor: torch.Tensor, value: _Value) -> None:
        """Map a tensor to a value."""
        key = id(tensor)
        entry = self.entries.get(key)
        if entry is None:
            entry = self.entries[key] = _Entry(tensor, self._forget)
            entry.key = key
        entry.value = value

    def discard(self, tensor: torch.Tensor) -> None:
        """Remove a tensor, if it is there."""
        self.entries.pop(id(tensor), None)

    def __contains__(self, tensor: torch.Tensor) -> bool:
        """Return True if a tensor is mapped to a value."""
        return id(tensor) in self.entries

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self.entries)

    def __iter__(self) -> Iterator[torch.Tensor]:
        """Yield the tensors."""
        for entry in list(self.entries.values()):
            if (tensor := entry()) is not None:
                yield tensor

    def _forget(self, entry: ref[torch.Tensor]) -> None:
        key = entry.key  # type: ignore[attr-defined]  # an _Entry
        if self.entries.get(key) is entry:
            del self.entries[key]
