"""Operators of which torch's rules say too little: what they make of fake tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from graphflops.capture.fake import packed
from graphflops.capture.fake.sparse import MAKERS, READ_VALUES
from graphflops.capture.torch_internals.no_modes import no_modes

if TYPE_CHECKING:
    from graphflops.capture.fake.constant_propagation import ValueTracker

_Rule: TypeAlias = Callable[["ValueTracker", Any, Any, Mapping[str, Any]], Any]
FILLED = {  # with a number: of a tensor that they take, they read the shape alone
    *(torch.ops.aten.zeros_like.default, torch.ops.aten.new_zeros.default),
    *(torch.ops.aten.ones_like.default, torch.ops.aten.new_ones.default),
    *(torch.ops.aten.full_like.default, torch.ops.aten.new_full.default),
}
_READ = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd


def depends_on_values(func: Any) -> bool:
    """Return True if shapes or numbers that come out of an operator are up to values."""
    return not _READ.isdisjoint(func.tags)


def is_determined(func: Any) -> bool:
    """Return True if what comes out of an operator follows from what goes in."""
    return torch.Tag.nondeterministic_seeded not in func.tags and "empty" not in func._schema.name


@cache
def is_composite(func: Any) -> bool:
    """Return True for an operator that is made of others.

    Whole, torch would remember its result by the shapes, and parts of it may read values.
    """
    name = func.name()  # some are known to Python alone
    has_kernels = torch._C._dispatch_has_kernel(name)
    return has_kernels and torch._C._dispatch_has_kernel_for_dispatch_key(name, _COMPOSITE)


def _pack(known: ValueTracker, _: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    return packed.pack(known, *args, **kwargs)


def _make_sparse(known: ValueTracker, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    out = known.sparse.run(func, args, kwargs)
    if func in READ_VALUES:
        known.note_derived(out, args)
    return out


def _nonzero(known: ValueTracker, _: Any, args: Any, __: Mapping[str, Any]) -> Any:
    value = known.value(args[0])
    if value is None or value.numel() <= known.largest:
        return None
    # A mask spread over features: how many it takes is all that is asked for.
    with no_modes():
        rows = int(torch.count_nonzero(value))
    out = args[0].new_empty((rows, value.dim()), dtype=torch.int64)
    known.note_derived(out, args)
    return out


def _grouped_product(known: ValueTracker, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    left, right, *rest = args
    if left.dtype is torch.bfloat16:
        return None
    # The kernels of grouped products take all dtypes, their rule takes this one.
    with known.mode:
        return func(left.bfloat16(), right.bfloat16(), *rest, **kwargs).to(left.dtype)


def _detach(_: ValueTracker, __: Any, args: Any, ___: Mapping[str, Any]) -> Any:
    return args[0]  # below autograd there is nothing to be detached from


OWN_RULES: dict[Any, _Rule] = {
    torch.ops.aten.detach_.default: _detach,
    torch.ops.aten.nonzero.default: _nonzero,
    torch.ops.aten._grouped_mm.default: _grouped_product,
    packed.PACK: _pack,
    **dict.fromkeys(MAKERS, _make_sparse),
}
"""What some operators make of fake tensors; ``None`` where torch's rule will do."""
