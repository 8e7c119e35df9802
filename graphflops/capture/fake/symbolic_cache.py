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
from typing import Any

import sympy
import torch

from graphflops.capture.fake.fake_tensor_factory import FakeTensorFactory
from graphflops.capture.fake.leaves import fakes_in, is_plain, size_key, storage_address, tensors_in
from graphflops.capture.fake.symbolic_rules import RULES, Result, is_row_major
from graphflops.capture.torch_internals.dispatch import DisableTorchDispatch, dispatch_keys
from graphflops.capture.torch_internals.fake_mode import FakeTensor, FakeTensorMode

_ATOMS = frozenset({int, float, bool, str, type(None)}) | {
    *(torch.dtype, torch.device, torch.layout, torch.memory_format)
}

_AS_STRIDED = torch.ops.aten.as_strided.default
_ABSOLUTE = {torch.ops.aten.as_strided.default, torch.ops.aten.set_.source_Tensor}
"""Operators whose results depend on where in memory an argument begins."""


class SymbolicCache:
    """Results of operators on tensors with symbolic sizes, by the expressions of these.

    Args:
        mode: The mode of the tensors.
        factory: Factory of the mode's tensors.
    """

    def __init__(self, mode: FakeTensorMode, factory: FakeTensorFactory) -> None:
        self._mode, self._factory = mode, factory
        self._env: Any = mode.shape_env
        self._results: dict[tuple[Any, ...], Result | None] = {}

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
        if (found := self._by_rule(func, args, kwargs)) is not None:
            return found
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

    def _by_rule(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> FakeTensor | None:
        """Return the result of an operator whose arguments decide it as expressions."""
        rule, tensors, inputs = RULES.get(func), tensors_in(args), fakes_in(args)
        if rule is None or not inputs or len(inputs) != len(tensors):
            return None  # a real tensor is a constant of the model's code
        if not all(map(self._is_plain, inputs)):
            return None
        result = rule(*args, **kwargs)
        return None if result is None else self._rebuild(result, inputs)

    def _is_plain(self, tensor: FakeTensor) -> bool:
        return type(tensor) is FakeTensor and is_plain(tensor, self._mode, symbolic=True)

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

    def _result(self, out: Any, inputs: list[FakeTensor]) -> Result | None:
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
        if any(inputs[alias].dtype != out.dtype for alias in aliases):
            return None
        if not (aliases or is_row_major(out)):
            return None
        result = Result(
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

    def _rebuild(self, result: Result, inputs: list[FakeTensor]) -> FakeTensor:
        """Return the result of a known call."""
        argument, shape, strides, distance, dtype, device = result
        base = None if argument is None else inputs[argument]
        if base is not None and shape is None:
            return base
        with self._env.suppress_guards():
            if base is not None:
                layout = shape, strides, base.storage_offset() + distance
                dispatch: Callable[..., FakeTensor] = self._mode._dispatch_impl  # type: ignore[assignment]  # a view is one
                return dispatch(_AS_STRIDED, (FakeTensor,), (base, *layout), {})
            with DisableTorchDispatch():
                meta = torch.empty_strided(shape or (), strides, dtype=dtype, device="meta")
        return self._factory.make(meta, device)


def _is_product(size: int | sympy.Expr) -> bool:
    """Return True for a product of numbers and symbols."""
    factors = size.args if isinstance(size, sympy.Mul) else (size,)
    return all(isinstance(factor, int | sympy.Integer | sympy.Symbol) for factor in factors)
