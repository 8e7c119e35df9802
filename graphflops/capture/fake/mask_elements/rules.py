"""Propagation rules: the element of an operator's result from the elements of its arguments.

A rule names the parameters of the operator's schema that it needs. Tensors are passed as elements;
a rule returns None where the result is not tracked. Further parameters are ``sizes``, the shape of
the first tensor, ``all_sizes``, the shapes of all, ``out``, the shape of the result, ``dtype_in``
and ``dtype_out``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import sympy
import torch

from graphflops.capture.fake.mask_elements.expressions import (
    axes_of,
    index,
    is_truth,
    number,
    truth,
)
from graphflops.capture.fake.mask_elements.ranges import decide_conditions

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
"""Rules by overload."""


def _rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a rule for all overloads of some operators, in place or not."""

    def decorate(rule: Rule) -> Rule:
        for name in names:
            for full in (name, f"{name}_"):
                packet = getattr(torch.ops.aten, full, None)
                for overload in packet.overloads() if packet is not None else ():
                    if "out" not in overload:
                        RULES[getattr(packet, overload)] = rule
        return rule

    return decorate


# Arithmetic.


@_rule("add")
def _add(self: Any, other: Any, alpha: Any = 1) -> Any:
    return number(self) + alpha * number(other)


@_rule("sub")
def _sub(self: Any, other: Any, alpha: Any = 1) -> Any:
    return number(self) - alpha * number(other)


@_rule("rsub")
def _rsub(self: Any, other: Any, alpha: Any = 1) -> Any:
    return number(other) - alpha * number(self)


@_rule("mul")
def _mul(self: Any, other: Any) -> Any:
    if is_truth(self) and is_truth(other):
        return sympy.And(self, other)
    return number(self) * number(other)


@_rule("neg")
def _neg(self: Any) -> Any:
    return -number(self)


@_rule("abs")
def _abs(self: Any) -> Any:
    return sympy.Abs(number(self))


@_rule("floor_divide")
def _floor_divide(self: Any, other: Any) -> Any:
    return sympy.floor(number(self) / number(other))


@_rule("div")
def _div(self: Any, other: Any, rounding_mode: str | None = None) -> Any:
    return _floor_divide(self, other) if rounding_mode == "floor" else None


@_rule("remainder")
def _remainder(self: Any, other: Any) -> Any:
    return number(self) - number(other) * _floor_divide(self, other)


@_rule("minimum")
def _minimum(self: Any, other: Any) -> Any:
    return sympy.Min(number(self), number(other))


@_rule("maximum")
def _maximum(self: Any, other: Any) -> Any:
    return sympy.Max(number(self), number(other))


# Comparisons and logic.


def _comparison(name: str, relation: Any) -> None:
    def compare(self: Any, other: Any) -> Any:
        return relation(number(self), number(other))

    _rule(name)(compare)


for _name in ("le", "lt", "ge", "gt", "eq", "ne"):
    _comparison(_name, getattr(sympy, _name.capitalize()))


def _connective(name: str, connect: Any) -> None:
    def logical(self: Any, other: Any) -> Any:
        return connect(truth(self), truth(other))

    def bitwise(self: Any, other: Any) -> Any:
        return connect(self, other) if is_truth(self) and is_truth(other) else None

    _rule(f"logical_{name}")(logical)
    _rule(f"bitwise_{name}")(bitwise)


for _name, _connect in (("and", sympy.And), ("or", sympy.Or), ("xor", sympy.Xor)):
    _connective(_name, _connect)


@_rule("logical_not")
def _logical_not(self: Any) -> Any:
    return sympy.Not(truth(self))


@_rule("bitwise_not")
def _bitwise_not(self: Any) -> Any:
    return sympy.Not(self) if is_truth(self) else None


@_rule("where")
def _where(condition: Any, self: Any, other: Any) -> Any:
    condition = truth(condition)
    if is_truth(self) and is_truth(other):
        chosen = sympy.And(condition, self)
        return sympy.Or(chosen, sympy.And(sympy.Not(condition), other))
    return sympy.Piecewise((number(self), condition), (number(other), True))


