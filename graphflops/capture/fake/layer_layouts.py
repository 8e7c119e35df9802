"""Rules for the layouts of the results of layers, and of their backward passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from graphflops.capture.fake.layouts import (
    Layout,
    Layouts,
    Rule,
    is_usual,
    keeps_strides,
    row_major,
)


def convolution(*args: Any) -> Layouts | None:
    """Return the layout of a convolution of row-major tensors, which is row-major."""
    x, weight, bias, *steps, is_transposed, output_padding, groups = args
    shape, kernel, rank = x.shape, weight.shape, x.dim() - 2
    given = [x, weight] if bias is None else [x, weight, bias]
    if rank < 1 or len(kernel) != len(shape) or not x.dtype.is_floating_point:
        return None
    if any(t.dtype != x.dtype or t.stride() != row_major(t.shape) or 0 in t.shape for t in given):
        return None
    inner, outer = (0, 1) if is_transposed else (1, 0)
    channels = kernel[outer] * (groups if is_transposed else 1)
    if groups < 1 or shape[1] != kernel[inner] * (1 if is_transposed else groups):
        return None
    if kernel[0] % groups or (bias is not None and bias.shape != (channels,)):
        return None
    geometry = [_per_axis(values, rank) for values in (*steps, output_padding)]
    sizes = [
        _transposed_size(*axis) if is_transposed else _convolved_size(*axis)
        for axis in zip(shape[2:], kernel[2:], *geometry, strict=True)
    ]
    if any(size < 1 for size in sizes):
        return None
    result = (shape[0], channels, *sizes)
    return (Layout(result, row_major(result), x.dtype),)


def convolution_of_rank(rank: int) -> Rule:
    """Return the rule of a function for convolutions of batches with a number of axes."""

    def rule(  # noqa: PLR0913, PLR0917 - the schema's
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: Any = None,
        stride: Sequence[int] = (1,),
        padding: Sequence[int] = (0,),
        dilation: Sequence[int] = (1,),
        groups: int = 1,
    ) -> Layouts | None:
        if x.dim() != rank + 2:  # without a batch axis, it gets one
            return None
        return convolution(x, weight, bias, stride, padding, dilation, False, (0,), groups)

    return rule


def linear(x: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> Layouts | None:
    """Return the layout of a product of a row-major tensor with a matrix of weights."""
    shape, sizes, dtype = x.shape, weight.shape, x.dtype
    if len(shape) < 2 or len(sizes) != 2 or x.stride() != row_major(shape):  # noqa: PLR2004 - rows
        return None
    if weight.dtype != dtype or not dtype.is_floating_point or shape[-1] != sizes[1]:
        return None
    if bias is not None and (bias.dtype != dtype or bias.shape != sizes[:1]):
        return None
    result = (*shape[:-1], sizes[0])
    return None if 0 in (*shape, *sizes) else (Layout(result, row_major(result), dtype),)


def layer_norm(
    x: torch.Tensor, normalized: list[int], weight: Any, bias: Any, _: float
) -> Layouts | None:
    """Return the layouts of a layer norm, which copies its input row by row, and its statistics."""
    shape, dtype, rank = x.shape, x.dtype, len(normalized)
    if dtype != torch.float32 or 0 in shape:
        return None
    if rank < 1 or tuple(shape[-rank:]) != tuple(normalized):
        return None
    if x.stride() != row_major(shape) and x.is_contiguous():
        return None  # no copy: an axis of one element has a stride of its own
    for tensor in (weight, bias):
        if tensor is not None and (tensor.dtype != dtype or tensor.shape != shape[-rank:]):
            return None
    outer = (*shape[:-rank], *(1,) * rank)
    statistics = Layout(outer, row_major(outer), dtype)
    return Layout(shape, row_major(shape), dtype), statistics, statistics


def group_norm(  # noqa: PLR0913, PLR0917 - the schema's
    x: torch.Tensor,
    weight: Any,
    bias: Any,
    batch: int,
    channels: int,
    _: int,
    groups: int,
    __: float,
) -> Layouts | None:
    """Return the layouts of a group norm and its statistics."""
    shape, dtype = x.shape, x.dtype
    if dtype != torch.float32 or x.stride() != row_major(shape) or shape[:2] != (batch, channels):
        return None
    if 0 in shape or groups < 1 or channels % groups:
        return None
    for tensor in (weight, bias):
        if tensor is not None and (tensor.dtype != dtype or tensor.shape != (channels,)):
            return None
    statistics = Layout((batch, groups), (groups, 1), dtype)
    return Layout(shape, row_major(shape), dtype), statistics, statistics


def batch_norm(*args: Any) -> Layouts | None:
    """Return the layouts of a batch norm in evaluation: of its statistics, the CPU returns none."""
    x, *tensors, _, _ = args
    if not _has_channels(x) or not _are_per_channel(tensors, x):
        return None
    saved = Layout((0,) if x.fake_device.type == "cpu" else (x.shape[1],), (1,), x.dtype)
    return _like(x), saved, saved


def batch_norm_of_mode(*args: Any) -> Layouts | None:
    """Return the layouts of a batch norm in evaluation, or one by the statistics of a batch."""
    x, *tensors, is_training, momentum, eps = args
    if not is_training:
        return batch_norm(x, *tensors, momentum, eps)
    given = [tensor for tensor in tensors if tensor is not None]
    if not _has_channels(x) or not _are_per_channel(given, x) or x.numel() == x.shape[1]:
        return None
    saved = Layout((x.shape[1],), (1,), x.dtype)
    return _like(x), saved, saved


def layer_norm_backward(*args: Any) -> Layouts | None:
    """Return the layouts of the gradients of a layer norm's input, weight and bias."""
    gradient, x, normalized, *_, weight, bias, mask = args
    shape, inner = x.shape, tuple(normalized)
    given = [gradient, x, *(tensor for tensor in (weight, bias) if tensor is not None)]
    if any(tensor.dtype != torch.float32 for tensor in given) or gradient.shape != shape:
        return None
    if not x.stride() == gradient.stride() == row_major(shape):
        return None
    if not 0 < len(inner) < len(shape) or tuple(shape[-len(inner) :]) != inner or 0 in shape:
        return None
    of_weight = Layout(inner, row_major(inner), x.dtype)
    return _masked(
        mask,
        Layout(shape, row_major(shape), x.dtype),
        None if weight is None else of_weight,
        None if bias is None else of_weight,
    )


