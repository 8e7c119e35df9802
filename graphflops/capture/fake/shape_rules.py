"""Shape rules of operators for which torch's own say too little."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Protocol, TypeAlias

import torch

from graphflops.capture.fake import packed_sequences
from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.leaves import is_real
from graphflops.capture.fake.sparse_tensors import (
    SPARSE_CONSTRUCTORS,
    VALUE_DEPENDENT,
    SparseRules,
)
from graphflops.capture.fake.value_lookup import ValueLookup
from graphflops.capture.torch_internals.fake_mode import FakeTensorMode
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.operators import DispatchKey, has_kernel, has_kernel_for_key


class _Tracker(ValueLookup, Protocol):
    """Values of fake tensors as shape rules use them."""

    @property
    def mode(self) -> FakeTensorMode: ...

    @property
    def sparse(self) -> SparseRules: ...

    @property
    def max_numel(self) -> int: ...

    @property
    def factory(self) -> FakeTensorFactory: ...

    def assign(self, fake: torch.Tensor, value: torch.Tensor) -> None: ...

    def note_derived(self, out: Any, args: Any) -> None: ...


_Rule: TypeAlias = Callable[[_Tracker, Any, Any, Mapping[str, Any]], Any]
FILL_OPERATORS = {  # they read only the shape of their tensor argument
    *(torch.ops.aten.zeros_like.default, torch.ops.aten.new_zeros.default),
    *(torch.ops.aten.ones_like.default, torch.ops.aten.new_ones.default),
    *(torch.ops.aten.full_like.default, torch.ops.aten.new_full.default),
}
_DATA_DEPENDENT = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}
_COMPOSITE = DispatchKey.CompositeImplicitAutograd


def depends_on_values(func: Any) -> bool:
    """Return True if the shapes or numbers that an operator returns depend on values."""
    return not _DATA_DEPENDENT.isdisjoint(func.tags)


def is_determined(func: Any) -> bool:
    """Return True if the arguments of an operator determine its result."""
    return torch.Tag.nondeterministic_seeded not in func.tags and "empty" not in func._schema.name


@cache
def is_composite(func: Any) -> bool:
    """Return True for an operator that decomposes into others.

    Run as a whole, torch would cache its result by the shapes, and parts of it may read values.
    """
    name = func.name()  # some are registered in Python alone
    has_kernels = has_kernel(name)
    return has_kernels and has_kernel_for_key(name, _COMPOSITE)


def _pack(tracker: _Tracker, _: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    return packed_sequences.pack(tracker, *args, **kwargs)


def _make_sparse(tracker: _Tracker, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    out = tracker.sparse.run(func, args, kwargs)
    if func in VALUE_DEPENDENT:
        tracker.note_derived(out, args)
    return out


def _nonzero(tracker: _Tracker, _: Any, args: Any, __: Mapping[str, Any]) -> Any:
    value = tracker.value(args[0])
    if value is None or value.numel() <= tracker.max_numel:
        return None
    # A mask that is expanded over features: only the number of its true elements is needed.
    with no_modes():
        rows = int(torch.count_nonzero(value))
    out = args[0].new_empty((rows, value.dim()), dtype=torch.int64)
    tracker.note_derived(out, args)
    return out


def _grouped_mm(tracker: _Tracker, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    left, right, *others = args
    if left.dtype is torch.bfloat16:
        return None
    # The kernels of grouped products take all dtypes, their meta function only bfloat16.
    with tracker.mode:
        return func(left.bfloat16(), right.bfloat16(), *others, **kwargs).to(left.dtype)


def _detach(_: _Tracker, __: Any, args: Any, ___: Mapping[str, Any]) -> Any:
    return args[0]  # below autograd there is no history to detach from


def _lift(tracker: _Tracker, _: Any, args: Any, __: Mapping[str, Any]) -> Any:
    """Return the fake tensor of a constant of the code, without what torch makes of any tensor."""
    real = args[0]
    is_plain = type(real) is torch.Tensor and is_real(real) and not real.requires_grad
    if not is_plain or real.numel() > tracker.max_numel:
        return None
    with no_modes():
        fake = tracker.factory.empty(real.shape, real.stride(), real.dtype, real.device)
    tracker.assign(fake, real)
    return fake


SHAPE_RULES: dict[Any, _Rule] = {
    torch.ops.aten.detach_.default: _detach,
    torch.ops.aten.lift_fresh.default: _lift,
    torch.ops.aten.nonzero.default: _nonzero,
    torch.ops.aten._grouped_mm.default: _grouped_mm,
    packed_sequences.PACK: _pack,
    **dict.fromkeys(SPARSE_CONSTRUCTORS, _make_sparse),
}
"""Results on fake tensors, by overload; a rule returns None where torch's own will do."""
