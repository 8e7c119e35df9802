"""Views: results that live in the memory of an argument."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import fx

from graphflops.capture.fake.storages import storage_of
from graphflops.capture.torch_internals.operators import OpOverload


def shares_memory(node: fx.Node) -> bool:
    """Return True if the result of a node shares memory with an input."""
    return is_view(node.meta.get("val"), (n.meta.get("val") for n in node.all_input_nodes))


@cache
def returns_written(op: OpOverload) -> bool:
    """Return True if the one result of an operator is an argument that it writes to."""
    returns = op._schema.returns
    is_tensor = len(returns) == 1 and isinstance(returns[0].type, torch.TensorType)
    return is_tensor and returns[0].alias_info is not None and returns[0].alias_info.is_write


def is_view(result: object, inputs: Iterable[object]) -> bool:
    """Return True if a tensor shares memory with an input."""
    if not isinstance(result, torch.Tensor):
        return False
    identity = storage_identity(result)
    for value in inputs:
        if isinstance(value, torch.Tensor) and storage_identity(value) == identity:
            return True
    return False


def storage_identity(value: torch.Tensor) -> int:
    """Return a number that tensors in the same memory share, as long as these are alive."""
    owner = storage_of(value)
    return id(value) if owner is value else int(owner._cdata)