def batch_norm_backward(*args: Any) -> Layouts | None:
    """Return the layouts of the gradients of a batch norm's input, weight and bias."""
    gradient, x, weight, mean, variance, saved_mean, saved_deviation, is_training, _, mask = args
    statistics = (saved_mean, saved_deviation) if is_training else (mean, variance)
    given = [tensor for tensor in (weight, *statistics) if tensor is not None]
    if not (_has_channels(x) and is_usual(x) and is_usual(gradient)) or None in statistics:
        return None
    if gradient.dtype != x.dtype or gradient.shape != x.shape or not _are_per_channel(given, x):
        return None
    per_channel = Layout((x.shape[1],), (1,), x.dtype)
    return _masked((True, *mask[1:]), _like(x), per_channel, per_channel)


def convolution_backward(*args: Any) -> Layouts | None:
    """Return the layouts of the gradients of a convolution's input, weight and bias."""
    gradient, x, weight, bias_sizes, *geometry, mask = args
    dtype, result = gradient.dtype, convolution(x, weight, None, *geometry)
    if not result or result[0] != Layout(gradient.shape, gradient.stride(), dtype):
        return None
    channels = list(gradient.shape[1:2])
    bias = tuple(bias_sizes or ())
    if mask[2] and list(bias) != channels:
        return None
    shapes = x.shape, weight.shape, bias
    return _masked(mask, *(Layout(tuple(shape), row_major(shape), dtype) for shape in shapes))


def softmax_backward(
    gradient: torch.Tensor, result: torch.Tensor, dim: int, dtype: torch.dtype
) -> Layouts | None:
    """Return the layout of the gradient of a softmax's input, or its logarithm's."""
    shape, strides = gradient.shape, row_major(gradient.shape)
    if not -len(shape) <= dim < len(shape) or 0 in shape or result.shape != shape:
        return None
    if any(t.stride() != strides or t.dtype != dtype for t in (gradient, result)):
        return None
    return (Layout(shape, strides, dtype),) if dtype.is_floating_point else None


def _per_axis(values: Sequence[int], rank: int) -> Sequence[int]:
    """Return numbers for each axis, of which one may stand for all."""
    return [*values] * rank if len(values) == 1 else values


def _convolved_size(
    size: int, kernel: int, stride: int, padding: int, dilation: int, _: int
) -> int:
    reach = dilation * (kernel - 1)
    is_usual = stride > 0 and padding >= 0 and dilation > 0
    return (size + 2 * padding - reach - 1) // stride + 1 if is_usual else 0


def _transposed_size(  # noqa: PLR0913, PLR0917 - a size and the geometry along its axis
    size: int, kernel: int, stride: int, padding: int, dilation: int, extra: int
) -> int:
    is_usual = stride > 0 and padding >= 0 and dilation > 0 and 0 <= extra < max(stride, dilation)
    return (
        (size - 1) * stride - 2 * padding + dilation * (kernel - 1) + extra + 1 if is_usual else 0
    )


def _has_channels(x: torch.Tensor) -> bool:
    """Return True for a dense batch of numbers, in whose order no axis is ambiguous."""
    if x.dtype != torch.float32 or x.dim() < 2 or not x.shape[0]:  # noqa: PLR2004 - batch, channels
        return False
    return all(size > 1 for size in x.shape[1:]) and keeps_strides(x.shape, x.stride())


def _are_per_channel(tensors: Sequence[torch.Tensor | None], x: torch.Tensor) -> bool:
    """Return True if all tensors have a number for each channel of a batch."""
    return all(t is not None and (t.dtype, t.shape) == (x.dtype, x.shape[1:2]) for t in tensors)


def _like(x: torch.Tensor) -> Layout:
    return Layout(x.shape, x.stride(), x.dtype)


def _masked(mask: Sequence[bool], *layouts: Layout | None) -> Layouts:
    """Return the layouts of the results that are asked for."""
    pairs = zip(layouts, mask, strict=True)
    return tuple(layout if is_wanted else None for layout, is_wanted in pairs)
