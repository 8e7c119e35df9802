"""What torch remembers of calls on fake tensors, for all modes and counts of the process."""

from __future__ import annotations

from typing import Any

from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, _BypassDispatchCache
from torch.utils import _pytree as pytree


def remember_no_foreign(mode: Any) -> None:
    """Keep operators of other libraries from torch's memory, which forgets their results anyway.

    What they are given is compared with what was given before, which objects of packed weights
    refuse.

    Args:
        mode: A ``FakeTensorMode``.
    """
    remembered = mode._cached_dispatch_impl

    def run(func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        is_foreign = isinstance(func, OpOverload) and func.namespace not in _OWN
        return (mode._dispatch_impl if is_foreign else remembered)(func, types, args, kwargs)

    mode._cached_dispatch_impl = run


_OWN = {"aten", "prims", "prim"}


def remember_no_views(mode: Any) -> None:
    """Keep results from torch's memory that are views of an input, though their operator is none.

    Remembered, the result would be a tensor of its own from the second call on:
    ``channel_shuffle`` of one group.

    Args:
        mode: A ``FakeTensorMode``. Of a subclass, higher-order operators would know nothing.
    """
    check = mode._validate_output_for_cache_entry

    def check_that_no_view(  # noqa: PLR0913, PLR0917 - what torch gives
        state: Any, key: Any, func: Any, args: Any, kwargs: Any, output: Any
    ) -> None:
        if isinstance(output, FakeTensor) and not getattr(func, "is_view", True):
            given = [leaf for leaf in pytree.tree_leaves(args) if isinstance(leaf, FakeTensor)]
            written_to = any(output is tensor for tensor in given)
            if not written_to and _storage(output) in map(_storage, given):
                raise _BypassDispatchCache("a view by an operator that makes none")
        check(state, key, func, args, kwargs, output)

    mode._validate_output_for_cache_entry = check_that_no_view


def _storage(tensor: Any) -> int:
    found: int = tensor.untyped_storage()._cdata
    return found
