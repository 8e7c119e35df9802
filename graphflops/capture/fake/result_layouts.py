"""Rules for the layouts of results, for operators whose meta kernels are Python decompositions.

A rule covers the usual arguments and returns None for all others: dense tensors of one
floating-point dtype. It says nothing about errors: arguments that do not fit are not usual.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from graphflops.capture.fake import layer_layouts
from graphflops.capture.fake.layouts import Layout, Rule, is_usual, keeps_strides, row_major

_ATEN = torch.ops.aten
_NUMBERS = (int, float, bool)


@cache
def _broadcast(shape: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the shape of two, if it is that of one of them and has no axis of one element."""
    full, part = (shape, other) if len(shape) >= len(other) else (other, shape)
    if len(full) == len(part):
        full, part = (shape, other) if shape > other else (other, shape)
    if any(size < 2 for size in full):  # noqa: PLR2004 - as above
        return None
    start = len(full) - len(part)
    fits = all(b in {1, a} for a, b in zip(full[start:], part, strict=True))
    return full if fits else None


def _unary(x: torch.Tensor, *_: Any, **__: Any) -> tuple[Layout, ...] | None:
    """Return the layout of ``x``, whatever the numbers that follow."""
    dtype, shape, strides = x.dtype, x.shape, x.stride()
    if not dtype.is_floating_point or not keeps_strides(shape, strides):
        return None
    return (Layout(shape, strides, dtype),)


def _binary(x: Any, y: Any, **_: Any) -> tuple[Layout, ...] | None:
    """Return the layout of a pointwise result of two tensors, or a tensor and a number."""
    if type(y) in _NUMBERS and isinstance(x, torch.Tensor):
        return _unary(x)
    if not (isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)):
        return None
    dtype, shape, strides = x.dtype, x.shape, x.stride()
    if y.dtype != dtype or not dtype.is_floating_point:
        return None
    other, other_strides = y.shape, y.stride()
    if shape == other and strides == other_strides:
        return (Layout(shape, strides, dtype),) if keeps_strides(shape, strides) else None
    if strides != row_major(shape) or other_strides != row_major(other):
        return None
    result = shape if shape == other else _broadcast(shape, other)
    return None if result is None else (Layout(result, row_major(result), dtype),)


def _clone(
    x: torch.Tensor, *, memory_format: torch.memory_format = torch.preserve_format
) -> tuple[Layout, ...] | None:
    shape, strides = x.shape, x.stride()
    if memory_format == torch.contiguous_format:
        return (Layout(shape, row_major(shape), x.dtype),)
    if memory_format != torch.preserve_format or not keeps_strides(shape, strides):
        return None
    return (Layout(shape, strides, x.dtype),)


def _truth(x: torch.Tensor, *axis: Any) -> tuple[Layout, ...] | None:
    """Return the layout of ``all`` or ``any``: of all elements, or along ``dim, keepdim``."""
    shape = list(x.shape) if axis else []
    if axis:
        dim, keeps = (*axis, False)[:2]
        if not -x.dim() <= dim < x.dim():
            return None
        shape[dim % x.dim() : dim % x.dim() + 1] = [1] * keeps
    dtype = x.dtype if x.dtype == torch.uint8 else torch.bool
    return (Layout(tuple(shape), row_major(tuple(shape)), dtype),)


def _cat(tensors: list[torch.Tensor], dim: int = 0) -> tuple[Layout, ...] | None:
    """Return the layout of row-major tensors one after the other along an axis."""
    first = tensors[0]
    shape, dtype, rank = [*first.shape], first.dtype, first.dim()
    # Where an axis within has one element, channels may be the last axis as well.
    if not -rank <= dim < rank or any(size < 2 for size in shape[1:]):  # noqa: PLR2004 - as above
        return None
    dim %= rank
    total = 0
    for tensor in tensors:
        size = tensor.shape
        if tensor.dtype != dtype or len(size) != rank or tensor.stride() != row_major(size):
            return None
        if not size[dim] or any(size[i] != shape[i] for i in range(rank) if i != dim):
            return None
        total += size[dim]
    shape[dim] = total
    return (Layout(tuple(shape), row_major(tuple(shape)), dtype),)


def _roll(x: torch.Tensor, _: Any, dims: list[int] = ()) -> tuple[Layout, ...] | None:  # type: ignore[assignment]  # as the schema has it
    rank = x.dim()
    if not dims or not is_usual(x) or any(not -rank <= dim < rank for dim in dims):
        return None
    return (Layout(x.shape, row_major(x.shape), x.dtype),)


def _pad(x: torch.Tensor, pad: list[int], *_: Any) -> tuple[Layout, ...] | None:
    """Return the layout of a row-major tensor with more elements along its last axes."""
    if len(pad) % 2 or len(pad) > 2 * x.dim() or any(n < 0 for n in pad):
        return None
    if not is_usual(x) or x.requires_grad:
        return None
    shape = [*x.shape]
    for axis, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True), 1):
        shape[-axis] += before + after
    return (Layout(tuple(shape), row_major(tuple(shape)), x.dtype),)


def _compare(x: Any, y: Any, **_: Any) -> tuple[Layout, ...] | None:
    """Return the layout of truth values, where numbers would have it."""
    layouts = _binary(x, y)
    return layouts and (layouts[0]._replace(dtype=torch.bool),)


