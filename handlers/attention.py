"""Attention: one formula, whatever form it takes.

Forms differ in how the heads lie in memory, in how sequences are packed and in how a causal
mask is aligned where queries and keys differ in number. The work does not.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from graphflops.core.cost import FLOPS_PER_MAC, Dim, OpCost, triangle
from graphflops.pricing.registry import register

from ._heads import Heads, heads_of
from ._shapes import contraction, reduced

if TYPE_CHECKING:
    from collections.abc import Iterable

    from graphflops.core.ir import TensorMeta


class Attention(NamedTuple):
    """Attention of any form, in common terms; ``hidden`` are the scores that masks hide."""

    heads: Heads
    like: TensorMeta
    masked: bool = False
    dropout: float = 0
    hidden: Dim = 0


def attend(attention: Attention) -> OpCost:
    """softmax(Q K^T / sqrt(D) + mask) V, dense whatever the mask hides.

    With R = heads * L query rows and n = R * S scores: MACs = n * (D + D_v). FLOPs = 2 * MACs,
    plus PyTorch's own decomposition (``_scaled_dot_product_attention_math``): Q and the K of
    every query head each scaled once, n additions for a mask, a softmax of 6 n - 2 R (maximum,
    test for wholly masked rows, subtraction, exp, sum, division), and 2 n for dropout.
    ``flops_masked`` are the MACs of ``hidden`` scores, times 2.
    """
    heads, scores = attention.heads, attention.heads.scores
    depth = heads.depth + heads.value_depth
    softmax = 4 * scores + 2 * reduced(scores, heads.rows)
    extra = (scores if attention.masked else 0) + (2 * scores if attention.dropout else 0)
    return products(attention, depth) + OpCost(
        flops=heads.scaling + softmax + extra, transcendentals=scores
    )


def products(attention: Attention, depth: Dim) -> OpCost:
    """Products of all scores with vectors of ``depth`` elements in all."""
    heads = attention.heads
    masked = FLOPS_PER_MAC * attention.hidden * depth
    return contraction(heads.scores * depth, attention.like) + OpCost(flops_masked=masked)


def _beyond(heads: Heads, diagonal: Dim) -> Dim:
    """Scores above a diagonal."""
    return heads.scores - _up_to(heads, diagonal)


def _up_to(heads: Heads, diagonal: Dim) -> Dim:
    """Scores on or below a diagonal."""
    return heads.number * triangle(heads.queries, heads.keys, diagonal)


def hidden_by(mask: TensorMeta | None, heads: Heads) -> Dim:
    """Scores that a mask hides, which heads and rows may share."""
    if mask is None or not mask.masked_elements:
        return 0
    hidden, elements = mask.masked_elements * heads.scores, mask.numel
    whole = isinstance(hidden, int) and isinstance(elements, int)
    return hidden // elements if whole else hidden / elements


def top_left(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    mask: TensorMeta | None,
    dropout: float,
    causal: bool,
) -> Attention:
    """A form of ``heads_of``, its causal mask aligned at the top left."""
    heads = heads_of(query, key, value)
    hidden = _beyond(heads, 0) if causal else hidden_by(mask, heads)
    return Attention(heads, query, causal or mask is not None, dropout, hidden)


def bottom_right(
    query: TensorMeta, key: TensorMeta, value: TensorMeta, dropout: float, causal: bool
) -> Attention:
    """A form of ``heads_of``, its causal mask aligned at the bottom right."""
    heads = heads_of(query, key, value)
    hidden = _beyond(heads, heads.keys - heads.queries) if causal else 0
    return Attention(heads, query, causal, dropout, hidden)


@register(
    *("aten::scaled_dot_product_attention", "aten::_scaled_dot_product_attention_math"),
    "aten::_scaled_dot_product_attention_math_for_mps",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
)
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
    Every query head attends, so grouped-query attention costs what attention over repeated KV
    heads costs. With R = prod(...) * H * L query rows and n = R * S scores: MACs =
    n * (D + D_v); FLOPs = 2 * MACs, Q and the repeated K scaled, n for a mask, 6 n - 2 R for
    the softmax and 2 n for dropout.

    ``is_causal`` is the lower triangle aligned at the top left; what the triangle hides is
    listed in ``flops_masked``: 2 MACs * (hidden / L S). A mask given as a tensor hides what
    its values say: they are known where they follow from positions and from known inputs.
    """
    return attend(top_left(query, key, value, attn_mask, dropout_p, is_causal))


