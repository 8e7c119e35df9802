"""Rules for the results of operators on tensors with symbolic sizes.

torch takes milliseconds for each such call: it asks which sizes are one, which tensors are
contiguous, which sizes are equal. The rules answer from the expressions alone, without a guard, and
leave every call whose expressions do not decide it to torch: ``None``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import sympy
import torch

from graphflops.capture.fake.leaves import size_key
from graphflops.capture.torch_internals.fake_mode import FakeTensor

_ATEN = torch.ops.aten
_NUMBERS = (int, float, bool)
Sizes = tuple[Any, ...]


class Result(NamedTuple):
    """Result of a call.

    Attributes:
        argument: Position among the input tensors of that which it is or is a view of, or None.
        shape: Shape of a new tensor, or None if the result is the argument.
        strides: Its strides.
        distance: How far from the argument it begins in memory, in elements.
        dtype: Its dtype.
        device: Its device.
    """

    argument: int | None
    shape: Sizes | None
    strides: Sizes
    distance: Any
    dtype: torch.dtype
    device: torch.device


Rule: TypeAlias = Callable[..., Result | None]


def is_row_major(tensor: torch.Tensor) -> bool:
    """Return True for a tensor whose strides are those of its shape as expressions."""
    expected: Any = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.stride()), strict=True):
        if size_key(stride) != expected:
            return False
        expected *= size_key(_at_least_one(size))
    return True


def _row_major(shape: Sequence[Any]) -> Sizes:
    strides: list[Any] = []
    step: Any = 1
    for size in reversed(shape):
        strides.append(step)
        step = step * _at_least_one(size)
    return tuple(reversed(strides))


def _at_least_one(size: Any) -> Any:
    if size_key(size).is_positive if isinstance(size, torch.SymInt) else size > 0:
        return size
    return torch.sym_max(size, 1)  # type: ignore[no-untyped-call]  # torch's gap


@lru_cache(maxsize=4096)
def _order(strides: tuple[Any, ...]) -> tuple[int, ...] | None:
    """Return axes from the largest step in memory to the smallest, if the expressions say so."""
    axes = range(len(strides))
    smaller = [sum(_is_larger(strides[i], strides[j]) for j in axes) for i in axes]
    order = sorted(axes, key=lambda axis: -smaller[axis])
    is_chain = all(smaller[axis] == len(strides) - 1 - rank for rank, axis in enumerate(order))
    return tuple(order) if is_chain else None


def _is_larger(stride: Any, other: Any) -> bool:
    """Return True if a stride is surely another times an integer over one."""
    if stride == other or 0 in {stride, other}:
        return False
    if isinstance(stride, int) and isinstance(other, int):
        return stride > other
    factors = sympy.Mul.make_args(sympy.sympify(stride) / other)
    return all(factor.is_integer and factor.is_positive for factor in factors)


def _is_ordered(x: FakeTensor, order: Sequence[int]) -> bool:
    """Return True for a tensor whose steps become smaller in an order of its last axes.

    The stride of an axis of one element is arbitrary.
    """
    start = len(order) - x.dim()
    axes = [axis - start for axis in order if axis >= start]
    strides, sizes = _keys(x.stride()), _keys(x.shape)
    steps = tuple(strides[axis] for axis in axes if sizes[axis] != 1)
    return _order(steps) == tuple(range(len(steps)))


def _keys(sizes: Sequence[Any]) -> list[Any]:
    return [size_key(size) for size in sizes]


def _new(x: FakeTensor, shape: Sizes, strides: Sizes, dtype: torch.dtype | None = None) -> Result:
    return Result(None, shape, strides, 0, dtype or x.dtype, x.fake_device)


def _view(x: FakeTensor, shape: Sequence[Any], strides: Sequence[Any], distance: Any = 0) -> Result:
    return Result(0, tuple(shape), tuple(strides), distance, x.dtype, x.fake_device)


def _unary(x: FakeTensor, *numbers: Any, **_: Any) -> Result | None:
    is_usual = x.dtype.is_floating_point and all(type(n) in _NUMBERS for n in numbers)
    return _pointwise(x) if is_usual else None


def _divide(x: Any, y: Any, **options: Any) -> Result | None:
    return _arithmetic(x, y, **options) if x.dtype.is_floating_point else None


def _arithmetic(x: Any, y: Any, **options: Any) -> Result | None:
    if options or not isinstance(x, FakeTensor):
        return None
    if isinstance(y, FakeTensor):
        return _pointwise(x, y) if x.dtype == y.dtype and x.dtype != torch.bool else None
    keeps_dtype = type(y) in _NUMBERS if x.dtype.is_floating_point else type(y) is int
    return _pointwise(x) if keeps_dtype and x.dtype != torch.bool else None


def _compare(x: FakeTensor, y: Any) -> Result | None:
    if isinstance(y, FakeTensor):
        return _pointwise(x, y, dtype=torch.bool) if x.dtype == y.dtype else None
    return _pointwise(x, dtype=torch.bool) if type(y) in _NUMBERS else None


def _logic(*tensors: Any) -> Result | None:
    are_usual = all(isinstance(x, FakeTensor) and x.dtype == torch.bool for x in tensors)
    return _pointwise(*tensors) if are_usual else None


def _where(condition: FakeTensor, x: FakeTensor, y: FakeTensor) -> Result | None:
    is_usual = condition.dtype == torch.bool and x.dtype == y.dtype
    return _pointwise(condition, x, y, dtype=x.dtype) if is_usual else None


def _masked_fill(x: FakeTensor, mask: FakeTensor, value: Any) -> Result | None:
    # The order of other axes is not kept.
    is_usual = is_row_major(x) and x.dtype.is_floating_point and mask.dtype == torch.bool
    return _pointwise(x, mask, dtype=x.dtype) if is_usual and type(value) in _NUMBERS else None


def _clamp(x: FakeTensor, least: Any = None, most: Any = None) -> Result | None:
    kinds = {type(bound) for bound in (least, most) if bound is not None}
    is_usual = kinds <= {int, float} if x.dtype.is_floating_point else kinds <= {int}
    return _pointwise(x) if kinds and is_usual and x.dtype != torch.bool else None


def _pointwise(*tensors: FakeTensor, dtype: torch.dtype | None = None) -> Result | None:
    """Return the result of a pointwise operator, of the shape of one of the tensors."""
    full = max(tensors, key=_numbers_of_axes)
    sizes = _keys(full.shape)
    if any(x.fake_device != full.fake_device for x in tensors):
        return None
    if all(_keys(x.shape) == sizes and is_row_major(x) for x in tensors):
        return _new(full, tuple(full.shape), full.stride(), dtype)
    order = None if 1 in sizes else _order(tuple(_keys(full.stride())))
    if order is None or not all(_fits(x, sizes) and _is_ordered(x, order) for x in tensors):
        return None
    dense = _row_major([full.shape[axis] for axis in order])
    strides = tuple(stride for _, stride in sorted(zip(order, dense, strict=True), key=_axis))
    return _new(full, tuple(full.shape), strides, dtype)


def _fits(x: FakeTensor, sizes: Sequence[Any]) -> bool:
    """Return True for a tensor that broadcasts to some sizes."""
    last = sizes[len(sizes) - x.dim() :]
    return all(key in (1, size) for key, size in zip(_keys(x.shape), last, strict=True))


def _axis(pair: tuple[int, Any]) -> int:
    return pair[0]


def _numbers_of_axes(x: FakeTensor) -> tuple[int, int]:
    """Return how many axes there are, and how many have more than one element for all we know."""
    return x.dim(), sum(key != 1 for key in _keys(x.shape))


def _clone(x: FakeTensor, *, memory_format: Any = torch.preserve_format) -> Result | None:
    if memory_format == torch.contiguous_format:
        return _new(x, tuple(x.shape), _row_major(x.shape))
    return _pointwise(x) if memory_format == torch.preserve_format else None


def _to_copy(x: FakeTensor, *, dtype: torch.dtype | None = None, **others: Any) -> Result | None:
    if dtype is None or any(value is not None for value in others.values()) or not is_row_major(x):
        return None
    return _new(x, tuple(x.shape), x.stride(), dtype)


def _reduce(
    x: FakeTensor, dims: Sequence[int] | None, keepdim: int = 0, **options: Any
) -> Result | None:
    """Return the sum or mean of row-major numbers along some axes."""
    if options or not (dims and x.dtype.is_floating_point and is_row_major(x)):
        return None
    reduced = {dim % x.dim() for dim in dims}
    if keepdim:
        shape = tuple(1 if axis in reduced else size for axis, size in enumerate(x.shape))
    else:
        shape = tuple(size for axis, size in enumerate(x.shape) if axis not in reduced)
    return _new(x, shape, _row_major(shape))


def _copy(x: FakeTensor, source: Any, *options: Any) -> Result | None:
    is_usual = isinstance(source, FakeTensor) and not any(options)
    if not is_usual or _keys(x.shape) != _keys(source.shape):
        return None
    return Result(0, None, (), 0, x.dtype, x.fake_device)


def _permute(x: FakeTensor, dims: Sequence[int]) -> Result | None:
    order = [dim % x.dim() for dim in dims]
    strides = x.stride()
    return _view(x, [x.shape[axis] for axis in order], [strides[axis] for axis in order])


def _transpose(x: FakeTensor, one: int, other: int) -> Result | None:
    order = [*range(x.dim())]
    order[one], order[other] = order[other], order[one]
    return _permute(x, order)


def _unsqueeze(x: FakeTensor, dim: int) -> Result | None:
    shape, strides = [*x.shape], [*x.stride()]
    axis = dim % (len(shape) + 1)
    strides.insert(axis, shape[axis] * strides[axis] if axis < len(shape) else 1)
    shape.insert(axis, 1)
    return _view(x, shape, strides)


def _expand(x: FakeTensor, sizes: Sequence[Any], *, implicit: bool = False) -> Result | None:
    start = len(sizes) - x.dim()
    if implicit or start < 0:
        return None
    shape, strides = [*sizes], [0] * len(sizes)
    for axis, (size, stride) in enumerate(zip(x.shape, x.stride(), strict=True), start):
        if size_key(sizes[axis]) in {-1, size_key(size)}:
            shape[axis], strides[axis] = size, stride
        elif size_key(size) != 1:
            return None
    return None if -1 in _keys(shape) else _view(x, shape, strides)


def _reshape(x: FakeTensor, sizes: Sequence[Any]) -> Result | None:
    if -1 in _keys(sizes) or not is_row_major(x):
        return None
    if math.prod(_keys(sizes)) != math.prod(_keys(x.shape)):
        return None
    return _view(x, sizes, _row_major(sizes))


def _slice(
    x: FakeTensor, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1
) -> Result | None:
    size, stride = x.shape[dim], x.stride()[dim]
    bounds = 0 if start is None else start, size if end is None else end, step
    if type(size) is not int or any(type(bound) is not int for bound in bounds):
        return None
    kept = range(size)[bounds[0] : bounds[1] : step]
    shape, strides = [*x.shape], [*x.stride()]
    shape[dim], strides[dim] = len(kept), stride * step
    return _view(x, shape, strides, min(kept.start, size) * stride)


def _select(x: FakeTensor, dim: int, index: Any) -> Result | None:
    """Return one of the time steps of a tensor, None if their number is not known."""
    size, stride = x.shape[dim], x.stride()[dim]
    if type(size) is not int or type(index) is not int or not 0 <= index < size:
        return None
    shape, strides = [*x.shape], [*x.stride()]
    del shape[dim], strides[dim]
    return _view(x, shape, strides, index * stride)


_OPERATORS: Mapping[Rule, tuple[Any, ...]] = {
    _unary: (
        *(_ATEN.relu.default, _ATEN.gelu.default, _ATEN.exp.default, _ATEN.log.default),
        *(_ATEN.tanh.default, _ATEN.sigmoid.default, _ATEN.rsqrt.default, _ATEN.sqrt.default),
        *(_ATEN.neg.default, _ATEN.abs.default, _ATEN.cos.default, _ATEN.sin.default),
        *(_ATEN.silu.default, _ATEN.pow.Tensor_Scalar),
    ),
    _divide: (_ATEN.div.Tensor,),
    _arithmetic: (_ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor),
    _compare: (
        *(_ATEN.eq.Scalar, _ATEN.ne.Scalar, _ATEN.lt.Scalar, _ATEN.le.Scalar, _ATEN.gt.Scalar),
        *(_ATEN.ge.Scalar, _ATEN.eq.Tensor, _ATEN.ne.Tensor, _ATEN.lt.Tensor, _ATEN.le.Tensor),
        *(_ATEN.gt.Tensor, _ATEN.ge.Tensor),
    ),
    _logic: (
        *(_ATEN.bitwise_and.Tensor, _ATEN.bitwise_or.Tensor, _ATEN.bitwise_not.default),
        *(_ATEN.logical_and.default, _ATEN.logical_or.default, _ATEN.logical_not.default),
    ),
    _where: (_ATEN.where.self,),
    _masked_fill: (_ATEN.masked_fill.Scalar,),
    _clamp: (_ATEN.clamp.default,),
    _clone: (_ATEN.clone.default,),
    _to_copy: (_ATEN._to_copy.default,),
    _reduce: (_ATEN.mean.dim, _ATEN.sum.dim_IntList),
    _copy: (_ATEN.copy_.default,),
    _permute: (_ATEN.permute.default,),
    _transpose: (_ATEN.transpose.int,),
    _unsqueeze: (_ATEN.unsqueeze.default,),
    _expand: (_ATEN.expand.default,),
    _reshape: (_ATEN.view.default, _ATEN._unsafe_view.default),
    _slice: (_ATEN.slice.Tensor,),
    _select: (_ATEN.select.int,),
}
RULES: Mapping[Any, Rule] = {op: rule for rule, ops in _OPERATORS.items() for op in ops}
"""Rules by operator."""
