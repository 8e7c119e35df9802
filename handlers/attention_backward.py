"""Attention backward: one formula, whatever form it takes, and recomputed scores apart.

A fused kernel keeps no scores. Its backward computes five products: Q K^T once more, and the
four that any backward of attention needs, dP = dO V^T, dV = P^T dO, dQ = dS K and dK = dS^T Q.
The four are priced here as the operator's own work. The first is recomputation, as of a
checkpoint: a capture splits it off as a call of ``graphflops::attention_scores``, whose
overload names the backward operator and which takes its arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, signature
from typing import TYPE_CHECKING, TypeVar

from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import ATTENTION_SCORES
from graphflops.pricing.registry import register

from ._heads import heads_of
from ._shapes import reduced
from .attention import (
    Attention,
    Packing,
    bottom_right,
    cudnn,
    masked_by_type,
    packed,
    products,
    top_left,
    windowed,
)

if TYPE_CHECKING:
    from graphflops.core.ir import OpCall, TensorMeta


def differentiate(attention: Attention, unused: frozenset[str] = frozenset()) -> OpCost:
    """The products of the backward, and the elementwise work of the composite form's.

    With R = heads * L query rows and n = R * S scores, four products: MACs = n * 2 (D + D_v),
    twice the forward's. FLOPs = 2 * MACs, the softmax's backward 4 n - R (product, sum, product,
    subtraction), dQ and the dK of every query head each scaled once, n for dropout, and one
    addition for each element of the dK and dV of query heads that share a KV head.
    ``flops_masked`` are the products of hidden scores. What only ``unused`` gradients need, of
    ``"query"``, ``"key"`` and ``"value"``, is left out.
    """
    heads, scores = attention.heads, attention.heads.scores
    query, key, value = (int(name not in unused) for name in ("query", "key", "value"))
    # dQ and dK, dV, and the dP that the first two come from.
    depth = heads.depth * (query + key) + heads.value_depth * (value + (query or key))
    scaled = heads.rows * query + heads.number * heads.keys * key
    elementwise = heads.depth * scaled
    if query or key:
        elementwise += 3 * scores + reduced(scores, heads.rows)
        elementwise += scores if attention.dropout else 0
    shared = heads.depth * key + heads.value_depth * value
    elementwise += (heads.number - heads.kv_number) * heads.keys * shared
    return products(attention, depth) + OpCost(flops=elementwise)


def recompute(attention: Attention, unused: frozenset[str] = frozenset()) -> OpCost:
    """P = exp(scale * Q K^T + mask - logsumexp), inside a kernel: no bytes move.

    With n scores: MACs = n * D. FLOPs = 2 * MACs, Q and the K of every query head each scaled
    once, n for a mask, n for the subtraction and n for exp, transcendental. A kernel makes all
    gradients: what the ``unused`` ones take is listed here too.
    """
    scores = attention.heads.scores
    masked = scores if attention.masked else 0
    again = products(attention, attention.heads.depth) + OpCost(
        flops=attention.heads.scaling + masked + 2 * scores, transcendentals=scores
    )
    return again + differentiate(attention) + differentiate(attention, unused) * -1


Describe = TypeVar("Describe", bound=Callable[..., "Attention | list[Attention]"])


def _backward(*ops: str, namespace: str = "aten") -> Callable[[Describe], Describe]:
    """Register the backward and the recomputation of operators described by one function."""

    def decorate(describe: Describe) -> Describe:
        names = (f"{namespace}::{op}" for op in ops)
        register(*names, position_dependent=False)(_priced(describe, differentiate))
        scores = _priced(describe, recompute)
        scores.__doc__ = recompute.__doc__
        names = (f"{ATTENTION_SCORES}.{op}" for op in ops)
        register(*names, traffic=None, position_dependent=False)(scores)
        return describe

    return decorate


def _priced(describe: Describe, price: Callable[..., OpCost]) -> Callable[..., OpCost]:
    """A handler that takes what ``describe`` takes, and prices what it says."""

    @wraps(describe)
    def handler(*, call: OpCall, **arguments: object) -> OpCost:
        found = describe(**arguments)
        attentions = [found] if isinstance(found, Attention) else found
        return sum((price(each, call.discarded_gradients) for each in attentions), start=OpCost())

    call = Parameter("call", Parameter.KEYWORD_ONLY)
    declared = signature(describe)
    # What the registry reads.
    handler.__signature__ = declared.replace(  # type: ignore[attr-defined]  # inspect's own way
        parameters=[*declared.parameters.values(), call]
    )
    return handler


@_backward("_scaled_dot_product_flash_attention_backward")
def flash_attention_backward(
    query: TensorMeta, key: TensorMeta, value: TensorMeta, dropout_p: float, is_causal: bool
) -> Attention:
    """Backward of attention: four products, MACs = scores * 2 (D + D_v), twice the forward's.

    Elementwise as in the composite form's backward, the scores computed again are priced apart
    (``graphflops::attention_scores``). Causal is aligned at the bottom right.
    """
    return bottom_right(query, key, value, dropout_p, is_causal)


@_backward("_scaled_dot_product_flash_attention_for_cpu_backward")
def flash_attention_for_cpu_backward(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    dropout_p: float,
    is_causal: bool,
    attn_mask: TensorMeta | None,
) -> Attention:
    """As ``_scaled_dot_product_flash_attention_backward``; causal is aligned at the top left."""
    return top_left(query, key, value, attn_mask, dropout_p, is_causal)


@_backward(
    "_scaled_dot_product_efficient_attention_backward",
    "_scaled_dot_product_fused_attention_overrideable_backward",
)
def fused_attention_backward(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    attn_bias: TensorMeta | None,
    dropout_p: float,
    is_causal: bool,
) -> Attention:
    """As ``_scaled_dot_product_flash_attention_backward``; causal is aligned at the top left."""
    return top_left(query, key, value, attn_bias, dropout_p, is_causal)


@_backward("_scaled_dot_product_cudnn_attention_backward", "_cudnn_attention_backward")
def cudnn_attention_backward(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    attn_bias: TensorMeta | None,
    cum_seq_q: TensorMeta | None,
    cum_seq_k: TensorMeta | None,
    max_q: Dim,
    max_k: Dim,
    dropout_p: float,
    is_causal: bool,
) -> list[Attention]:
    """As ``_scaled_dot_product_flash_attention_backward``, laid out as the forward.

    Causal is aligned at the top left.
    """
    packing = Packing((cum_seq_q, cum_seq_k), (max_q, max_k), (max_q, max_k))
    return cudnn(query, key, value, attn_bias, dropout_p, is_causal, packing)


@_backward("_flash_attention_backward")
def windowed_attention_backward(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    cum_seq_q: TensorMeta | None,
    cum_seq_k: TensorMeta | None,
    max_q: Dim,
    max_k: Dim,
    dropout_p: float,
    is_causal: bool,
    window_size_left: Dim | None,
    window_size_right: Dim | None,
) -> list[Attention]:
    """As ``_scaled_dot_product_flash_attention_backward``, of ``_flash_attention_forward``."""
    padded = (query.shape[1], key.shape[1])
    packing = Packing((cum_seq_q, cum_seq_k), (max_q, max_k), padded)
    window = (window_size_left, window_size_right)
    heads = packed(query, value, packing)
    return [windowed(h, query, dropout_p, is_causal, window) for h in heads]


@_backward("_varlen_attn_backward", namespace="torch_attn")
def varlen_attention_backward(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    cu_seq_q: TensorMeta,
    cu_seq_k: TensorMeta | None,
    max_q: Dim,
    max_k: Dim,
    is_causal: bool,
    window_size: tuple[int, int] | None,
) -> list[Attention]:
    """As ``_scaled_dot_product_flash_attention_backward``, of ``_varlen_attn``."""
    return windowed_attention_backward(
        *(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, 0.0, is_causal),
        *(window_size or (None, None)),
    )


@_backward("_efficient_attention_backward")
def efficient_attention_backward(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    bias: TensorMeta | None,
    cu_seqlens_q: TensorMeta | None,
    cu_seqlens_k: TensorMeta | None,
    max_seqlen_q: Dim,
    max_seqlen_k: Dim,
    dropout_p: float,
    custom_mask_type: int,
    window_size: int | None,
) -> list[Attention]:
    """As ``_scaled_dot_product_flash_attention_backward``, of ``_efficient_attention_forward``."""
    padded = (query.shape[1], key.shape[1])
    longest = (max_seqlen_q, max_seqlen_k)
    heads = packed(query, value, Packing((cu_seqlens_q, cu_seqlens_k), longest, padded))
    mask = (bias, custom_mask_type, window_size)
    return [masked_by_type(h, query, dropout_p, mask) for h in heads]


@register("higher_order::flex_attention_backward")
def flex_attention_backward(query: TensorMeta, key: TensorMeta, value: TensorMeta) -> OpCost:
    """As ``_scaled_dot_product_flash_attention_backward`` over (B, H, L, D), dense.

    What ``joint_graph`` does to each score is not in it, as ``score_mod`` is not in the forward.
    """
    return differentiate(Attention(heads_of(query, key, value), query))