@_rule("masked_fill")
def _masked_fill(self: Any, mask: Any, value: Any) -> Any:
    return _where(mask, value, self)


# New tensors.


@_rule("arange")
def _arange(start: Any = 0, step: Any = 1) -> Any:
    return start + step * index(0)


@_rule("ones", "ones_like", "new_ones")
def _ones(dtype_out: torch.dtype) -> Any:
    return sympy.true if dtype_out == torch.bool else sympy.Integer(1)


@_rule("zeros", "zeros_like", "new_zeros")
def _zeros(dtype_out: torch.dtype) -> Any:
    return sympy.false if dtype_out == torch.bool else sympy.Integer(0)


@_rule("full", "full_like", "new_full", "fill")
def _full(dtype_out: torch.dtype, fill_value: Any = None, value: Any = None) -> Any:
    filled = value if fill_value is None else fill_value
    return truth(filled) if dtype_out == torch.bool else number(filled)


# Copies.


@_rule("alias", "detach", "clone", "lift_fresh", "lift_fresh_copy", "expand", "contiguous")
def _identity(self: Any) -> Any:
    return self


@_rule("_to_copy", "to")
def _to_copy(self: Any, dtype_out: torch.dtype, dtype_in: torch.dtype) -> Any:
    if dtype_out == torch.bool:
        return truth(self)
    element = number(self)
    if dtype_out.is_floating_point == dtype_in.is_floating_point:
        return element
    # Positions become floats to compute rotary angles, of which no mask is made.
    is_mask_like = is_truth(self) or not axes_of(element) or element.is_Function
    return element if is_mask_like and dtype_out.is_floating_point else None


# Views: indices of the argument are replaced by indices of the result.


def _axis(dim: int, sizes: Sequence[Any]) -> int:
    return len(sizes) - 1 - dim % len(sizes)


def _reindex(element: Any, indices: dict[int, Any]) -> Any:
    return element.xreplace({index(axis): sympy.sympify(new) for axis, new in indices.items()})


@_rule("unsqueeze", "squeeze", "view", "reshape", "_unsafe_view")
def _reshape(self: Any, sizes: Sequence[Any], out: Sequence[Any]) -> Any:
    if not axes_of(self):
        return self
    old_axes = [axis for axis, size in enumerate(reversed(sizes)) if size != 1]
    new_axes = [axis for axis, size in enumerate(reversed(out)) if size != 1]
    if [sizes[-1 - axis] for axis in old_axes] != [out[-1 - axis] for axis in new_axes]:
        return None
    return _reindex(self, dict(zip(old_axes, map(index, new_axes), strict=True)))


@_rule("permute")
def _permute(self: Any, dims: Sequence[int], sizes: Sequence[Any]) -> Any:
    last = len(sizes) - 1
    return _reindex(self, {_axis(dim, sizes): index(last - i) for i, dim in enumerate(dims)})


@_rule("transpose")
def _transpose(self: Any, dim0: int, dim1: int, sizes: Sequence[Any]) -> Any:
    if not sizes:
        return self
    axis0, axis1 = _axis(dim0, sizes), _axis(dim1, sizes)
    return _reindex(self, {axis0: index(axis1), axis1: index(axis0)})


@_rule("t")
def _t(self: Any, sizes: Sequence[Any]) -> Any:
    return _transpose(self, 0, 1, sizes) if len(sizes) > 1 else self


@_rule("select")
def _select(self: Any, dim: int, index_: Any, sizes: Sequence[Any]) -> Any:
    axis = _axis(dim, sizes)
    selected = index_ + sizes[-1 - axis] if _is_negative(index_) else index_
    outer = {other: index(other - 1) for other in range(axis + 1, len(sizes))}
    return _reindex(self, {axis: selected} | outer)