_OWN_PROMOTION = {torch.bool, torch.complex64, torch.complex128, torch.complex32}
"""Dtypes that are neither floating-point numbers nor integers."""


def _masked_fill(x: torch.Tensor, mask: torch.Tensor, value: Any) -> tuple[Layout, ...] | None:
    shape, other = x.shape, mask.shape
    if mask.dtype != torch.bool or type(value) not in _NUMBERS or not is_usual(x):
        return None
    is_integer = not x.dtype.is_floating_point and x.dtype not in _OWN_PROMOTION
    keeps_dtype = x.dtype.is_floating_point or (is_integer and type(value) is int)
    if mask.stride() != row_major(other) or not keeps_dtype:
        return None
    fits = shape == other or _broadcast(shape, other) == shape
    return (Layout(shape, row_major(shape), x.dtype),) if fits else None


def _same(*tensors: Any, **_: Any) -> tuple[Layout, ...] | None:
    """Return the layout that all tensors share, whatever the numbers beside them."""
    first = tensors[0]
    layout = first.shape, first.stride(), first.dtype
    for other in tensors[1:]:
        if isinstance(other, torch.Tensor) and (other.shape, other.stride(), other.dtype) != layout:
            return None
    return _unary(first)


def _addmm(
    bias: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, **_: Any
) -> tuple[Layout, ...] | None:
    if x.dim() != 2 or weight.dim() != 2 or bias.dim() != 1:  # noqa: PLR2004 - matrices
        return None
    (rows, inner), (other, columns), dtype = x.shape, weight.shape, x.dtype
    if inner != other or bias.shape[0] != columns or not dtype.is_floating_point:
        return None
    if weight.dtype != dtype or bias.dtype != dtype:
        return None
    return (Layout((rows, columns), (max(columns, 1), 1), dtype),)


_OPERATORS: Mapping[Rule, tuple[Any, ...]] = {
    _unary: (
        *(_ATEN.relu.default, _ATEN.gelu.default, _ATEN.exp.default, _ATEN.log.default),
        *(_ATEN.tanh.default, _ATEN.sigmoid.default, _ATEN.rsqrt.default, _ATEN.sqrt.default),
        *(_ATEN.neg.default, _ATEN.abs.default, _ATEN.cos.default, _ATEN.sin.default),
        *(_ATEN.erf.default, _ATEN.reciprocal.default, _ATEN.hardswish.default),
        *(_ATEN.hardsigmoid.default, _ATEN.leaky_relu.default, _ATEN.elu.default),
        *(_ATEN.softplus.default, _ATEN.hardtanh.default, _ATEN.silu.default),
    ),
    _binary: (
        *(_ATEN.add.Tensor, _ATEN.sub.Tensor, _ATEN.mul.Tensor, _ATEN.div.Tensor),
        *(_ATEN.maximum.default, _ATEN.minimum.default, _ATEN.pow.Tensor_Scalar),
    ),
    _same: (
        *(_ATEN.gelu_backward.default, _ATEN.threshold_backward.default),
        *(_ATEN.tanh_backward.default, _ATEN.sigmoid_backward.default),
    ),
    _addmm: (_ATEN.addmm.default,),
    _cat: (_ATEN.cat.default,),
    _roll: (_ATEN.roll.default,),
    _pad: (_ATEN.constant_pad_nd.default,),
    _masked_fill: (_ATEN.masked_fill.Scalar,),
    _compare: (
        *(_ATEN.eq.Scalar, _ATEN.ne.Scalar, _ATEN.lt.Scalar, _ATEN.le.Scalar, _ATEN.gt.Scalar),
        *(_ATEN.ge.Scalar, _ATEN.eq.Tensor, _ATEN.ne.Tensor, _ATEN.lt.Tensor, _ATEN.le.Tensor),
        *(_ATEN.gt.Tensor, _ATEN.ge.Tensor),
    ),
    _clone: (_ATEN.clone.default,),
    _truth: (_ATEN.all.default, _ATEN.all.dim, _ATEN.any.default, _ATEN.any.dim),
    layer_layouts.batch_norm: (_ATEN._native_batch_norm_legit_no_training.default,),
    layer_layouts.batch_norm_of_mode: (_ATEN.native_batch_norm.default,),
    layer_layouts.layer_norm: (_ATEN.native_layer_norm.default,),
    layer_layouts.group_norm: (_ATEN.native_group_norm.default,),
    layer_layouts.layer_norm_backward: (_ATEN.native_layer_norm_backward.default,),
    layer_layouts.batch_norm_backward: (_ATEN.native_batch_norm_backward.default,),
    layer_layouts.convolution: (_ATEN.convolution.default,),
    layer_layouts.convolution_backward: (_ATEN.convolution_backward.default,),
    layer_layouts.softmax_backward: (
        *(_ATEN._softmax_backward_data.default, _ATEN._log_softmax_backward_data.default),
    ),
}
RULES: Mapping[Any, Rule] = {op: rule for rule, ops in _OPERATORS.items() for op in ops}
"""Rules by operator."""
COMPOSITE_RULES: Mapping[Any, Rule] = {
    _ATEN.conv1d.default: layer_layouts.convolution_of_rank(1),
    _ATEN.conv2d.default: layer_layouts.convolution_of_rank(2),
    _ATEN.conv3d.default: layer_layouts.convolution_of_rank(3),
    _ATEN.linear.default: layer_layouts.linear,
}
"""Rules for operators that decompose into others, and allocate their result alone."""