@register(
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
)
def fused_attention(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    attn_bias: TensorMeta | None,
    dropout_p: float,
    is_causal: bool,
) -> OpCost:
    """As ``scaled_dot_product_attention``, its mask called a bias; causal is top left too."""
    return attend(top_left(query, key, value, attn_bias, dropout_p, is_causal))


@register("aten::_scaled_dot_product_flash_attention")
def flash_attention(
    query: TensorMeta, key: TensorMeta, value: TensorMeta, dropout_p: float, is_causal: bool
) -> OpCost:
    """As ``scaled_dot_product_attention``, but causal is aligned at the bottom right.

    Row i of L sees keys up to i + S - L (FlashAttention since 2.1), so that decoding one token
    against a cache hides nothing. For L = S it is the same.
    """
    return attend(bottom_right(query, key, value, dropout_p, is_causal))


def attend_all(attentions: Iterable[Attention]) -> OpCost:
    """Attention within each of several groups of sequences."""
    return sum(map(attend, attentions), start=OpCost())


class Packing(NamedTuple):
    """Sequences laid end to end, or padded.

    Attributes:
        starts: Where those of queries and of keys begin, the end of the last one included;
            keys that have none of their own begin where queries do. ``None`` if padded.
        longest: The lengths of the longest queries and keys.
        padded: The lengths if they are padded.
    """

    starts: tuple[TensorMeta | None, TensorMeta | None]
    longest: tuple[Dim, Dim]
    padded: tuple[Dim, Dim]

    def lengths(self, batch: Dim) -> dict[tuple[Dim, Dim], Dim]:
        """Number of sequences by length of queries and keys; the longest if starts are unknown."""
        of_queries, of_keys = self.starts
        if of_queries is None:
            return {self.padded: batch}
        of_keys = of_keys or of_queries
        if of_queries.known_values is None or of_keys.known_values is None:
            return {self.longest: of_queries.shape[0] - 1}
        found: dict[tuple[Dim, Dim], Dim] = {}
        for lengths in zip(
            *map(_steps, (of_queries.known_values, of_keys.known_values)), strict=True
        ):
            found[lengths] = found.get(lengths, 0) + 1
        return found


def _steps(starts: tuple[int, ...]) -> list[int]:
    return [end - start for start, end in pairwise(starts)]


def packed(query: TensorMeta, value: TensorMeta, packing: Packing) -> list[Heads]:
    """Of Q (B, L, H, D), or of packed (tokens, H, D), the sequences of each length."""
    return [
        Heads(
            number=sequences * query.shape[-2],
            kv_number=sequences * value.shape[-2],
            queries=queries,
            keys=keys,
            depth=query.shape[-1],
            value_depth=value.shape[-1],
        )
        for (queries, keys), sequences in packing.lengths(query.shape[0]).items()
    ]


@register("aten::_flash_attention_forward", "aten::_flash_attention_forward_no_dropout_inplace")
def flash_attention_forward(
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
) -> OpCost:
    """Attention of (B, L, H, D), or within each of the packed sequences of (tokens, H, D).

    Where these begin are values: if they are not known, each counts max_q x max_k scores, an
    upper bound. Row i of L sees keys from c - ``window_size_left`` to c + ``window_size_right``,
    c = i + S - L; causal is 0 to the right, a negative window none. What that hides is listed
    in ``flops_masked``, as far as the window is a plain number.
    """
    padded = (query.shape[1], key.shape[1])
    heads = packed(query, value, Packing((cum_seq_q, cum_seq_k), (max_q, max_k), padded))
    window = (window_size_left, window_size_right)
    return attend_all(windowed(h, query, dropout_p, is_causal, window) for h in heads)


@register("torch_attn::_varlen_attn")
def varlen_attention(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    cu_seq_q: TensorMeta,
    cu_seq_k: TensorMeta | None,
    max_q: Dim,
    max_k: Dim,
    is_causal: bool,
    window_size: tuple[int, int] | None,
) -> OpCost:
    """As ``_flash_attention_forward`` of packed (tokens, H, D)."""
    return flash_attention_forward(
        *(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, 0.0, is_causal),
        *(window_size or (None, None)),
    )


