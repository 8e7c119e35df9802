"""Recipes by which results of an operator on fake tensors are made again.

A recipe holds for all arguments of the same metadata: a result is a new tensor, a view of an
argument, an argument itself, or no tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import NoneType
from typing import Any, NamedTuple

import torch

from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.leaves import storage_address
from graphflops.capture.torch_internals.dispatch import DisableTorchDispatch, dispatch_keys
from graphflops.capture.torch_internals.fake_mode import FakeTensor

_CONSTANT_TYPES = frozenset({int, bool, NoneType})
UNCACHEABLE = object()
"""Recipe of a result that cannot be made again."""


class _Argument(NamedTuple):
    """Result that is an argument.

    Attributes:
        position: Position among the input tensors.
    """

    position: int


class Constant(NamedTuple):
    """Result that is not a tensor."""

    value: Any


class NewTensor(NamedTuple):
    """Result that is a new tensor.

    Attributes:
        offset: Offset in its storage; for a view, from that of the input.
        view_of: Position of the input tensor that it is a view of, or None.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device
    view_of: int | None

    @property
    def nbytes(self) -> int:
        """Size of a storage of its own in bytes."""
        if 0 in self.shape:
            return 0
        pairs = zip(self.shape, self.strides, strict=True)
        return (1 + sum((n - 1) * stride for n, stride in pairs)) * self.dtype.itemsize


class Several(NamedTuple):
    """Result that is a list or tuple."""

    kind: type
    items: tuple[Any, ...]


class ResultRecipes:
    """Reads recipes off results, and makes results by them.

    Args:
        factory: Factory of the fake tensors of a mode.
    """

    def __init__(self, factory: FakeTensorFactory) -> None:
        self._factory = factory
        self._keys: dict[tuple[torch.device, torch.dtype, bool], str] = {}

    def make(self, recipe: Any, inputs: Sequence[torch.Tensor]) -> Any:
        """Return the result of a call with some input tensors."""
        kind = type(recipe)
        if kind is NewTensor:
            return self._make_tensor(recipe, inputs)
        if kind is _Argument:
            return inputs[recipe.position]
        if kind is Several:
            return recipe.kind([self.make(item, inputs) for item in recipe.items])
        return recipe.value

    def read(self, out: Any, inputs: Sequence[FakeTensor]) -> Any:
        """Return the recipe of a result.

        ``UNCACHEABLE`` if it has none, None if this call leaves it ambiguous.
        """
        kind = type(out)
        if kind is FakeTensor:
            return self._read_tensor(out, inputs)
        if isinstance(out, list | tuple):
            return self._read_sequence(out, inputs)
        return Constant(out) if kind in _CONSTANT_TYPES else UNCACHEABLE

    def _make_tensor(self, recipe: NewTensor, inputs: Sequence[torch.Tensor]) -> FakeTensor:
        shape, strides, offset, dtype, device, view_of = recipe
        with DisableTorchDispatch():
            if view_of is None:
                meta = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
            else:
                base = inputs[view_of]
                meta = torch.empty(0, dtype=dtype, device="meta")
                start = base.storage_offset() + offset
                meta.set_(base.untyped_storage(), start, shape, strides)
        return self._factory.make(meta, device)

    def _read_sequence(self, out: Any, inputs: Sequence[FakeTensor]) -> Any:
        items = tuple([self.read(leaf, inputs) for leaf in out])
        if None in items:
            return None
        new_tensors = [item for item in items if type(item) is NewTensor]
        with_storage = [item for item in new_tensors if item.view_of is None]
        storages = {storage_address(leaf) for leaf in out if isinstance(leaf, torch.Tensor)}
        # Results may share a storage with each other.
        is_shared = with_storage and len(storages) < len(new_tensors)
        if is_shared or UNCACHEABLE in items:
            return UNCACHEABLE
        return Several(list if isinstance(out, list) else tuple, items)

    def _read_tensor(self, out: FakeTensor, inputs: Sequence[FakeTensor]) -> Any:
        is_plain = out.layout is torch.strided and not out._has_symbolic_sizes_strides
        same = [i for i, tensor in enumerate(inputs) if tensor is out]
        if not is_plain or out.constant is not None or (out.requires_grad and not same):
            return UNCACHEABLE
        storage = storage_address(out)
        aliases = [i for i, tensor in enumerate(inputs) if storage_address(tensor) == storage]
        if len(same) > 1 or (len(aliases) > 1 and not same):
            return None  # it could be, or be a view of, any of several inputs
        if same:
            return _Argument(same[0])
        start = inputs[aliases[0]].storage_offset() if aliases else 0
        recipe = NewTensor(
            shape=tuple(out.shape),
            strides=out.stride(),
            offset=int(out.storage_offset() - start),
            dtype=out.dtype,
            device=out.fake_device,
            view_of=aliases[0] if aliases else None,
        )
        is_alike = dispatch_keys(out) == self._keys_of(recipe, inputs)
        fills_storage = aliases or (
            recipe.offset == 0 and out.untyped_storage().nbytes() == recipe.nbytes
        )
        return recipe if is_alike and fills_storage else UNCACHEABLE

    def _keys_of(self, recipe: NewTensor, inputs: Sequence[FakeTensor]) -> str:
        """Return the dispatch keys of a tensor that is made by a recipe."""
        kind = recipe.device, recipe.dtype, recipe.view_of is None
        if (keys := self._keys.get(kind)) is None:
            keys = self._keys[kind] = dispatch_keys(self._make_tensor(recipe, inputs))
        return keys


def new_tensors(recipe: NewTensor | Several) -> list[NewTensor]:
    """Return the tensors that a result consists of, none of which is an argument."""
    items = recipe.items if isinstance(recipe, Several) else (recipe,)
    return [item for item in items if isinstance(item, NewTensor)]
