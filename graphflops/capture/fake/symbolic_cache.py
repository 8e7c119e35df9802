"""Cache of operator results on fake tensors with symbolic sizes, within one capture.

A loop over time steps calls the same operators on the same symbolic sizes again and again, and
torch takes milliseconds for each call. Equal expressions give equal results, as long as nothing
more is assumed about the symbols: what the first call has assumed holds for all that follow.

Only products of numbers and symbols are such sizes. Of others torch has to assume whether they are
one, or whether a tensor is contiguous, and may do so for a result that was rebuilt where it does
not for the original.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import sympy
import torch

from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.leaves import is_plain, size_key, storage_address
from graphflops.capture.torch_internals.dispatch import DisableTorchDispatch, dispatch_keys
from graphflops.capture.torch_internals.fake_mode import FakeTensor, FakeTensorMode

_ATOMS = frozenset({int, float, bool, str, type(None)}) | {
    *(torch.dtype, torch.device, torch.layout, torch.memory_format)
}

_SELECT = torch.ops.aten.select.int
_ABSOLUTE = {torch.ops.aten.as_strided.default, torch.ops.aten.set_.source_Tensor}
"""Operators whose results depend on where in memory an argument begins."""


class _Result(NamedTuple):
    """Result of a call.

    Attributes:
        argument: Position of the input tensor that it is or is a view of, or None.
        shape: Shape of a new tensor, or None if the result is the argument.
        strides: Its strides.
        distance: How far from the argument it begins in memory, in elements.
        dtype: Its dtype.
        device: Its device.
    """

    argument: int | None
    shape: tuple[Any, ...] | None
    strides: tuple[Any, ...]
    distance: Any
    dtype: torch.dtype
    device: torch.device


class SymbolicCache:
    """Results of operators on tensors with symbolic sizes, by the expressions of these.

    Args:
        mode: The mode of the tensors.
        factory: Factory of the mode's tensors.
    """

    def __init__(self, mode: FakeTensorMode, factory: FakeTensorFactory) -> None:
        self._mode, self._factory = mode, factory
        self._env: Any = mode.shape_env
        self._results: dict[tuple[Any, ...], _Result | None] = {}

    def run(
        self, func: Any, args: Any, kwargs: Mapping[str, Any], compute: Callable[[], Any]
    ) -> Any:
        """Return the result of an operator, computed if it is not known.

        Args:
            func: Operator whose results depend on metadata alone.
            args: Its positional arguments.
            kwargs: Its keyword arguments.
            compute: Function that runs the operator.
        """
        if self._env is None or func in _ABSOLUTE:
            return compute()
        if func is _SELECT and (row := self._select(*args)) is not None:
            return row
        inputs: list[FakeTensor] = []
        assumed = self._assumed()
        parts: list[Any] = [func, torch.get_default_dtype(), *kwargs, *assumed]
        if not (
            self._extend_key(args, parts, inputs)
            and self._extend_key(kwargs.values(), parts, inputs)
        ):
            return compute()
        key = tuple(parts)
        if (known := self._results.get(key)) is not None:
            return self._rebuild(known, inputs)
        out = compute()
        if key not in self._results and assumed == self._assumed():
            self._results[key] = self._result(out, inputs)
        return out

    def _select(self, tensor: torch.Tensor, dim: int, index: int) -> FakeTensor | None:
        """Return one of the time steps of a tensor, None if their number is not known."""
        if type(tensor) is not FakeTensor or not is_plain(tensor, self._mode, symbolic=True):
            return None
        size, stride = tensor.shape[dim], tensor.stride()[dim]
        if type(size) is not int or type(index) is not int or not 0 <= index < size:
            return None
        kept = [axis for axis in range(tensor.dim()) if axis != dim % tensor.dim()]
        result = _Result(
            argument=0,
            shape=tuple([tensor.shape[axis] for axis in kept]),
            strides=tuple([tensor.stride()[axis] for axis in kept]),
            distance=index * stride,
            dtype=tensor.dtype,
            device=tensor.fake_device,
        )
        return self._rebuild(result, [tensor])

    def _assumed(self) -> tuple[int, ...]:
        """Return how much is assumed about symbols: it only grows."""
        env = self._env
        return len(env.guards), len(env.replacements), env.unbacked_symint_counter

    def _extend_key(
        self, values: Iterable[Any], parts: list[Any], inputs: list[FakeTensor]
    ) -> bool:
        """Add the metadata of values to a key; return False if results may depend on more."""
        for value in values:
            kind = type(value)
            if kind is FakeTensor:
                if not is_plain(value, self._mode, symbolic=True):
                    return False
                inputs.append(value)
                sizes = [size_key(size) for size in (*value.shape, *value.stride())]
                if not all(map(_is_product, sizes)):
                    return False
                parts += (len(value.shape), *sizes, value.dtype)
                parts += (value.fake_device, value.requires_grad)
            elif kind is torch.SymInt and _is_product(value.node.expr):
                parts += (kind, value.node.expr)
            elif kind in _ATOMS:
                parts += (kind, value)  # 1 and 1.0 are equal
            elif kind is list or kind is tuple:
                parts.append(len(value))
                if not self._extend_key(value, parts, inputs):
                    return False
            else:
                return False
        return True

    def _result(self, out: Any, inputs: list[FakeTensor]) -> _Result | None:
        """Return the record of a result, or None if it is not to be rebuilt."""
        if (
            type(out) is not FakeTensor
            or not is_plain(out, self._mode, symbolic=True)
            or out.requires_grad
        ):
            return None
        same = [i for i, tensor in enumerate(inputs) if tensor is out]
        storage = storage_address(out)
        aliases = [i for i, tensor in enumerate(inputs) if storage_address(tensor) == storage]
        if len(aliases) > 1:
            return None  # it could be, or be a view of, any of several inputs
        if not (aliases or _is_contiguous(out)):
            return None
        result = _Result(
            argument=aliases[0] if aliases else None,
            shape=None if same else tuple(out.shape),
            strides=out.stride(),
            distance=out.storage_offset() - (inputs[aliases[0]].storage_offset() if aliases else 0),
            dtype=out.dtype,
            device=out.fake_device,
        )
        return result if self._is_equal(self._rebuild(result, inputs), out) else None

    def _is_equal(self, rebuilt: FakeTensor, out: FakeTensor) -> bool:
        storages = rebuilt.untyped_storage().nbytes(), out.untyped_storage().nbytes()
        offsets = rebuilt.storage_offset(), out.storage_offset()
        is_same = all(size_key(a) == size_key(b) for a, b in (storages, offsets))
        return is_same and dispatch_keys(rebuilt) == dispatch_keys(out)

    def _rebuild(self, result: _Result, inputs: list[FakeTensor]) -> FakeTensor:
        """Return the result of a known call."""
        argument, shape, strides, distance, dtype, device = result
        base = None if argument is None else inputs[argument]
        if base is not None and shape is None:
            return base
        with DisableTorchDispatch(), self._env.suppress_guards():
            if base is None:
                meta = torch.empty_strided(shape or (), strides, dtype=dtype, device="meta")
            else:
                meta = torch.empty(0, dtype=dtype, device="meta")
                offset = base.storage_offset() + distance
                meta.set_(base.untyped_storage(), offset, shape or (), strides)
        return self._factory.make(meta, device)


def _is_product(size: int | sympy.Expr) -> bool:
    """Return True for a product of numbers and symbols."""
    factors = size.args if isinstance(size, sympy.Mul) else (size,)
    return all(isinstance(factor, int | sympy.Integer | sympy.Symbol) for factor in factors)


def _is_contiguous(tensor: torch.Tensor) -> bool:
    """Return True for a tensor whose strides are those of its shape as expressions."""
    expected: Any = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if size_key(stride) != expected:
            return False
        expected *= size_key(size)
    return True
