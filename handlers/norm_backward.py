"""Backward of normalization layers, as ``torch._decomp`` spells them out.

Each gradient costs something only where it is asked for; what several need counts once. The
decompositions compute some of it whether it is used or not; that is left out.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

from ._shapes import reduced
from .norm import channels_of

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

Mask = tuple[bool, bool, bool]


@register("aten::native_layer_norm_backward")
def layer_norm_backward(
    input: TensorMeta,
    normalized_shape: tuple[Dim, ...],
    weight: TensorMeta | None,
    bias: TensorMeta | None,
    output_mask: Mask,
) -> OpCost:
    """With x' = (x - mean) rstd and h = g w, rstd / N * (N h - sum(h) - x' sum(h x')).

    With n elements in m groups of N: x' 2 n; the input's gradient 8 n - m (N h, two sums, two
    products, two subtractions, division m, product), and n for a weight; the weight's 2 n - N
    (g x' summed), the bias's n - N.
    """
    n, size = input.numel, prod(normalized_shape)
    groups = prod(input.shape[: len(input.shape) - len(normalized_shape)])
    of_input, of_weight, of_bias = output_mask
    of_weight, of_bias = of_weight and weight is not None, of_bias and bias is not None
    flops: Dim = 2 * n if of_input or of_weight else 0
    if of_input:
        flops += 6 * n + 2 * reduced(n, groups) + groups + (0 if weight is None else n)
    flops += n + reduced(n, size) if of_weight else 0
    flops += reduced(n, size) if of_bias else 0
    return OpCost(flops=flops)


@register("aten::_fused_rms_norm_backward")
def rms_norm_backward(
    input: TensorMeta,
    normalized_shape: tuple[Dim, ...],
    weight: TensorMeta | None,
    output_mask: tuple[bool, bool],
) -> OpCost:
    """With x' = x rstd and h = g w, rstd (h - x' / N sum(h x')).

    With n elements in m groups of N: x' n; the input's gradient 6 n - m (product, sum,
    division, product, subtraction, product), and n for a weight; the weight's 2 n - N.
    """
    n, size = input.numel, prod(normalized_shape)
    groups = prod(input.shape[: len(input.shape) - len(normalized_shape)])
    of_input, of_weight = output_mask[0], output_mask[1] and weight is not None
    flops: Dim = n if of_input or of_weight else 0
    if of_input:
        flops += 5 * n + reduced(n, groups) + (0 if weight is None else n)
    flops += n + reduced(n, size) if of_weight else 0
    return OpCost(flops=flops)


@register("aten::native_group_norm_backward")
def group_norm_backward(
    input: TensorMeta,
    weight: TensorMeta | None,
    N: Dim,  # noqa: N803 - the schema's name
    C: Dim,  # noqa: N803 - the schema's name
    group: Dim,
    output_mask: Mask,
) -> OpCost:
    """Sums of g and of g x per sample and channel, and from these all three gradients.

    With n elements, s = N C sums and m = N * group groups: sum of g n - s, of g x 2 n - s. The
    input's gradient is g a + x b + c with coefficients of 11 m + s and two sums of s to m,
    2 s more for a weight: 4 n + 3 s + 9 m. The weight's 4 s - C, the bias's s - C.
    """
    n, sums, groups = input.numel, N * C, N * group
    of_input, of_weight, of_bias = output_mask
    flops: Dim = reduced(n, sums) if of_input or of_weight or of_bias else 0
    flops += n + reduced(n, sums) if of_input or of_weight else 0
    if of_input:
        flops += 4 * n + sums + 2 * reduced(sums, groups) + 11 * groups
        flops += 0 if weight is None else 2 * sums
    flops += 3 * sums + reduced(sums, C) if of_weight else 0
    flops += reduced(sums, C) if of_bias else 0
    return OpCost(flops=flops)


@register("aten::native_batch_norm_backward", "aten::_batch_norm_impl_index_backward")
def batch_norm_backward(input: TensorMeta, train: bool, output_mask: Mask) -> OpCost:
    """(g - mean(g) - (x - mean) * dot * invstd^2) * invstd * w, dot = mean(g (x - mean)).

    With n elements in C channels: sum of g n - C, dot 3 n - C, the input's gradient 5 n + 5 C
    on top of both; the weight's needs dot and C, the bias's the sum. In evaluation the
    statistics are constants: the input's gradient is n + C, and 1 / sqrt(running_var + eps)
    costs it or the weight's 2 C, half of them transcendental. A missing weight is 1.
    """
    n, channels = input.numel, channels_of(input)
    of_input, of_weight, of_bias = output_mask
    flops: Dim = 0
    flops += reduced(n, channels) if of_bias or (of_input and train) else 0
    flops += 2 * n + reduced(n, channels) if of_weight or (of_input and train) else 0
    flops += channels if of_weight else 0
    if of_input:
        flops += 5 * (n + channels) if train else n + channels
    if train or not (of_input or of_weight):
        return OpCost(flops=flops)
    return OpCost(flops=flops + 2 * channels, transcendentals=channels)


@register("aten::batch_norm_backward")
def batch_norm_backward_by_update(input: TensorMeta, update: bool, output_mask: Mask) -> OpCost:
    """As ``native_batch_norm_backward``; ``update`` says that it was training."""
    return batch_norm_backward(input, update, output_mask)


@register("aten::cudnn_batch_norm_backward", "aten::miopen_batch_norm_backward")
def vendor_batch_norm_backward(input: TensorMeta) -> OpCost:
    """As ``native_batch_norm_backward`` in training, all three gradients."""
    return batch_norm_backward(input, train=True, output_mask=(True, True, True))


@register("aten::batch_norm_backward_reduce")
def batch_norm_backward_reduce(input: TensorMeta, weight_g: bool) -> OpCost:
    """The sums of ``native_batch_norm_backward``, of one process: 4 n - 2 C, and C for a weight.

    Sum of g n - C, of g (x - mean) 3 n - C, the weight's gradient from it C.
    """
    n, channels = input.numel, channels_of(input)
    scaled = channels if weight_g else 0
    return OpCost(flops=2 * n + 2 * reduced(n, channels) + scaled)


@register("aten::batch_norm_backward_elemt")
def batch_norm_backward_elemt(input: TensorMeta) -> OpCost:
    """The rest of ``native_batch_norm_backward`` from sums of all processes: 5 n + 5 C."""
    return OpCost(flops=5 * (input.numel + channels_of(input)))


@register("aten::_weight_norm_interface_backward", "aten::_weight_norm_differentiable_backward")
def weight_norm_backward(saved_v: TensorMeta, saved_g: TensorMeta) -> OpCost:
    """g / |v| (grad - v sum(grad v) / |v|^2), and for g the sum / |v|.

    With n elements in ``v`` and m norms: 5 n - m (product, sum, product, subtraction, product)
    and 4 m. Source: ``_weight_norm_differentiable_backward``.
    """
    n, norms = saved_v.numel, saved_g.numel
    return OpCost(flops=4 * n + reduced(n, norms) + 4 * norms)
