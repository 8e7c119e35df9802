"""Attention."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.cost import FLOPS_PER_MAC, OpCost
from graphflops.registry import register

from ._shapes import contraction, triangle

if TYPE_CHECKING:
    from graphflops.ir import TensorMeta


@register("aten::scaled_dot_product_attention", "aten::_scaled_dot_product_attention_math")
def scaled_dot_product_attention(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    attn_mask: TensorMeta | None,
    dropout_p: float,
    is_causal: bool,
) -> OpCost:
    """softmax(Q K^T / sqrt(D) + mask) V, dense whatever the mask hides.

    Q is (..., H, L, D), K (..., H_kv, S, D), V (..., H_kv, S, D_v), with ... the batch axes.
    With R = prod(...) * H * L query rows and n = R * S scores:

    MACs = n * (D + D_v): every query head attends, so grouped-query attention costs what
    attention over repeated KV heads costs. FLOPs = 2 * MACs, plus PyTorch's own
    decomposition (``_scaled_dot_product_attention_math``): Q and the repeated K each scaled
    once, n additions for a mask (causal included), a softmax of 6 n - 2 R (maximum, test for
    wholly masked rows, subtraction, exp, sum, division), and 2 n for dropout.

    ``is_causal`` is the lower triangle aligned at the top left; what the triangle hides is
    listed in ``flops_masked``: 2 MACs * (hidden / L S). A mask given as a tensor hides what
    its values say, which a count without values cannot know.
    """
    rows, length = prod(query.shape[:-1]), key.shape[-2]
    depth = query.shape[-1] + value.shape[-1]
    scores = rows * length
    product = contraction(scores * depth, query)
    scaling = query.numel + prod(query.shape[:-2]) * length * key.shape[-1]
    softmax = 6 * scores - 2 * rows
    masking = scores if is_causal or attn_mask is not None else 0
    dropout = 2 * scores if dropout_p else 0
    hidden = 0
    if is_causal:
        visible = triangle(query.shape[-2], length)
        hidden = prod(query.shape[:-2]) * (query.shape[-2] * length - visible)
    return product + OpCost(
        flops=scaling + softmax + masking + dropout,
        transcendentals=scores,
        flops_masked=FLOPS_PER_MAC * hidden * depth,
    )
