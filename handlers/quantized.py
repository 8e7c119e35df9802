"""Low precision: products of scaled, integer and packed weights, and conversions to and fro.

FLOPs go by the type that is computed in. The scales that a product takes beside its operands
belong to their number format: applying them is a conversion, and conversions are free. A
conversion that is an operator of its own costs its arithmetic, as spelled out in
``torch.ao.quantization.fx._decomposed``.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.memory_traffic import read_all_write_all
from graphflops.pricing.registry import free, register

from ._shapes import contraction, reduced

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta

# Two elements in one byte: the sizes of such a tensor count bytes.
_PAIRED = "float4_e2m1fn_x2"


def _depth(tensor: TensorMeta) -> Dim:
    """Length of the last axis, in elements."""
    return tensor.shape[-1] * (2 if tensor.dtype == _PAIRED else 1)


@register("aten::_scaled_mm", "aten::_scaled_mm_v2")
def scaled_mm(self: TensorMeta, bias: TensorMeta | None, *, out: TensorMeta) -> OpCost:
    """(M, K) @ (K, N) in 8- or 4-bit floats, scaled by rows, columns or blocks.

    MACs = M * K * N, FLOPs = 2 * MACs, and one addition per output for a bias.
    """
    product = contraction(out.numel * _depth(self), out)
    return product if bias is None else product + OpCost(flops=out.numel)


@register("aten::_grouped_mm", "aten::_scaled_grouped_mm", "aten::_scaled_grouped_mm_v2")
def grouped_mm(
    self: TensorMeta, mat2: TensorMeta, bias: TensorMeta | None, *, out: TensorMeta
) -> OpCost:
    """Products of groups that lie end to end along rows, columns or the summed axis.

    Rows (T, K) by experts (G, K, N), or (G, M, K) by columns (K, T): every row or column meets
    exactly one expert, however the groups fall, MACs = numel(out) * K. (M, K) by (K, N), K
    cut into groups with a product (M, N) each: MACs = M * K * N over all groups. FLOPs = 2 *
    MACs, and one addition per output for a bias.
    """
    if len(self.shape) == len(mat2.shape) == 2:
        macs = self.shape[0] * _depth(self) * mat2.shape[1]
    else:
        macs = out.numel * _depth(self)
    product = contraction(macs, out)
    return product if bias is None else product + OpCost(flops=out.numel)


@register("aten::_int_mm")
def int_mm(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """(M, K) @ (K, N) of int8 into int32: MACs = M * K * N; as integers they are no FLOPs."""
    return contraction(out.numel * self.shape[-1], out)


@register(
    *("aten::_weight_int8pack_mm", "aten::_weight_int4pack_mm"),
    *("aten::_weight_int4pack_mm_for_cpu", "aten::_weight_int4pack_mm_with_scales_and_zeros"),
)
def weight_only_mm(self: TensorMeta, *, out: TensorMeta) -> OpCost:
    """(M, K) in floats by a packed integer weight for N outputs, computed in floats.

    MACs = M * K * N, FLOPs = 2 * MACs. Bytes are those of the packed weight.
    """
    return contraction(out.numel * self.shape[-1], out)


@register("aten::_dyn_quant_matmul_4bit")
def dynamic_int4_mm(in_features: Dim, *, out: TensorMeta) -> OpCost:
    """(M, K) in floats, rounded to int8 on the way in, by a packed 4-bit weight for N outputs.

    MACs = M * K * N. The product is computed in integers: no FLOPs.
    """
    return OpCost(macs=out.numel * in_features)


@register("quantized::linear_dynamic", "quantized::linear_relu_dynamic")
def packed_linear_dynamic(W_prepack: TensorMeta, *, out: TensorMeta) -> OpCost:  # noqa: N803 - likewise
    """(..., K) in floats, rounded on the way in, by a packed (N, K), as integers.

    MACs = numel(out) * K, no FLOPs.
    """
    return OpCost(macs=out.numel * W_prepack.shape[1])


@register("quantized::linear_dynamic_fp16", "quantized::linear_relu_dynamic_fp16")
def packed_linear_half(W_prepack: TensorMeta, *, out: TensorMeta) -> OpCost:  # noqa: N803 - likewise
    """(..., K) by a packed (N, K) in half precision: MACs = numel(out) * K, FLOPs = 2 * MACs."""
    return contraction(out.numel * W_prepack.shape[1], out)


free(
    *("aten::_convert_weight_to_int4pack", "aten::_convert_weight_to_int4pack_for_cpu"),
    *("aten::_dyn_quant_pack_4bit_weight", "quantized_decomposed::convert_element_type"),
    reason="packing or conversion: bits are rearranged",
    traffic=read_all_write_all,
)


# round(x * (1 / scale)) + zero, clamped to two bounds; (q - zero) * scale.
_QUANTIZE = 3 + 4
_DEQUANTIZE = 2


def _reciprocals(scale: object) -> Dim:
    """1 / scale, once per scale; of a plain number it is not the graph's work."""
    numel: Dim = getattr(scale, "numel", 0)
    return numel