def windowed(
    heads: Heads,
    like: TensorMeta,
    dropout: float,
    causal: bool,
    window: tuple[Dim | None, Dim | None],
) -> Attention:
    """A form whose rows see a window (left, right) around their place from the bottom right."""
    diagonal = heads.keys - heads.queries
    left, right = _window(window[0]), 0 if causal else _window(window[1])
    hidden: Dim = 0
    if right is not None:
        hidden += _beyond(heads, diagonal + right)
    if left is not None:
        hidden += _up_to(heads, diagonal - left - 1)
    return Attention(heads, like, left is not None or right is not None, dropout, hidden)


def _window(size: Dim | None) -> int | None:
    """A window's reach to one side; ``None`` where it has no end."""
    return size if isinstance(size, int) and size >= 0 else None


@register("aten::_efficient_attention_forward")
def efficient_attention_forward(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    bias: TensorMeta | None,
    cu_seqlens_q: TensorMeta | None,
    cu_seqlens_k: TensorMeta | None,
    max_seqlen_q: Dim | None,
    max_seqlen_k: Dim | None,
    dropout_p: float,
    custom_mask_type: int,
    window_size: int | None,
) -> OpCost:
    """Attention of (B, L, H, D), or within each of the packed sequences of (1, tokens, H, D).

    If where these begin is not known, each counts max_q x max_k scores. ``custom_mask_type`` is 1
    for causal from the top left, 2 from the bottom right; a ``window_size`` w then leaves each
    row its last w keys (``mem_eff_attention/kernel_forward.h``).
    """
    padded = (query.shape[1], key.shape[1])
    longest = (
        padded[0] if max_seqlen_q is None else max_seqlen_q,
        padded[1] if max_seqlen_k is None else max_seqlen_k,
    )
    heads = packed(query, value, Packing((cu_seqlens_q, cu_seqlens_k), longest, padded))
    mask = (bias, custom_mask_type, window_size)
    return attend_all(masked_by_type(h, query, dropout_p, mask) for h in heads)


def masked_by_type(
    heads: Heads,
    like: TensorMeta,
    dropout: float,
    mask: tuple[TensorMeta | None, int, int | None],
) -> Attention:
    """A form masked by a bias and a ``custom_mask_type``, which a ``window_size`` narrows."""
    bias, kind, window = mask
    hidden = hidden_by(bias, heads)
    if kind:
        diagonal = heads.keys - heads.queries if kind == 2 else 0
        hidden = _beyond(heads, diagonal)
        if window:
            hidden += _up_to(heads, diagonal - window)
    return Attention(heads, like, bias is not None or kind != 0, dropout, hidden)


@register("aten::_cudnn_attention_forward")
def cudnn_attention_forward(
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
) -> OpCost:
    """Attention of (B, H, L, D), or within each of the packed sequences of (tokens, H, D).

    If where these begin is not known, each counts max_q x max_k scores. Causal is top left.
    """
    packing = Packing((cum_seq_q, cum_seq_k), (max_q, max_k), (max_q, max_k))
    return attend_all(cudnn(query, key, value, attn_bias, dropout_p, is_causal, packing))


def cudnn(
    query: TensorMeta,
    key: TensorMeta,
    value: TensorMeta,
    mask: TensorMeta | None,
    dropout: float,
    causal: bool,
    packing: Packing,
) -> list[Attention]:
    """As ``top_left``, or packed."""
    if packing.starts[0] is None:
        return [top_left(query, key, value, mask, dropout, causal)]
    masked = causal or mask is not None
    return [
        Attention(h, query, masked, dropout, _beyond(h, 0) if causal else 0)
        for h in packed(query, value, packing)
    ]


@register("aten::_triton_scaled_dot_attention")
def triton_attention(q: TensorMeta, k: TensorMeta, v: TensorMeta, dropout_p: float) -> OpCost:
    """As ``scaled_dot_product_attention``, without a mask."""
    return attend(Attention(heads_of(q, k, v), q, dropout=dropout_p))


@register("higher_order::flex_attention")
def flex_attention(query: TensorMeta, key: TensorMeta, value: TensorMeta) -> OpCost:
    """As ``scaled_dot_product_attention`` over (B, H, L, D), dense.

    ``score_mod`` is counted apart, once per score. What ``mask_mod`` and the block mask hide
    are values, which a count without them cannot know.
    """
    return attend(Attention(heads_of(query, key, value), query))
