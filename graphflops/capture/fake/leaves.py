"""Tensors among the arguments and results of operators."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils import _pytree as pytree

_PLAIN = {int, float, bool, str, type(None), torch.dtype, torch.device}


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """Return the tensors in any structure, in order."""
    found: list[torch.Tensor] = []
    _collect(tree, found)
    return found


def _collect(tree: Any, found: list[torch.Tensor]) -> None:
    kind = type(tree)
    if kind is tuple or kind is list:  # what nearly all arguments are; pytree takes its time
        for item in tree:
            _collect(item, found)
    elif kind is dict:
        for item in tree.values():
            _collect(item, found)
    elif isinstance(tree, torch.Tensor):
        found.append(tree)
    elif kind not in _PLAIN:
        leaves = pytree.tree_leaves(tree)
        found += [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def fakes_in(tree: Any) -> list[FakeTensor]:
    """Return the fake tensors in any structure."""
    return [tensor for tensor in tensors_in(tree) if isinstance(tensor, FakeTensor)]


def is_real(leaf: Any) -> bool:
    """Return True for a dense tensor with memory, neither fake nor a wrapper of others."""
    if not isinstance(leaf, torch.Tensor):
        return False
    wraps = type(leaf).__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
    return not (wraps or leaf.is_meta) and leaf.layout is torch.strided


def memory_of(value: torch.Tensor) -> StorageWeakRef:
    """Return a weak reference to a tensor's memory, by which it can be told."""
    return StorageWeakRef(value.untyped_storage())  # type: ignore[no-untyped-call]  # torch's gap


def are_small(tree: Any, largest: int) -> bool:
    """Return True if a structure has tensors, and none has more than ``largest`` elements."""
    tensors = tensors_in(tree)
    sizes = [math.prod(tensor.shape) for tensor in tensors]
    return bool(tensors) and all(isinstance(size, int) and size <= largest for size in sizes)
