"""PyTorch's own operator samples as functions of meta tensors."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.opinfo.core import OpInfo
from torch.utils import _pytree as pytree

OPINFOS: list[OpInfo] = list(op_db)


class Sample(NamedTuple):
    """A call of an operator: a function of its tensors alone, and those on meta."""

    function: Callable[..., Any]
    tensors: tuple[torch.Tensor, ...]


def name_of(info: OpInfo) -> str:
    """An OpInfo's name with its variant."""
    return f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name


def dtype_of(info: OpInfo) -> torch.dtype | None:
    """float32 if the operator takes it, else a complex dtype, else nothing."""
    for dtype in (torch.float32, torch.complex64):
        if dtype in info.dtypes:
            return dtype
    return None


def samples(info: OpInfo, most: int) -> Iterator[Sample]:
    """The first samples of an OpInfo, tensors replaced by meta tensors of the same layout."""
    dtype = dtype_of(info)
    if dtype is None:
        return
    for sample in itertools.islice(info.sample_inputs("cpu", dtype), most):
        leaves, spec = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        tensors = tuple(t.detach().to("meta") for t in leaves if isinstance(t, torch.Tensor))
        yield Sample(functools.partial(_call, info.op, leaves, spec), tensors)


def _call(op: Callable[..., Any], leaves: list[Any], spec: Any, *tensors: torch.Tensor) -> Any:
    given = iter(tensors)
    filled = [
        next(given)
        if isinstance(leaf, torch.Tensor)
        # A device named in the arguments would put the result elsewhere than its inputs.
        else torch.device("meta")
        if isinstance(leaf, torch.device)
        else leaf
        for leaf in leaves
    ]
    first, args, kwargs = pytree.tree_unflatten(filled, spec)
    return op(first, *args, **{k: "meta" if k == "device" else v for k, v in kwargs.items()})
