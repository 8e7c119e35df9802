"""Jagged nested tensors: operators on them are recorded as operators on their values.

A jagged tensor is a pair of values and offsets, and torch lowers each operator to one on the
values. That one is recorded; the jagged shapes, which are no numbers, are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import torch

from graphflops.capture.fake.value_lookup import ValueLookup
from graphflops.capture.source_lines import current_source_line
from graphflops.capture.torch_internals.fake_mode import FakeTensorMode
from graphflops.capture.torch_internals.jagged import NestedTensor, jagged_kernel
from graphflops.capture.torch_internals.operators import (
    DispatchKey,
    builtin_sdpa,
    has_kernel_for_key,
)
from graphflops.errors import CaptureError

SDPA: Any = builtin_sdpa


def is_jagged(value: object) -> bool:
    """Return True for a nested tensor of the jagged layout."""
    return isinstance(value, NestedTensor)


def components(tensor: Any) -> dict[str, torch.Tensor]:
    """Return the dense tensors of a nested one, by name."""
    parts = {"values": tensor._values, "offsets": tensor._offsets, "lengths": tensor._lengths}
    return {name: part for name, part in parts.items() if part is not None}


def fakify(
    tensor: Any, fakify_dense: Callable[[torch.Tensor], torch.Tensor], mode: FakeTensorMode
) -> NestedTensor:
    """Return the fake nested tensor of a nested one.

    Args:
        tensor: The nested tensor.
        fakify_dense: Function that makes the fake tensor of a dense one.
        mode: Mode of the fake tensors.

    Raises:
        CaptureError: The tensor is of the strided layout, for which torch has no fake tensors.
    """
    if not is_jagged(tensor):
        raise CaptureError(
            "a nested tensor of the strided layout has no fake tensor. Give it with "
            "layout=torch.jagged."
        )
    fakes = {name: fakify_dense(part) for name, part in components(tensor).items()}
    values, offsets, ragged = fakes["values"], fakes["offsets"], tensor._ragged_idx
    with mode:  # the mode holds the symbol of the ragged size
        return NestedTensor(values, offsets, lengths=fakes.get("lengths"), _ragged_idx=ragged)


def dispatch_jagged(func: Any, types: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run an operator as torch does: on values and offsets, or decomposed."""
    kernel = jagged_kernel(func, args, kwargs)
    if kernel is not None:
        return kernel(*args, **kwargs)
    for key in _COMPOSITE:
        if has_kernel_for_key(func.name(), key):
            return func._op_dk(key, *args, **kwargs)
    return NestedTensor.__torch_dispatch__(func, types, args, kwargs)  # type: ignore[no-untyped-call]  # torch's gap


_RANK = 4
_COMPOSITE = (
    DispatchKey.CompositeImplicitAutogradNestedTensor,
    DispatchKey.CompositeImplicitAutograd,
)


def attention(
    values: ValueLookup, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any
) -> Any:
    """Return attention within each sequence, as one tensor (B, heads, ragged, D).

    torch's own converts to the strided layout or calls kernels of a GPU: the products are the
    same.

    Raises:
        CaptureError: There is no axis of heads, or the lengths are unknown or given apart from the
            offsets.
    """
    if query.dim() != _RANK:
        raise CaptureError(
            f"attention over a nested tensor of {query.dim()} axes has no kernel: PyTorch takes "
            "(batch, heads, length, features). Give it an axis of heads, if only one."
        )
    if query._ragged_idx == 1:
        return SDPA(query, key, value, *args, **kwargs)
    sequences = [_sequences(values, tensor) for tensor in (query, key, value)]
    outputs = [
        SDPA(*(rows.transpose(0, 1).unsqueeze(0) for rows in qkv), *args, **kwargs)
        for qkv in zip(*sequences, strict=True)
    ]
    rows = torch.cat([heads.squeeze(0).transpose(0, 1) for heads in outputs])
    return torch.nested.nested_tensor_from_jagged(rows, query.offsets()).transpose(1, 2)


def _sequences(values: ValueLookup, tensor: Any) -> tuple[torch.Tensor, ...]:
    """Return the rows of each sequence, (L, heads, D)."""
    offsets = values.value(tensor.offsets())
    if offsets is None or tensor.lengths() is not None:
        line = current_source_line()
        raise CaptureError(
            f"the lengths of a nested tensor{f' at {line}' if line else ''} are not known, and "
            "what attention computes follows from them. Give offsets with data, and no lengths."
        )
    values.note_dependence(tensor.offsets())
    ends = offsets.tolist()
    lengths = [end - start for start, end in pairwise(ends)]
    rows: tuple[torch.Tensor, ...] = tensor.transpose(1, 2).values().split(lengths)
    return rows
