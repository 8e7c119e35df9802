"""Every form of attention: one count, whatever the kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from calls import count, count_call, meta
from torch import nn
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import graphflops as gf

aten = torch.ops.aten
B, H, L, S, D, DV = 2, 8, 6, 10, 16, 24
HALF = torch.float16
q, k, v = (meta(*size, dtype=HALF) for size in ((B, H, L, D), (B, H, S, D), (B, H, S, DV)))


def work(report: gf.Report) -> tuple[Any, Any, Any]:
    assert report.complete
    return report.macs, report.flops, report.transcendentals


def rows(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """(B, H, L, D) as (B, L, H, D), the layout of the kernels beneath."""
    return [t.transpose(1, 2).contiguous() for t in tensors]


def packed(*tensors: torch.Tensor) -> list[torch.Tensor]:
    """(B, H, L, D) as (B * L, H, D): sequences laid end to end."""
    return [t.flatten(0, 1) for t in rows(*tensors)]


Form = Callable[[bool, float], gf.Report]
starts = meta(B + 1, dtype=torch.int32)
FORMS: dict[str, Form] = {
    "math": lambda causal, p: count(
        lambda q, k, v: aten._scaled_dot_product_attention_math(q, k, v, None, p, causal), q, k, v
    ),
    "flash": lambda causal, p: count(
        lambda q, k, v: aten._scaled_dot_product_flash_attention(q, k, v, p, causal), q, k, v
    ),
    "flash on cpu": lambda causal, p: count(
        lambda q, k, v: aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, p, causal),
        *(q, k, v),
    ),
    "efficient": lambda causal, p: count(
        lambda q, k, v: aten._scaled_dot_product_efficient_attention(
            q, k, v, None, False, p, causal
        ),
        *(q, k, v),
    ),
    "cudnn": lambda causal, p: count(
        lambda q, k, v: aten._scaled_dot_product_cudnn_attention(q, k, v, None, False, p, causal),
        *(q, k, v),
    ),
    "overrideable": lambda causal, p: count(
        lambda q, k, v: aten._scaled_dot_product_fused_attention_overrideable(
            q, k, v, None, p, causal
        ),
        *(q, k, v),
    ),
    "flash forward": lambda causal, p: count(
        lambda q, k, v: aten._flash_attention_forward(q, k, v, None, None, L, S, p, causal, False),
        *rows(q, k, v),
    ),
    "flash forward packed": lambda causal, p: count(
        lambda q, k, v, c: aten._flash_attention_forward(q, k, v, c, c, L, S, p, causal, False),
        *(*packed(q, k, v), starts),
    ),
    "efficient forward": lambda causal, p: count(
        lambda q, k, v: aten._efficient_attention_forward(
            q, k, v, None, None, None, None, None, p, int(causal)
        ),
        *rows(q, k, v),
    ),
    "efficient forward packed": lambda causal, p: count(
        lambda q, k, v, c: aten._efficient_attention_forward(
            q[None], k[None], v[None], None, c, c, L, S, p, int(causal)
        ),
        *(*packed(q, k, v), starts),
    ),
    "cudnn forward": lambda causal, p: count_call(
        aten._cudnn_attention_forward.default,
        *(q, k, v, None, None, None, L, S, False, p, causal),
        out=(meta(B, H, L, DV),),
    ),
    "cudnn forward packed": lambda causal, p: count_call(
        aten._cudnn_attention_forward.default,
        *(*packed(q, k, v), None, starts, starts, L, S, False, p, causal),
        out=(meta(B * L, H, DV),),
    ),
}
# FlashAttention aligns a causal mask at the bottom right.
BOTTOM_RIGHT = {"flash", "flash forward", "flash forward packed"}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize(("causal", "dropout"), [(False, 0.0), (True, 0.0), (True, 0.1)])
def test_every_form_counts_as_the_composite_one(name: str, causal: bool, dropout: float) -> None:
    composite = count(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, None, dropout, causal), q, k, v
    )
    assert work(FORMS[name](causal, dropout)) == work(composite)
    assert composite.macs == 2 * 8 * 6 * 10 * (16 + 24)


@pytest.mark.parametrize("name", FORMS)
def test_what_a_causal_mask_hides_is_counted_where_the_kernel_aligns_it(name: str) -> None:
    offset = S - L if name in BOTTOM_RIGHT else 0
    hidden = sum(j > i + offset for i in range(L) for j in range(S))
    assert FORMS[name](True, 0.0).total.flops_masked == 2 * B * H * hidden * (D + DV)
    assert FORMS[name](False, 0.0).total.flops_masked == 0


def flash(
    length: int, keys: int, left: int | None, right: int | None, *, causal: bool = False
) -> gf.Report:
    return count(
        lambda q, k, v: aten._flash_attention_forward(
            q,
            k,
            v,
            *(None, None, length, keys, 0.0, causal, False),
            window_size_left=left,
            window_size_right=right,
        ),
        *(meta(1, n, 1, 8, dtype=HALF) for n in (length, keys, keys)),
    )


@pytest.mark.parametrize(("length", "keys"), [(7, 7), (4, 9), (9, 4), (1, 6)])
@pytest.mark.parametrize("window", [(2, 0), (0, 0), (1, 3), (None, 2), (3, None), (-1, -1)])
def test_a_sliding_window(length: int, keys: int, window: tuple[int | None, int | None]) -> None:
    left, right = (None if size is None or size < 0 else size for size in window)
    hidden = 0
    for i in range(length):
        here = i + keys - length
        for j in range(keys):
            before = left is not None and j < here - left
            after = right is not None and j > here + right
            hidden += before or after
    report = flash(length, keys, *window)
    assert report.total.flops_masked == 2 * hidden * (8 + 8)
    assert report.macs == length * keys * (8 + 8)


def test_a_causal_window_has_no_right_side() -> None:
    assert flash(7, 7, 2, -1, causal=True).total == flash(7, 7, 2, 0).total


def test_the_window_of_the_efficient_kernel_is_its_last_keys() -> None:
    report = count(
        lambda q, k, v: aten._efficient_attention_forward(
            q, k, v, None, None, None, None, None, 0.0, 2, window_size=3
        ),
        *(meta(1, n, 1, 8, dtype=HALF) for n in (5, 9, 9)),
    )
    # Bottom right: row i sees keys i + 2, i + 3 and i + 4 of 9.
    assert report.total.flops_masked == 2 * 5 * (9 - 3) * (8 + 8)


def test_decoding_one_token_hides_nothing_in_the_flash_kernel() -> None:
    assert flash(1, 100, None, None, causal=True).total.flops_masked == 0


def test_grouped_queries_in_the_kernels_count_by_query_heads() -> None:
    few_k, few_v = meta(B, S, 2, D, dtype=HALF), meta(B, S, 2, DV, dtype=HALF)
    (many_q,) = rows(q)

    def call(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> Any:
        return aten._flash_attention_forward(q, k, v, None, None, L, S, 0.0, False, False)

    grouped, repeated = count(call, many_q, few_k, few_v), count(call, many_q, *rows(k, v))
    assert work(grouped) == work(repeated)
    assert repeated.bytes_read - grouped.bytes_read == 2 * B * S * (H - 2) * (D + DV)


def encoder(**options: Any) -> nn.TransformerEncoderLayer:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, device="meta", **options)
    return layer.eval()


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_the_fused_encoder_layer_costs_what_its_slow_path_costs(
    activation: str, norm_first: bool, masked: bool
) -> None:
    layer = encoder(activation=activation, norm_first=norm_first)
    attention: Any = layer.self_attn
    src = meta(2, 5, 16)
    mask = meta(5, 5) if masked else None
    fused = count_call(
        aten._transformer_encoder_layer_fwd.default,
        *(src, 16, 4, attention.in_proj_weight, attention.in_proj_bias),
        *(attention.out_proj.weight, attention.out_proj.bias, activation == "gelu", norm_first),
        *(1e-5, layer.norm1.weight, layer.norm1.bias, layer.norm2.weight, layer.norm2.bias),
        *(layer.linear1.weight, layer.linear1.bias, layer.linear2.weight, layer.linear2.bias),
        mask,
        out=src,
    )
    slow = gf.count(layer, (src, mask))
    assert "aten::scaled_dot_product_attention" in slow.by_operator()
    assert work(fused) == work(slow)


@pytest.mark.parametrize(("asked", "average"), [(False, False), (True, False), (True, True)])
def test_fused_multi_head_attention_costs_what_its_parts_cost(asked: bool, average: bool) -> None:
    x, y = meta(2, 5, 16), meta(2, 7, 16)
    args = (meta(48, 16), meta(48), meta(16, 16), meta(16))

    def parts(x: torch.Tensor, y: torch.Tensor, *weights: torch.Tensor) -> Any:
        w, b, out, out_b = weights
        q = F.linear(x, w[:16], b[:16]).view(2, 5, 4, 4).transpose(1, 2)
        k = F.linear(y, w[16:32], b[16:32]).view(2, 7, 4, 4).transpose(1, 2)
        v = F.linear(y, w[32:], b[32:]).view(2, 7, 4, 4).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(2, 5, 16)
        return F.linear(mixed, out, out_b)

    fused = count_call(
        aten._native_multi_head_attention.default,
        *(x, y, y, 16, 4, *args, None, asked, average),
        out=(x, meta(2, 5, 7)),
    )
    # The mean of weights over 4 heads: 3 additions and a division.
    averaged = 2 * 4 * 5 * 7 if asked and average else 0
    macs, flops, transcendentals = work(count(parts, x, y, *args))
    assert work(fused) == (macs, flops + averaged, transcendentals)


def test_flex_attention_is_dense_and_its_score_mod_counts_once_per_score() -> None:
    def causal(_b: Any, _h: Any, i: Any, j: Any) -> Any:
        return i >= j

    def distance(score: Any, _b: Any, _h: Any, i: Any, j: Any) -> Any:
        return score + (i - j) * 0.5

    block = create_block_mask(causal, 1, None, 128, 256, device="cpu")
    args = torch.rand(1, 4, 128, 16), torch.rand(1, 2, 256, 16), torch.rand(1, 2, 256, 16)

    flex: Any = flex_attention

    def plain(*args: Any) -> Any:
        return flex(*args, block_mask=block, enable_gqa=True)

    def biased(*args: Any) -> Any:
        return flex(*args, score_mod=distance, block_mask=block, enable_gqa=True)

    dense = count(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True), *args)
    assert work(count(plain, *args)) == work(dense)
    # Without a block mask flex_attention makes one itself, out of integers.
    assert work(count(lambda *a: flex(*a, enable_gqa=True), *args)) == work(dense)
    macs, flops, transcendentals = work(dense)
    # The positions are integers; scaling their distance and adding it are two.
    assert work(count(biased, *args)) == (macs, flops + 2 * 4 * 128 * 256, transcendentals)