@_rule("slice")
def _slice(  # noqa: PLR0913, PLR0917 - the schema's parameters, and the shapes
    self: Any, dim: int, start: Any, step: Any, sizes: Sequence[Any], out: Sequence[Any]
) -> Any:
    axis = _axis(dim, sizes)
    first = 0 if start is None else start
    if _is_negative(first):
        first = sympy.Max(first + sizes[-1 - axis], 0)
    # A padded mask, cut to what was padded, is one again.
    return decide_conditions(_reindex(self, {axis: first + step * index(axis)}), out)


def _is_negative(value: Any) -> bool:
    return value < 0 if isinstance(value, int) else bool(value.is_negative)


@_rule("index")
def _index(self: Any, indices: Sequence[Any], sizes: Sequence[Any]) -> Any:
    if not axes_of(self):
        return self
    if len(indices) != len(sizes) or any(item is None or is_truth(item) for item in indices):
        return None
    return _reindex(self, {_axis(dim, sizes): item for dim, item in enumerate(indices)})


# Reductions, concatenation, padding.


@_rule("cumsum")
def _cumsum(self: Any, dim: int, sizes: Sequence[Any]) -> Any:
    axis = _axis(dim, sizes)
    return None if axis in axes_of(self) else number(self) * (index(axis) + 1)


@_rule("sum")
def _sum(
    self: Any, sizes: Sequence[Any], dim: Sequence[int] | None = None, keepdim: Any = None
) -> Any:
    dims = range(len(sizes)) if dim is None or not len(dim) else dim
    summed = {_axis(d, sizes) for d in dims}
    if summed & set(axes_of(self)):
        return None
    remaining = [axis for axis in range(len(sizes)) if axis not in summed]
    total = number(self)
    for axis in summed:
        total *= sizes[-1 - axis]
    return total if keepdim else _reindex(total, {k: index(n) for n, k in enumerate(remaining)})


@_rule("all", "any")
def _all_or_any(self: Any, out: Sequence[Any]) -> Any:
    return None if out or axes_of(self) else truth(self)


@_rule("cat")
def _cat(tensors: Sequence[Any], dim: int, all_sizes: Sequence[Sequence[Any]]) -> Any:
    axis = _axis(dim, all_sizes[0])
    result, start = tensors[0], all_sizes[0][-1 - axis]
    for element, sizes in zip(tensors[1:], all_sizes[1:], strict=True):
        shifted = _reindex(element, {axis: index(axis) - start})
        result = _join(result, shifted, axis, start)
        start += sizes[-1 - axis]
    return result


def _join(first: Any, second: Any, axis: int, start: Any) -> Any:
    """Return ``first`` before an index along an axis, and ``second`` from it on."""
    extended = _reindex(second, {axis: 0}) if start == 1 else second
    are_numbers = not is_truth(first) and not is_truth(extended)
    if first == extended or (are_numbers and sympy.expand(first - extended) == 0):
        return second  # its expression holds before the index too
    return _where(sympy.Lt(index(axis), start), first, second)


@_rule("constant_pad_nd")
def _constant_pad(self: Any, pad: Sequence[Any], value: Any, sizes: Sequence[Any]) -> Any:
    element = self
    for axis in range(len(pad) // 2):
        before, size = pad[2 * axis], sizes[-1 - axis]
        element = _reindex(element, {axis: index(axis) - before})
        is_inside = sympy.And(sympy.Ge(index(axis), before), sympy.Lt(index(axis), before + size))
        element = _where(is_inside, element, truth(value) if is_truth(element) else value)
    return element


@_rule("tril")
def _tril(self: Any, diagonal: Any) -> Any:
    return _where(sympy.Le(index(0) - index(1), diagonal), self, _zero(self))


@_rule("triu")
def _triu(self: Any, diagonal: Any) -> Any:
    return _where(sympy.Ge(index(0) - index(1), diagonal), self, _zero(self))


def _zero(element: Any) -> Any:
    return sympy.false if is_truth(element) else sympy.Integer(0)