@register("aten::quantize_per_tensor")
def quantize_aten(self: TensorMeta) -> OpCost:
    """round(x / scale) + zero, clamped to the type's range: 7 per element."""
    return OpCost(flops=_QUANTIZE * self.numel)


@register("aten::quantize_per_tensor.tensors", "aten::quantize_per_tensor.tensors_out")
def quantize_aten_each(tensors: tuple[TensorMeta, ...]) -> OpCost:
    """As ``quantize_per_tensor``, each of a list of tensors: 7 per element."""
    return OpCost(flops=_QUANTIZE * sum((tensor.numel for tensor in tensors), start=0))


@register("aten::quantize_per_channel")
def quantize_aten_by_channel(self: TensorMeta, scales: TensorMeta) -> OpCost:
    """As ``quantize_per_tensor``: 7 per element, and a reciprocal per scale."""
    return OpCost(flops=_QUANTIZE * self.numel + _reciprocals(scales))


@register("aten::dequantize.self")
def dequantize_aten(*, out: TensorMeta) -> OpCost:
    """(q - zero) * scale: 2 per element."""
    return OpCost(flops=_DEQUANTIZE * out.numel)


@register("quantized_decomposed::quantize_per_tensor")
def quantize(input: TensorMeta, scale: object) -> OpCost:
    """round(x / scale) + zero, clamped to two bounds: 7 per element, a reciprocal per scale."""
    return OpCost(flops=_QUANTIZE * input.numel + _reciprocals(scale))


@register(
    *("quantized_decomposed::quantize_per_channel", "quantized_decomposed::quantize_per_token"),
    "quantized_decomposed::quantize_per_channel_group",
)
def quantize_by_parts(input: TensorMeta, scales: TensorMeta) -> OpCost:
    """As ``quantize_per_tensor``, a scale for each channel, token or group."""
    return OpCost(flops=_QUANTIZE * input.numel + _reciprocals(scales))


@register(
    *("quantized_decomposed::dequantize_per_tensor", "quantized_decomposed::dequantize_per_token"),
)
def dequantize(*, out: TensorMeta) -> OpCost:
    """(q - zero) * scale: 2 per element."""
    return OpCost(flops=_DEQUANTIZE * out.numel)


@register("quantized_decomposed::dequantize_per_channel")
def dequantize_by_channel(zero_points: TensorMeta | None, *, out: TensorMeta) -> OpCost:
    """(q - zero) * scale: 2 per element, 1 without zero points."""
    return OpCost(flops=(1 if zero_points is None else _DEQUANTIZE) * out.numel)


@register("quantized_decomposed::dequantize_per_channel_group")
def dequantize_by_group(*, out: TensorMeta) -> OpCost:
    """(q - zero) * scale: 2 per element; without zero points 0 is subtracted."""
    return OpCost(flops=_DEQUANTIZE * out.numel)


@register(
    *("aten::fake_quantize_per_tensor_affine", "aten::fake_quantize_per_channel_affine"),
    *("aten::_fake_quantize_learnable_per_tensor_affine",),
    *("aten::_fake_quantize_learnable_per_channel_affine",),
)
def fake_quantize(self: TensorMeta, scale: object) -> OpCost:
    """Quantized and back: 7 + 2 per element, and a reciprocal per scale."""
    return OpCost(flops=(_QUANTIZE + _DEQUANTIZE) * self.numel + _reciprocals(scale))


