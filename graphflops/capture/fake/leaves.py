"""Tensor leaves of operator arguments and results."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from graphflops.capture.torch_internals.fake_mode import FakeTensor, FakeTensorMode
from graphflops.capture.torch_internals.trees import pytree

_NON_TENSORS = {int, float, bool, str, type(None), torch.dtype, torch.device}


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """Return the tensors of a pytree, in order."""
    if type(tree) is FakeTensor:  # nearly all results are
        return [tree]
    tensors: list[torch.Tensor] = []
    _collect(tree, tensors)
    return tensors


def _collect(tree: Any, tensors: list[torch.Tensor]) -> None:
    kind = type(tree)
    if kind is FakeTensor:
        tensors.append(tree)
    elif kind is tuple or kind is list:  # nearly all arguments are; pytree is slower
        for item in tree:
            _collect(item, tensors)
    elif kind is dict:
        for item in tree.values():
            _collect(item, tensors)
    elif kind in _NON_TENSORS:
        return
    elif isinstance(tree, torch.Tensor):
        tensors.append(tree)
    else:
        leaves = pytree.tree_leaves(tree)
        tensors += [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Map a function over the leaves of a pytree; lists, tuples and dicts are quick."""
    kind = type(tree)
    if kind is tuple or kind is list:
        return kind([map_leaves(function, item) for item in tree])
    if kind is dict:
        return {key: map_leaves(function, item) for key, item in tree.items()}
    if kind is FakeTensor or kind in _NON_TENSORS:
        return function(tree)
    return pytree.tree_map(function, tree)


def fakes_in(tree: Any) -> list[FakeTensor]:
    """Return the fake tensors of a pytree."""
    return [tensor for tensor in tensors_in(tree) if isinstance(tensor, FakeTensor)]


def is_real(leaf: Any) -> bool:
    """Return True for a dense tensor with memory, neither fake nor a wrapper of others."""
    if not isinstance(leaf, torch.Tensor):
        return False
    is_wrapper = type(leaf).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    return not (is_wrapper or leaf.is_meta) and leaf.layout is torch.strided


def is_plain(fake: FakeTensor, mode: FakeTensorMode, *, symbolic: bool = False) -> bool:
    """Return True for a dense tensor of a mode that torch keeps no value of.

    Args:
        fake: The tensor.
        mode: The mode.
        symbolic: True to allow symbolic sizes.
    """
    return (
        fake.fake_mode is mode
        and fake.constant is None
        and (symbolic or not fake._has_symbolic_sizes_strides)
        and fake.layout is torch.strided
        and not fake.is_conj()
        and not fake.is_neg()
    )


def size_key(value: int | torch.SymInt) -> Any:
    """Return a key of a size: a comparison of symbolic sizes themselves would add a guard."""
    return value.node.expr if isinstance(value, torch.SymInt) else value


def storage_address(tensor: torch.Tensor) -> int:
    """Return the address of a tensor's storage, unique while it is alive."""
    address: int = tensor.untyped_storage()._cdata
    return address


def storage_ref(value: torch.Tensor) -> StorageWeakRef:
    """Return a weak reference to a tensor's storage, hashable by its identity."""
    return StorageWeakRef(value.untyped_storage())  # type: ignore[no-untyped-call]  # torch's gap


def are_small(tree: Any, max_numel: int) -> bool:
    """Return True if a pytree has tensors, and none has more than ``max_numel`` elements."""
    if type(tree) is FakeTensor and not tree._has_symbolic_sizes_strides:
        return tree.numel() <= max_numel  # nearly all results are
    tensors = tensors_in(tree)
    return bool(tensors) and all(
        all(type(size) is int for size in tensor.shape) and math.prod(tensor.shape) <= max_numel
        for tensor in tensors
    )
