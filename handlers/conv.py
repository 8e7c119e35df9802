"""Convolutions of every rank, transposed and grouped ones included."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.cost import Dim, OpCost
from graphflops.registry import register

from ._shapes import contraction

if TYPE_CHECKING:
    from graphflops.ir import TensorMeta


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
