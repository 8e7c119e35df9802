"""Fused blocks of transformers: the same work as the modules they stand for."""

from __future__ import annotations

from math import prod

from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import TensorMeta
from graphflops.pricing.registry import register

from ._heads import Heads
from ._shapes import contraction
from .activation import gelu
from .attention import Attention, attend
from .norm import layer_norm


@register("aten::_native_multi_head_attention")
def multi_head_attention(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    num_head: int,
    mask: TensorMeta | None,
    need_weights: bool,
    average_attn_weights: bool,
) -> OpCost:
    """Projections of Q, K and V, attention by heads, projection of the result, all biased.

    (B, L, E), (B, S, E) and (B, S, E): MACs = B E^2 (2 L + 2 S) + 2 B L S E; the projections'
    biases add B E (2 L + 2 S), attention is that of ``scaled_dot_product_attention``. Weights
    asked for are averaged over the heads (B H L S FLOPs), unless by ``average_attn_weights``.
    """
    weights = need_weights and average_attn_weights
    return _multi_head(query, key, value, num_head, mask, weights=weights)


@register("aten::_triton_multi_head_attention")
def triton_multi_head_attention(
    query: TensorMeta, key: TensorMeta, value: TensorMeta, num_head: int, mask: TensorMeta | None
) -> OpCost:
    """As ``_native_multi_head_attention``, its weights not asked for."""
    return _multi_head(query, key, value, num_head, mask)


@register("aten::_transformer_encoder_layer_fwd")
def encoder_layer(
    src: TensorMeta,
    num_heads: int,
    use_gelu: bool,
    norm_weight_1: TensorMeta,
    norm_bias_1: TensorMeta,
    ffn_weight_1: TensorMeta,
    ffn_weight_2: TensorMeta,
    mask: TensorMeta | None,
) -> OpCost:
    """A whole ``nn.TransformerEncoderLayer`` in evaluation, normed first or last.

    Multi-head attention and two linear layers with relu or gelu between them, each with a
    residual addition and a layer norm: what the layer's slow path costs, call by call.
    """
    tokens = src.shape[:-1]
    middle = TensorMeta((*tokens, ffn_weight_1.shape[0]), src.dtype)
    activation = gelu("none", out=middle) if use_gelu else OpCost(flops=middle.numel)
    norm = layer_norm(src, src.shape[-1:], norm_weight_1, norm_bias_1)
    return (
        _multi_head(src, src, src, num_heads, mask)
        + _projection(src, ffn_weight_1.shape[0])
        + activation
        + _projection(middle, ffn_weight_2.shape[0])
        + (norm + OpCost(flops=src.numel)) * 2
    )


def _multi_head(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    num_heads: int,
    mask: TensorMeta | None,
    *,
    weights: bool = False,
) -> OpCost:
    batch, queries, width = query.shape
    keys = key.shape[1]
    heads = Heads(
        number=batch * num_heads,
        kv_number=batch * num_heads,
        queries=queries,
        keys=keys,
        depth=width // num_heads,
        value_depth=width // num_heads,
    )
    # The result that is projected in the end has the shape of the query.
    sides = (query, key, value, query)
    projections = sum((_projection(side, width) for side in sides), start=OpCost())
    averaged = batch * num_heads * queries * keys if weights else 0
    attention = attend(Attention(heads, query, masked=mask is not None))
    return projections + attention + OpCost(flops=averaged)


def _projection(rows: TensorMeta, width: Dim) -> OpCost:
    outputs = prod(rows.shape[:-1]) * width
    return contraction(outputs * rows.shape[-1], rows) + OpCost(flops=outputs)
