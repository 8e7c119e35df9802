"""Convolutions of every rank, transposed and grouped ones included."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

from ._shapes import contraction, summed

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta


@register("aten::conv1d", "aten::conv2d", "aten::conv3d")
def conv(
    input: TensorMeta, weight: TensorMeta, bias: TensorMeta | None, *, out: TensorMeta
) -> OpCost:
    """Convolution, (N, C, *spatial) with a weight (C_out, C / groups, *kernel).

    Each output element is a dot product over C / groups channels and the whole window,
    padding included: MACs = numel(out) * (C / groups) * prod(kernel); FLOPs = 2 * MACs, plus
    one addition per output for a bias.
    """
    return _convolution(out.numel, weight, bias, input, out)


@register("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
def conv_transpose(
    input: TensorMeta,
    weight: TensorMeta,
    bias: TensorMeta | None,
    *,
    out: TensorMeta,
) -> OpCost:
    """Transposed convolution, (N, C, *spatial) with a weight (C, C_out / groups, *kernel).

    Each *input* element is spread over C_out / groups channels and the whole window:
    MACs = numel(input) * (C_out / groups) * prod(kernel); FLOPs = 2 * MACs, plus one addition
    per output for a bias.
    """
    return _convolution(input.numel, weight, bias, input, out)


@register("aten::convolution", "aten::_convolution", "aten::convolution_overrideable")
def convolution(
    input: TensorMeta,
    weight: TensorMeta,
    bias: TensorMeta | None,
    transposed: bool,
    *,
    out: TensorMeta,
) -> OpCost:
    """The general form: as ``conv2d``, or as ``conv_transpose2d`` if ``transposed``."""
    return _convolution(input.numel if transposed else out.numel, weight, bias, input, out)


def _convolution(
    positions: Dim, weight: TensorMeta, bias: TensorMeta | None, like: TensorMeta, out: TensorMeta
) -> OpCost:
    product = contraction(positions * prod(weight.shape[1:]), like)
    return product if bias is None else product + OpCost(flops=out.numel)


@register(
    *("aten::_slow_conv2d_forward", "aten::thnn_conv2d", "aten::slow_conv3d_forward"),
    *("aten::slow_conv_dilated2d", "aten::slow_conv_dilated3d"),
    *("aten::_conv_depthwise2d", "aten::conv_depthwise3d", "aten::mkldnn_convolution"),
    *("aten::miopen_convolution", "aten::_mps_convolution"),
)
def conv_kernel(
    self: TensorMeta, weight: TensorMeta, bias: TensorMeta | None, *, out: TensorMeta
) -> OpCost:
    """As ``conv2d``: the kernels that ``convolution`` chooses from."""
    return _convolution(out.numel, weight, bias, self, out)


@register("aten::slow_conv_transpose2d", "aten::slow_conv_transpose3d")
def conv_transpose_kernel(
    self: TensorMeta, weight: TensorMeta, bias: TensorMeta | None, *, out: TensorMeta
) -> OpCost:
    """As ``conv_transpose2d``: the kernels that ``convolution`` chooses from."""
    return _convolution(self.numel, weight, bias, self, out)


@register("aten::conv_tbc")
def conv_tbc(self: TensorMeta, weight: TensorMeta, *, out: TensorMeta) -> OpCost:
    """Convolution of (T, B, C) with a weight (kernel, C, C_out) and a bias.

    MACs = numel(out) * kernel * C; FLOPs = 2 * MACs, plus one addition per output.
    """
    return contraction(out.numel * prod(weight.shape[:2]), self) + OpCost(flops=out.numel)


@register("aten::convolution_backward", "aten::convolution_backward_overrideable")
def convolution_backward(
    grad_output: TensorMeta,
    input: TensorMeta,
    weight: TensorMeta,
    transposed: bool,
    output_mask: tuple[bool, bool, bool],
) -> OpCost:
    """Gradients of input, weight and bias, each where ``output_mask`` asks for it.

    Both gradients of the product contain each of its terms once, so either costs the forward's
    MACs, whatever the groups: numel(grad_output) * (C / groups) * prod(kernel), or
    numel(input) * (C_out / groups) * prod(kernel) if ``transposed``. The bias's sums
    numel(grad_output) elements to C_out.
    """
    positions = input.numel if transposed else grad_output.numel
    return _gradients(positions * prod(weight.shape[1:]), grad_output, 1, output_mask)


@register("aten::_slow_conv2d_backward.output_mask", "aten::mps_convolution_backward")
def conv_kernel_backward(
    grad_output: TensorMeta, weight: TensorMeta, output_mask: tuple[bool, bool, bool]
) -> OpCost:
    """As ``convolution_backward``, not transposed."""
    macs = grad_output.numel * prod(weight.shape[1:])
    return _gradients(macs, grad_output, 1, output_mask)


@register("aten::_slow_conv2d_backward.grad_input")
def slow_conv_backward(grad_output: TensorMeta, weight: TensorMeta) -> OpCost:
    """As ``convolution_backward``, all three gradients."""
    macs = grad_output.numel * prod(weight.shape[1:])
    return _gradients(macs, grad_output, 1, (True, True, True))


@register("aten::mps_convolution_transpose_backward")
def mps_conv_transpose_backward(
    self: TensorMeta, grad_output: TensorMeta, weight: TensorMeta, output_mask: tuple[bool, bool]
) -> OpCost:
    """As ``convolution_backward`` if ``transposed``, without a bias."""
    return _gradients(self.numel * prod(weight.shape[1:]), grad_output, 1, (*output_mask, False))


@register("aten::conv_tbc_backward")
def conv_tbc_backward(self: TensorMeta, weight: TensorMeta) -> OpCost:
    """All three gradients, as ``convolution_backward``; ``self`` is that of the output."""
    return _gradients(self.numel * prod(weight.shape[:2]), self, 2, (True, True, True))


def _gradients(
    macs: Dim, grad_output: TensorMeta, channels: int, asked: tuple[bool, bool, bool]
) -> OpCost:
    """Of input and weight, ``macs`` each, and of the bias, along the axis ``channels``."""
    of_input, of_weight, of_bias = asked
    cost = contraction((of_input + of_weight) * macs, grad_output)
    return cost + summed(grad_output, grad_output.shape[channels]) if of_bias else cost
