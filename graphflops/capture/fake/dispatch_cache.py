"""What operators make of fake tensors, by the metadata of what they are given.

torch has a cache of the same kind, which takes several times as long to look into, and gives
from the second call on a tensor of its own for what is a view of an argument, though its operator
is none of a view: ``channel_shuffle`` of one group.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from types import NoneType
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from graphflops.capture.fake.fake_maker import FakeMaker

_MOST = 100_000
"""Calls that are kept, of all counts of the process."""
_PLAIN = frozenset(
    {int, float, bool, complex, str, NoneType}
    | {torch.dtype, torch.device, torch.layout, torch.memory_format}
)
_CONSTANTS = frozenset({int, bool, NoneType})
_OPEN = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape, torch.Tag.inplace_view}
_MASKS = {torch.bool, torch.uint8, torch.int8}
_LIFT = {torch.ops.aten.lift_fresh.default, torch.ops.aten.lift_fresh_copy.default}
_UNKNOWN = object()


class _Argument(NamedTuple):
    """A result that is an argument.

    Attributes:
        at: Which of the tensors that are given.
    """

    at: int


class _Constant(NamedTuple):
    """A result that is no tensor."""

    value: Any


class _Result(NamedTuple):
    """A tensor that is made.

    Attributes:
        view_of: Which of the tensors that are given it is a view of; ``None`` if it is none.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    dtype: torch.dtype
    device: torch.device
    view_of: int | None


class _Several(NamedTuple):
    """Results of an operator that has more than one."""

    kind: type
    results: tuple[Any, ...]


_CACHE: dict[tuple[Any, ...], Any] = {}


class DispatchCache:
    """Runs operators on fake tensors of a mode, each call of the same metadata once.

    Symbolic sizes, sparse tensors and constants are left to torch, without its own cache.

    Args:
        mode: The mode.
        maker: Makes its tensors.
    """

    def __init__(self, mode: FakeTensorMode, maker: FakeMaker) -> None:
        self._mode, self._maker = mode, maker
        self._dispatch = mode.dispatch
        mode.cache_enabled = False

    def run(self, func: Any, types: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator as ``FakeTensorMode.dispatch`` does."""
        if not (_is_remembered(func) or _picks(func, args)):
            return self._dispatch(func, types, args, kwargs)
        parts: list[Any] = [func, torch.get_default_dtype(), *kwargs]
        given: list[FakeTensor] = []
        if not (
            self._describe(args, parts, given) and self._describe(kwargs.values(), parts, given)
        ):
            return self._dispatch(func, types, args, kwargs)
        key = tuple(parts)
        found = _CACHE.get(key)
        if found is not None and found is not _UNKNOWN:
            return self._again(found, given)
        out = self._mode._dispatch_impl(func, types, args, kwargs)
        if found is None:
            self._keep(key, out, given)
        return out

    def _describe(self, values: Iterable[Any], parts: list[Any], given: list[FakeTensor]) -> bool:
        """Add to a key what results depend on; ``False`` if that is not all that it could be."""
        for value in values:
            kind = type(value)
            if kind is FakeTensor:
                if (
                    value.fake_mode is not self._mode
                    or value.constant is not None
                    or value._has_symbolic_sizes_strides
                    or value.layout is not torch.strided
                    or value.is_conj()
                    or value.is_neg()
                ):
                    return False
                given.append(value)
                parts += (value.shape, value.stride(), value.storage_offset(), value.dtype)
                parts += (value.fake_device, value.requires_grad)
            elif kind in _PLAIN:
                parts += (kind, value)  # 1 and 1.0 are equal
            elif kind is list or kind is tuple:
                parts.append(len(value))
                if not self._describe(value, parts, given):
                    return False
            else:
                return False
        return True

    def _again(self, found: Any, given: list[FakeTensor]) -> Any:
        """Return what came out of a call before."""
        kind = type(found)
        if kind is _Argument:
            return given[found.at]
        if kind is _Constant:
            return found.value
        if kind is _Several:
            return found.kind([self._again(result, given) for result in found.results])
        shape, strides, offset, dtype, device, view_of = found
        with torch._C._DisableTorchDispatch():
            if view_of is None:
                like = torch.empty_strided(shape, strides, dtype=dtype, device="meta")
            else:
                like = torch.empty(0, dtype=dtype, device="meta")
                like.set_(given[view_of].untyped_storage(), offset, shape, strides)
        return self._maker.make(like, device)

    def _keep(self, key: tuple[Any, ...], out: Any, given: list[FakeTensor]) -> None:
        """Remember what came out of a call, if all of it follows from the key."""
        if (found := self._result(out, given)) is None:
            return
        if len(_CACHE) >= _MOST:
            _CACHE.clear()
        _CACHE[key] = found

    def _result(self, out: Any, given: list[FakeTensor]) -> Any:
        """Return how to make a result again: ``None`` if another call has to tell."""
        kind = type(out)
        if kind is FakeTensor:
            return self._tensor(out, given)
        if isinstance(out, list | tuple):
            return self._several(out, given)
        return _Constant(out) if kind in _CONSTANTS else _UNKNOWN

    def _several(self, out: Any, given: list[FakeTensor]) -> Any:
        results = tuple([self._result(leaf, given) for leaf in out])
        if None in results:
            return None
        made = [result for result in results if type(result) is _Result]
        fresh = [result for result in made if result.view_of is None]
        memories = {_memory(leaf) for leaf in out if isinstance(leaf, torch.Tensor)}
        # Several may lie in the memory of one.
        together = fresh and len(memories) < len(made)
        if together or _UNKNOWN in results:
            return _UNKNOWN
        return _Several(list if isinstance(out, list) else tuple, results)

    def _tensor(self, out: Any, given: list[FakeTensor]) -> Any:
        is_plain = out.layout is torch.strided and not out._has_symbolic_sizes_strides
        if not is_plain or out.constant is not None or out.requires_grad:
            return _UNKNOWN
        memory = _memory(out)
        same = [at for at, tensor in enumerate(given) if tensor is out]
        shared = [at for at, tensor in enumerate(given) if _memory(tensor) == memory]
        if len(same) > 1 or (len(shared) > 1 and not same):
            return None  # which of them it is, or is a view of, this call does not tell
        if same:
            return _Argument(same[0])
        found = _Result(
            shape=tuple(out.shape),
            strides=out.stride(),
            offset=out.storage_offset(),
            dtype=out.dtype,
            device=out.fake_device,
            view_of=shared[0] if shared else None,
        )
        again = self._again(found, given)
        alike = (
            torch._C._dispatch_key_set(again) == torch._C._dispatch_key_set(out)
            and again.storage_offset() == out.storage_offset()
            and again.untyped_storage().nbytes() == out.untyped_storage().nbytes()
        )
        return found if alike else _UNKNOWN


def _memory(tensor: torch.Tensor) -> int:
    found: int = tensor.untyped_storage()._cdata
    return found


@cache
def _is_remembered(func: Any) -> bool:
    """Return True for operators whose results follow from metadata alone."""
    return (
        isinstance(func, OpOverload)
        and func.namespace in {"aten", "prims"}
        and _OPEN.isdisjoint(func.tags)
        and func not in _LIFT
    )


def _picks(func: Any, args: Any) -> bool:
    """Return True for elements at indices that are numbers: as many as there are indices."""
    if func is not torch.ops.aten.index.Tensor:
        return False
    return not any(index is not None and index.dtype in _MASKS for index in args[1])