@register(
    *("aten::fake_quantize_per_tensor_affine_cachemask",),
    *("aten::fake_quantize_per_channel_affine_cachemask",),
    *("aten::_fake_quantize_per_tensor_affine_cachemask_tensor_qparams",),
)
def fake_quantize_with_mask(self: TensorMeta, scale: object) -> OpCost:
    """As ``fake_quantize``, and two comparisons per element for what was in range."""
    flops = (_QUANTIZE + _DEQUANTIZE + 2) * self.numel
    return OpCost(flops=flops + _reciprocals(scale))


@register(
    *("aten::fused_moving_avg_obs_fake_quant", "aten::_fused_moving_avg_obs_fq_helper"),
    *("aten::_fused_moving_avg_obs_fq_helper_functional",),
)
def observe_and_fake_quantize(
    self: TensorMeta, ch_axis: int, per_row_fake_quant: bool, symmetric_quant: bool
) -> OpCost:
    """Observer and fake quantization in one, both switched on, of n elements with m scales.

    Extrema 2 (n - m); per scale 6 for the moving averages of both and 7 for scale and zero point,
    6 if symmetric; then as ``fake_quantize_per_channel_affine_cachemask``. The switches are
    tensors, whose values are not known. Source: ``FusedObsFakeQuant.cpp``.
    """
    n, m = self.numel, self.shape[ch_axis] if per_row_fake_quant else 1
    observed = 2 * reduced(n, m) + m * (6 + (6 if symmetric_quant else 7))
    return OpCost(flops=observed + (_QUANTIZE + _DEQUANTIZE + 2) * n + m)


@register(
    *("aten::_fake_quantize_learnable_per_tensor_affine_backward",),
    *("aten::_fake_quantize_learnable_per_channel_affine_backward",),
)
def fake_quantize_learnable_backward(self: TensorMeta, scale: TensorMeta) -> OpCost:
    """Of the input what was in range, of scale and zero point sums: 11 per element in range.

    Quantized again (3), two tests, back (2), difference to the input (1), times gradient, 1 /
    scale and factor (3); then n - m additions for m scales, and for m zero points. Source:
    ``FakeQuantAffineKernel.cpp``.
    """
    n = self.numel
    return OpCost(flops=11 * n + 2 * reduced(n, scale.numel))


@register("quantized_decomposed::fake_quant_per_channel")
def fake_quantize_by_channel(input: TensorMeta, scales: TensorMeta) -> OpCost:
    """As ``fake_quantize_per_channel_affine_cachemask``."""
    return OpCost(flops=(_QUANTIZE + _DEQUANTIZE + 2) * input.numel + _reciprocals(scales))


@register("quantized_decomposed::choose_qparams")
def choose_qparams(input: TensorMeta) -> OpCost:
    """Scale and zero point of n elements: extrema 2 (n - 1), then 7.

    Both extrema clipped at 0, their difference divided by the range and held above eps, the
    minimum divided by the scale and rounded.
    """
    return OpCost(flops=2 * (input.numel - 1) + 7)


@register("quantized_decomposed::choose_qparams_symmetric")
def choose_qparams_symmetric(input: TensorMeta) -> OpCost:
    """Scale of n elements: extrema 2 (n - 1), then 6.

    Both extrema clipped at 0, the larger of the maximum and minus the minimum, divided by
    half the range and held above eps.
    """
    return OpCost(flops=2 * (input.numel - 1) + 6)


@register("quantized_decomposed::choose_qparams_per_token")
def choose_qparams_by_token(input: TensorMeta) -> OpCost:
    """Scales of m rows of n elements in all: abs n, maximum n - m, clamped 2 m, divided m."""
    return OpCost(flops=2 * input.numel + 2 * prod(input.shape[:-1]))


@register(
    *("quantized_decomposed::choose_qparams_per_token_asymmetric",),
    *("quantized_decomposed::_choose_qparams_per_token_asymmetric_impl",),
)
def choose_qparams_by_token_asymmetric(input: TensorMeta) -> OpCost:
    """Scale and zero point of m rows of n elements in all: extrema 2 (n - m), then 19 m.

    Per row: both clipped at 0 (2), scaled difference (2) held above eps (2), either end
    divided by the scale (2), errors from either end (2) added and compared (2), zero points
    from either end (2), clamped (4) and rounded (1).
    """
    rows = prod(input.shape[:-1])
    return OpCost(flops=2 * (input.numel - rows) + 19 * rows)
