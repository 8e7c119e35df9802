"""Cache of operator results on fake tensors, by the metadata of the arguments.

torch has such a cache, whose lookup takes several times as long. From the second call on it also
returns a new tensor where an operator that is no view operator returned a view of an argument:
``channel_shuffle`` of one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from functools import cache, partial
from types import NoneType
from typing import Any, NamedTuple

import torch

from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.leaves import is_plain, storage_address
from graphflops.capture.fake.meta_kernels import DECLINED, OPERATORS, MetaKernels
from graphflops.capture.fake.symbolic_cache import SymbolicCache
from graphflops.capture.torch_internals.dispatch import DisableTorchDispatch, dispatch_keys
from graphflops.capture.torch_internals.fake_mode import FakeTensor, FakeTensorMode
from graphflops.capture.torch_internals.operators import OpOverload

_MAX_ENTRIES = 100_000
"""Maximum number of cached calls, of all counts of the process."""
_KEY_TYPES = frozenset(
    {int, float, bool, complex, str, NoneType}
    | {torch.dtype, torch.device, torch.layout, torch.memory_format}
)
_CONSTANT_TYPES = frozenset({int, bool, NoneType})
_UNCACHEABLE_TAGS = {
    torch.Tag.data_dependent_output,
    torch.Tag.dynamic_output_shape,
    torch.Tag.inplace_view,
}
_MASK_DTYPES = {torch.bool, torch.uint8, torch.int8}
_FAST = {
    *(torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor, torch.ops.aten.mul.Tensor),
    *(torch.ops.aten.div.Tensor, torch.ops.aten.detach.default),
}
"""Operators whose results torch makes itself, around meta tensors that are not to be fake."""
_LIFT = {torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default}
_UNCACHEABLE = object()


class _Argument(NamedTuple):
    """Result that is an argument.

    Attributes:
        position: Position among the input tensors.
    """

    position: int


class _Constant(NamedTuple):
    """Result that is not a tensor."""

    value: Any


class _NewTensor(NamedTuple):
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


class _Sequence(NamedTuple):
    """Result that is a list or tuple."""

    kind: type
    items: tuple[Any, ...]


_CACHE: dict[tuple[Any, ...], Any] = {}


class DispatchCache:
    """Runs operators on fake tensors of a mode, once for the same metadata.

    Calls with symbolic sizes have a cache of their own; those with sparse tensors or constants are
    left to torch, uncached.

    Args:
        mode: The mode.
        factory: Factory of the mode's tensors.
    """

    def __init__(self, mode: FakeTensorMode, factory: FakeTensorFactory) -> None:
        self._mode, self._factory = mode, factory
        self._dispatch = mode.dispatch
        self._kernels = MetaKernels(mode, factory)
        self._symbolic = SymbolicCache(mode, factory)
        mode.cache_enabled = False

    def run(self, func: Any, types: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator as ``FakeTensorMode.dispatch`` does."""
        if func in OPERATORS and (out := self._kernels.run(func, args, kwargs)) is not DECLINED:
            return out
        if not (_is_cacheable(func) or _indexes_by_integers(func, args)):
            return self._dispatch(func, types, args, kwargs)
        parts: list[Any] = [func, torch.get_default_dtype(), *kwargs]
        inputs: list[FakeTensor] = []
        if not (
            self._extend_key(args, parts, inputs)
            and self._extend_key(kwargs.values(), parts, inputs)
        ):
            compute = partial(self._compute, func, types, args, kwargs, is_alone=not inputs)
            return self._symbolic.run(func, args, kwargs, compute)
        if not _ignores_offsets(func):
            parts += [tensor.storage_offset() for tensor in inputs]
        key = tuple(parts)
        recipe = _CACHE.get(key)
        if recipe is not None and recipe is not _UNCACHEABLE:
            return self._rebuild(recipe, inputs)
        out = self._compute(func, types, args, kwargs, is_alone=not inputs)
        if recipe is None:
            self._store(key, out, inputs)
        return out

    def _compute(
        self, func: Any, types: Any, args: Any, kwargs: Mapping[str, Any], *, is_alone: bool
    ) -> Any:
        """Run an operator torch's way.

        A decomposition's calls reach the mode where it is active. Elsewhere torch looks for one
        at the tensors, and for ``DTensor`` among their classes, which imports it with its package.
        An operator alone has no tensor to find a mode at.
        """
        with nullcontext() if is_alone or func in _FAST else self._mode:
            return self._mode._dispatch_impl(func, types, args, kwargs)

    def _extend_key(
        self, values: Iterable[Any], parts: list[Any], inputs: list[FakeTensor]
    ) -> bool:
        """Add the metadata of values to a key; return False if results may depend on more."""
        for value in values:
            kind = type(value)
            if kind is FakeTensor:
                inputs.append(value)
                if not is_plain(value, self._mode):
                    return False
                parts += (value.shape, value.stride(), value.dtype)
                parts += (value.fake_device, value.requires_grad)
            elif kind in _KEY_TYPES:
                parts += (kind, value)  # 1 and 1.0 are equal
            elif kind is list or kind is tuple:
                parts.append(len(value))
                if not self._extend_key(value, parts, inputs):
                    return False
            else:
                return False
        return True

    def _rebuild(self, recipe: Any, inputs: list[FakeTensor]) -> Any:
        """Return the result of a cached call."""
        kind = type(recipe)
        if kind is _Argument:
            return inputs[recipe.position]
        if kind is _Constant:
            return recipe.value
        if kind is _Sequence:
            return recipe.kind([self._rebuild(item, inputs) for item in recipe.items])
        shape, strides, offset, dtype, device, view_of = recipe
        with DisableTorchDispatch():
            if view_of is None:
                meta = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
            else:
                base = inputs[view_of]
                meta = torch.empty(0, dtype=dtype, device="meta")
                offset += base.storage_offset()
                meta.set_(base.untyped_storage(), offset, shape, strides)
        return self._factory.make(meta, device)

    def _store(self, key: tuple[Any, ...], out: Any, inputs: list[FakeTensor]) -> None:
        """Cache the result of a call, if the key determines it."""
        if (recipe := self._recipe(out, inputs)) is None:
            return
        if len(_CACHE) >= _MAX_ENTRIES:
            _CACHE.clear()
        _CACHE[key] = recipe

    def _recipe(self, out: Any, inputs: list[FakeTensor]) -> Any:
        """Return the recipe to rebuild a result, or None if this call leaves it ambiguous."""
        kind = type(out)
        if kind is FakeTensor:
            return self._tensor_recipe(out, inputs)
        if isinstance(out, list | tuple):
            return self._sequence_recipe(out, inputs)
        return _Constant(out) if kind in _CONSTANT_TYPES else _UNCACHEABLE

    def _sequence_recipe(self, out: Any, inputs: list[FakeTensor]) -> Any:
        items = tuple([self._recipe(leaf, inputs) for leaf in out])
        if None in items:
            return None
        new_tensors = [item for item in items if type(item) is _NewTensor]
        with_storage = [item for item in new_tensors if item.view_of is None]
        storages = {storage_address(leaf) for leaf in out if isinstance(leaf, torch.Tensor)}
        # Results may share a storage with each other.
        is_shared = with_storage and len(storages) < len(new_tensors)
        if is_shared or _UNCACHEABLE in items:
            return _UNCACHEABLE
        return _Sequence(list if isinstance(out, list) else tuple, items)

    def _tensor_recipe(self, out: Any, inputs: list[FakeTensor]) -> Any:
        is_plain = out.layout is torch.strided and not out._has_symbolic_sizes_strides
        if not is_plain or out.constant is not None or out.requires_grad:
            return _UNCACHEABLE
        storage = storage_address(out)
        same = [i for i, tensor in enumerate(inputs) if tensor is out]
        aliases = [i for i, tensor in enumerate(inputs) if storage_address(tensor) == storage]
        if len(same) > 1 or (len(aliases) > 1 and not same):
            return None  # it could be, or be a view of, any of several inputs
        if same:
            return _Argument(same[0])
        recipe = _NewTensor(
            shape=tuple(out.shape),
            strides=out.stride(),
            offset=out.storage_offset() - (inputs[aliases[0]].storage_offset() if aliases else 0),
            dtype=out.dtype,
            device=out.fake_device,
            view_of=aliases[0] if aliases else None,
        )
        rebuilt = self._rebuild(recipe, inputs)
        is_equal = (
            dispatch_keys(rebuilt) == dispatch_keys(out)
            and rebuilt.storage_offset() == out.storage_offset()
            and rebuilt.untyped_storage().nbytes() == out.untyped_storage().nbytes()
        )
        return recipe if is_equal else _UNCACHEABLE


@cache
def _is_cacheable(func: Any) -> bool:
    """Return True for an operator whose results depend on metadata alone."""
    return (
        isinstance(func, OpOverload)
        and func.namespace in {"aten", "prims"}
        and _UNCACHEABLE_TAGS.isdisjoint(func.tags)
        and func not in _LIFT
    )


@cache
def _ignores_offsets(func: Any) -> bool:
    """Return True for an operator that makes tensors, wherever in memory its arguments lie."""
    returns = func._schema.returns
    makes_tensors = all(isinstance(result.type, torch.TensorType) for result in returns)
    return not func.is_view and makes_tensors and "as_strided" not in func._opname


def _indexes_by_integers(func: Any, args: Any) -> bool:
    """Return True for ``index`` with integer indices, whose result has a size for each index."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    return not any(index is not None and index.dtype in _MASK_DTYPES for index in args[1])
