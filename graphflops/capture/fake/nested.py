"""Jagged nested tensors: what is computed on them is computed on the rows that they hold.

They are pairs of values and offsets, and torch says of each operator what it is of the values.
That is what is recorded; none of their own shapes, which are no numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nested._internal.nested_tensor import NestedTensor

from graphflops.capture.source_lines import line_running
from graphflops.errors import CaptureError

if TYPE_CHECKING:
    from graphflops.capture.fake.constant_propagation import ValueTracker

ATTENTION: Any = torch._C._nn.scaled_dot_product_attention


def is_jagged(value: object) -> bool:
    """Return True for a nested tensor of the jagged layout."""
    return isinstance(value, NestedTensor)


def parts_of(tensor: Any) -> dict[str, torch.Tensor]:
    """Return the dense tensors of a nested one, by what they are."""
    parts = {"values": tensor._values, "offsets": tensor._offsets, "lengths": tensor._lengths}
    return {name: part for name, part in parts.items() if part is not None}


def like(
    tensor: Any, fake: Callable[[torch.Tensor], torch.Tensor], mode: FakeTensorMode
) -> NestedTensor:
    """Return a nested tensor of the fake tensors that a function makes.

    Raises:
        CaptureError: It is of the strided layout, of which there are none.
    """
    if not is_jagged(tensor):
        raise CaptureError(
            "a nested tensor of the strided layout has no fake tensor. Give it with "
            "layout=torch.jagged."
        )
    made = {name: fake(part) for name, part in parts_of(tensor).items()}
    values, offsets, ragged = made["values"], made["offsets"], tensor._ragged_idx
    with mode:  # it has the symbol of the ragged size
        return NestedTensor(values, offsets, lengths=made.get("lengths"), _ragged_idx=ragged)


def on_parts(func: Any, types: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    """Run an operator as torch does: in terms of values and offsets, or of what it consists of."""
    from torch.nested._internal.ops import lookup_jagged

    own = lookup_jagged(func, *args, **kwargs)
    if own is not None:
        return own(*args, **kwargs)
    for key in _COMPOSITE:
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key):
            return func._op_dk(key, *args, **kwargs)
    return NestedTensor.__torch_dispatch__(func, types, args, kwargs)  # type: ignore[no-untyped-call]  # torch's gap


_RANK = 4
_COMPOSITE = (
    torch._C.DispatchKey.CompositeImplicitAutogradNestedTensor,
    torch._C.DispatchKey.CompositeImplicitAutograd,
)


def attention(
    known: ValueTracker, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any
) -> Any:
    """Return attention within each sequence, (B, heads, ragged, D) of all.

    torch's own takes nested tensors of the strided layout or kernels of a GPU: the products are
    the same.

    Raises:
        CaptureError: There is no axis of heads, the lengths are not known, or rows are left out.
    """
    if query.dim() != _RANK:
        raise CaptureError(
            f"attention over a nested tensor of {query.dim()} axes has no kernel: PyTorch takes "
            "(batch, heads, length, features). Give it an axis of heads, if only one."
        )
    if query._ragged_idx == 1:
        return ATTENTION(query, key, value, *args, **kwargs)
    sequences = [_sequences(known, tensor) for tensor in (query, key, value)]
    found = [
        ATTENTION(*(rows.transpose(0, 1).unsqueeze(0) for rows in each), *args, **kwargs)
        for each in zip(*sequences, strict=True)
    ]
    rows = torch.cat([heads.squeeze(0).transpose(0, 1) for heads in found])
    return torch.nested.nested_tensor_from_jagged(rows, query.offsets()).transpose(1, 2)


def _sequences(known: ValueTracker, tensor: Any) -> tuple[torch.Tensor, ...]:
    """Return the rows of each sequence, (L, heads, D)."""
    offsets = known.value(tensor.offsets())
    if offsets is None or tensor.lengths() is not None:
        at = line_running()
        raise CaptureError(
            f"the lengths of a nested tensor{f' at {at}' if at else ''} are not known, and what "
            "attention computes follows from them. Give offsets with data, and no lengths."
        )
    known.note_dependence(tensor.offsets())
    ends = offsets.tolist()
    lengths = [end - start for start, end in pairwise(ends)]
    rows: tuple[torch.Tensor, ...] = tensor.transpose(1, 2).values().split(lengths)
    return rows
