"""Normalization layers, as PyTorch's reference decompositions spell them out.

``var`` of n elements per group costs 4 n in all: sum, divide (the mean), subtract, multiply,
sum, divide, that is (n - m) + m + n + n + (n - m) + m for n elements in m groups.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta


# running = (1 - momentum) * running + momentum * batch for mean and variance, 3 each, and the
# unbiased variance n / (n - 1) * var.
_RUNNING_UPDATE = 7


def _standardize(
    elements: Dim, groups: Dim, weight: TensorMeta | None, bias: TensorMeta | None
) -> OpCost:
    # var 4n, mean n (sum n - m, divide m), add eps m, rsqrt m, subtract n, multiply n.
    affine = (weight is not None) + (bias is not None)
    return OpCost(flops=(7 + affine) * elements + 2 * groups, transcendentals=groups)


def _evaluated(
    elements: Dim, channels: Dim, weight: TensorMeta | None, bias: TensorMeta | None
) -> OpCost:
    # Per channel: add eps, sqrt, reciprocal, multiply by 1 (torch's decomposition does).
    affine = (weight is not None) + (bias is not None)
    return OpCost(flops=(2 + affine) * elements + 4 * channels, transcendentals=channels)


@register("aten::layer_norm")
def layer_norm(
    input: TensorMeta,
    normalized_shape: tuple[Dim, ...],
    weight: TensorMeta | None,
    bias: TensorMeta | None,
) -> OpCost:
    """(x - mean) * rsqrt(var + eps) * weight + bias over the last axes.

    With n elements in m groups: FLOPs = 7 n + 2 m, and n more for each of weight and bias;
    m of them transcendental. Source: ``torch._refs.native_layer_norm``.
    """
    groups = prod(input.shape[: len(input.shape) - len(normalized_shape)])
    return _standardize(input.numel, groups, weight, bias)


@register("aten::native_layer_norm")
def native_layer_norm(
    input: TensorMeta,
    normalized_shape: tuple[Dim, ...],
    weight: TensorMeta | None,
    bias: TensorMeta | None,
) -> OpCost:
    """As ``layer_norm``; the statistics it returns too are by-products."""
    return layer_norm(input, normalized_shape, weight, bias)


@register("aten::native_group_norm")
def native_group_norm(
    input: TensorMeta,
    weight: TensorMeta | None,
    bias: TensorMeta | None,
    N: Dim,  # noqa: N803 - the schema's name
    group: Dim,
) -> OpCost:
    """As ``group_norm``; the statistics it returns too are by-products."""
    return _standardize(input.numel, N * group, weight, bias)


@register("aten::group_norm")
def group_norm(
    input: TensorMeta,
    num_groups: Dim,
    weight: TensorMeta | None,
    bias: TensorMeta | None,
) -> OpCost:
    """As ``layer_norm`` over N * num_groups groups. Source: ``torch._refs.native_group_norm``."""
    return _standardize(input.numel, input.shape[0] * num_groups, weight, bias)


def channels_of(input: TensorMeta) -> Dim:
    """The channels of a batch; of a single axis, its elements."""
    return input.shape[1] if len(input.shape) > 1 else input.shape[0]


@register(
    *("aten::batch_norm", "aten::native_batch_norm", "aten::_native_batch_norm_legit.default"),
    *("aten::_native_batch_norm_legit_functional", "aten::cudnn_batch_norm"),
    *("aten::miopen_batch_norm", "aten::_batch_norm_impl_index"),
)
def batch_norm(
    input: TensorMeta,
    weight: TensorMeta | None,
    bias: TensorMeta | None,
    running_mean: TensorMeta | None,
    training: bool,
) -> OpCost:
    """(x - mean) * invstd * weight + bias per channel, for n elements in C channels.

    Evaluation: 4 C for 1 / sqrt(running_var + eps), then 2 n, and n for each of weight and
    bias. Training: as ``layer_norm`` over C groups, and 7 C to update the running statistics.
    C transcendental either way. Source: ``torch._decomp`` of ``native_batch_norm``.
    """
    channels = channels_of(input)
    if not training:
        return _evaluated(input.numel, channels, weight, bias)
    update = _RUNNING_UPDATE * channels if running_mean is not None else 0
    return _standardize(input.numel, channels, weight, bias) + OpCost(flops=update)


@register("aten::_native_batch_norm_legit.no_stats")
def batch_norm_untracked(
    input: TensorMeta, weight: TensorMeta | None, bias: TensorMeta | None
) -> OpCost:
    """``batch_norm`` in training, without running statistics."""
    return batch_norm(input, weight, bias, running_mean=None, training=True)


@register("aten::_batch_norm_with_update", "aten::_batch_norm_with_update_functional")
def batch_norm_with_update(
    input: TensorMeta,
    weight: TensorMeta | None,
    bias: TensorMeta | None,
    running_mean: TensorMeta | None,
) -> OpCost:
    """``batch_norm`` in training."""
    return batch_norm(input, weight, bias, running_mean, training=True)


@register("aten::_native_batch_norm_legit_no_training", "aten::_batch_norm_no_update")
def batch_norm_inference(
    input: TensorMeta,
    weight: TensorMeta | None,
    bias: TensorMeta | None,
) -> OpCost:
    """``batch_norm`` in evaluation, as export's core ATen form has it."""
    return _evaluated(input.numel, channels_of(input), weight, bias)


@register("aten::instance_norm")
def instance_norm(
    input: TensorMeta,
    weight: TensorMeta | None,
    bias: TensorMeta | None,
    running_mean: TensorMeta | None,
    use_input_stats: bool,
) -> OpCost:
    """``batch_norm`` with every (sample, channel) pair a channel of its own: N * C groups.

    Running statistics, if kept, are updated per pair (7 N C) and averaged over the batch
    (2 N C). Source: the composite kernel, which calls ``batch_norm`` on (1, N C, ...).
    """
    groups = prod(input.shape[:2])
    if not use_input_stats:
        return _evaluated(input.numel, groups, weight, bias)
    update = (_RUNNING_UPDATE + 2) * groups if running_mean is not None else 0
    return _standardize(input.numel, groups, weight, bias) + OpCost(flops=update)


@register("aten::rms_norm", "aten::_fused_rms_norm")
def rms_norm(
    input: TensorMeta, normalized_shape: tuple[Dim, ...], weight: TensorMeta | None
) -> OpCost:
    """x * rsqrt(mean(x^2) + eps) * weight over the last axes.

    With n elements in m groups: square n, mean n, add m, rsqrt m, multiply n, and n for a
    weight: FLOPs = 3 n + 2 m (+ n), m transcendental. Source: ``torch._decomp`` of
    ``_fused_rms_norm``.
    """
    groups = prod(input.shape[: len(input.shape) - len(normalized_shape)])
    scaled = 0 if weight is None else input.numel
    return OpCost(flops=3 * input.numel + 2 * groups + scaled, transcendentals=groups)
