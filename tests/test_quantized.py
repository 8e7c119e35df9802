"""Products in low precision, and conversions to and fro."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers its operators
from calls import count, count_call, meta

aten, decomposed = torch.ops.aten, torch.ops.quantized_decomposed
BF16, F8, I8 = torch.bfloat16, torch.float8_e4m3fn, torch.int8
offsets = meta(4, dtype=torch.int32)


@pytest.mark.parametrize(
    ("function", "args", "macs", "flops"),
    [
        (
            lambda a, b, s: aten._scaled_mm(a, b.t(), s, s, None, None, BF16),
            (meta(16, 32, dtype=F8), meta(48, 32, dtype=F8), meta(1)),
            16 * 32 * 48,
            2 * 16 * 32 * 48,
        ),
        # With a bias: one addition per output.
        (
            lambda a, b, s, c: aten._scaled_mm(a, b.t(), s, s, c, None, BF16),
            (meta(16, 32, dtype=F8), meta(48, 32, dtype=F8), meta(1), meta(48, dtype=BF16)),
            16 * 32 * 48,
            2 * 16 * 32 * 48 + 16 * 48,
        ),
        # Integers: multiply-accumulates, but no floating-point operations.
        (aten._int_mm, (meta(32, 16, dtype=I8), meta(16, 24, dtype=I8)), 32 * 16 * 24, 0),
        (
            aten._weight_int8pack_mm,
            (meta(8, 16, dtype=BF16), meta(24, 16, dtype=I8), meta(24, dtype=BF16)),
            8 * 16 * 24,
            2 * 8 * 16 * 24,
        ),
        # 16 outputs of 64 inputs, in tiles of 8 x 64 and 8 codes in 32 bits.
        (
            lambda a, w, s: aten._weight_int4pack_mm(a, w, 32, s),
            (meta(8, 64, dtype=BF16), meta(2, 1, 32, 4, dtype=torch.int32), meta(2, 16, 2)),
            8 * 64 * 16,
            2 * 8 * 64 * 16,
        ),
        (
            lambda a, w, s: aten._weight_int4pack_mm_for_cpu(a, w, 32, s),
            (meta(8, 64, dtype=BF16), meta(16, 32, dtype=torch.uint8), meta(2, 16, 2)),
            8 * 64 * 16,
            2 * 8 * 64 * 16,
        ),
        (
            lambda a, w: aten._dyn_quant_matmul_4bit(a, w, 32, 64, 16),
            (meta(8, 64), meta(700, dtype=torch.uint8)),
            8 * 64 * 16,
            0,
        ),
        # 32 rows, each to one of 4 experts.
        (
            aten._grouped_mm,
            (meta(32, 16, dtype=BF16), meta(4, 16, 24, dtype=BF16), offsets),
            32 * 16 * 24,
            2 * 32 * 16 * 24,
        ),
        # 24 columns, each of one of 4 experts.
        (
            aten._grouped_mm,
            (meta(4, 8, 16, dtype=BF16), meta(16, 24, dtype=BF16), offsets),
            8 * 16 * 24,
            2 * 8 * 16 * 24,
        ),
        # 32 summed positions, each of one of 4 experts: the weight gradient.
        (
            aten._grouped_mm,
            (meta(16, 32, dtype=BF16), meta(32, 24, dtype=BF16), offsets),
            16 * 32 * 24,
            2 * 16 * 32 * 24,
        ),
        (
            aten._grouped_mm,
            (meta(4, 8, 16, dtype=BF16), meta(4, 16, 24, dtype=BF16)),
            4 * 8 * 16 * 24,
            2 * 4 * 8 * 16 * 24,
        ),
        (
            lambda a, b, s, t, o: aten._scaled_grouped_mm(
                a, b.transpose(1, 2), s, t, o, None, None, BF16
            ),
            (
                *(meta(32, 16, dtype=F8), meta(4, 32, 16, dtype=F8)),
                *(meta(32), meta(4, 32), offsets),
            ),
            32 * 16 * 32,
            2 * 32 * 16 * 32,
        ),
    ],
)
def test_products(
    function: Callable[..., Any], args: tuple[torch.Tensor, ...], macs: int, flops: int
) -> None:
    report = count(function, *args)
    assert (report.macs, report.flops) == (macs, flops)


def test_four_bit_floats_lie_in_pairs() -> None:
    pairs = torch.float4_e2m1fn_x2
    report = count_call(
        aten._scaled_mm.default,
        *(meta(16, 32, dtype=pairs), meta(32, 48, dtype=pairs), meta(64), meta(192)),
        out=meta(16, 48, dtype=BF16),
    )
    assert report.macs == 16 * 64 * 48
    # Half a byte each, and scales of 4 bytes.
    assert report.bytes_read == (16 * 64 + 64 * 48) // 2 + 4 * (64 + 192)


def test_a_packed_weight_moves_its_packed_bytes() -> None:
    args = meta(8, 64, dtype=BF16), meta(16, 32, dtype=torch.uint8), meta(2, 16, 2, dtype=BF16)
    report = count(lambda a, w, s: aten._weight_int4pack_mm_for_cpu(a, w, 32, s), *args)
    assert report.bytes_read == 2 * 8 * 64 + 16 * 64 // 2 + 2 * 2 * 16 * 2


x, channels, zeros = meta(8, 16), meta(8), meta(8, dtype=torch.int64)
codes = meta(8, 16, dtype=I8)


def rounded(x: torch.Tensor, scale: Any, zero: Any) -> torch.Tensor:
    """The textbook quantization, bounds included; 1 / scale of a number costs nothing."""
    # ``1.0 / tensor`` is a reciprocal and a multiplication by 1, which no kernel does.
    inverse = scale.reciprocal() if isinstance(scale, torch.Tensor) else 1.0 / scale
    return torch.clamp(torch.round(x * inverse) + zero, -128, 127)


def by_channel(x: torch.Tensor, s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return rounded(x, s[:, None], z[:, None]).to(I8)


def to_and_fro(x: torch.Tensor, s: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    return (rounded(x, s[:, None], z[:, None]) - z[:, None]) * s[:, None]


def in_range(q: torch.Tensor) -> torch.Tensor:
    return (q >= -128) & (q <= 127)


def asymmetric(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    low = torch.minimum(x.amin(-1, keepdim=True), meta(8, 1))
    high = torch.maximum(x.amax(-1, keepdim=True), meta(8, 1))
    scale = ((high - low) / 255.0).clamp(min=1e-7)
    down, up = low / scale, high / scale
    errors = (-128 + down) + (127 + up)
    zero = torch.where(errors > 0, -128 - down, 127 - up)
    return scale, torch.clamp(zero, -128, 127).round()


@pytest.mark.parametrize(
    ("function", "written_out", "args"),
    [
        (
            lambda x: decomposed.quantize_per_tensor(x, 0.1, 3, -128, 127, I8),
            lambda x: rounded(x, 0.1, 3).to(I8),
            (x,),
        ),
        (
            lambda x, s, z: decomposed.quantize_per_tensor(x, s, z, -128, 127, I8),
            lambda x, s, z: rounded(x, s, z).to(I8),
            (x, meta(1), meta(1, dtype=torch.int64)),
        ),
        (
            lambda x, s, z: decomposed.quantize_per_channel(x, s, z, 0, -128, 127, I8),
            by_channel,
            (x, channels, zeros),
        ),
        (
            lambda x, s, z: decomposed.quantize_per_token(x, s, z, -128, 127, I8),
            lambda x, s, z: rounded(x, s, z).to(I8),
            (x, meta(8, 1), meta(8, 1)),
        ),
        (
            lambda x, s, z: decomposed.quantize_per_channel_group(x, s, z, -8, 7, I8, 4),
            lambda x, s, z: rounded(x.view(-1, 4), s.view(-1, 1), z.view(-1, 1)).to(I8),
            (x, meta(8, 4), meta(8, 4)),
        ),
        (
            lambda q: decomposed.dequantize_per_tensor(q, 0.1, 3, -128, 127, I8),
            lambda q: (q.to(torch.float32) - 3) * 0.1,
            (codes,),
        ),
        (
            lambda q, s, z: decomposed.dequantize_per_channel(q, s, z, 0, -128, 127, I8),
            lambda q, s, z: (q.float() - z[:, None]) * s[:, None],
            (codes, channels, zeros),
        ),
        (
            lambda q, s: decomposed.dequantize_per_channel(q, s, None, 0, -128, 127, I8),
            lambda q, s: q * s[:, None],
            (codes, channels),
        ),
        (
            lambda q, s, z: decomposed.dequantize_per_token(q, s, z, -128, 127, I8, torch.float32),
            lambda q, s, z: (q - z) * s,
            (codes, meta(8, 1), meta(8, 1)),
        ),
        (
            lambda x: decomposed.choose_qparams_per_token(x, I8),
            lambda x: x.abs().amax(-1, keepdim=True).clamp(min=1e-5).div(127),
            (x,),
        ),
        (
            lambda x: decomposed._choose_qparams_per_token_asymmetric_impl(x, I8),
            asymmetric,
            (x,),
        ),
    ],
)
def test_conversions_cost_their_arithmetic(
    function: Callable[..., Any],
    written_out: Callable[..., Any],
    args: tuple[torch.Tensor, ...],
) -> None:
    report, expected = count(function, *args), count(written_out, *args)
    assert all(op.startswith("quantized_decomposed::") for op in report.by_operator())
    assert (report.flops, report.macs) == (expected.flops, 0)


@pytest.mark.filterwarnings("ignore:.*are deprecated and will be removed")
def test_conversions_of_aten_cost_those_of_the_decomposed_ones() -> None:
    number = count(lambda x: rounded(x, 0.1, 3), x).flops
    assert count(lambda x: torch.quantize_per_tensor(x, 0.1, 3, torch.qint8), x).flops == number
    quantized = meta(8, 16, dtype=torch.qint8)
    per_channel = count_call(
        aten.quantize_per_channel.default, x, channels, zeros, 0, torch.qint8, out=quantized
    )
    assert per_channel.flops == count(by_channel, x, channels, zeros).flops
    back = count_call(aten.dequantize.self, quantized, out=x)
    assert back.flops == count(lambda q: (q.float() - 3) * 0.1, codes).flops


def test_fake_quantization_is_quantization_there_and_back() -> None:
    there_and_back = count(to_and_fro, x, channels, zeros).flops
    tests = count(in_range, x).flops
    bounds = (0, -128, 127)
    fake, cached = (
        aten.fake_quantize_per_channel_affine,
        aten._fake_quantize_learnable_per_channel_affine,
    )
    for op in (fake, cached):
        assert count_call(op.default, x, channels, zeros, *bounds, out=x).flops == there_and_back
    masked = count_call(
        aten.fake_quantize_per_channel_affine_cachemask.default,
        *(x, channels, zeros, *bounds),
        out=(x, meta(8, 16, dtype=torch.bool)),
    )
    assert masked.flops == there_and_back + tests
    # One number for all: no reciprocals, of 8 channels otherwise.
    one = count_call(aten.fake_quantize_per_tensor_affine.default, x, 0.1, 3, -128, 127, out=x)
    assert one.flops == there_and_back - 8


def test_choosing_a_scale_visits_every_element_twice() -> None:
    # 127 comparisons for either extremum of 128; clip both at 0, subtract, divide, hold above
    # eps, divide the minimum, round.
    affine = count(lambda x: decomposed.choose_qparams(x, -128, 127, 1e-5, I8), x)
    assert affine.flops == 2 * 127 + 2 + 2 + 1 + 2
    symmetric = count(lambda x: decomposed.choose_qparams_symmetric(x, -128, 127, 1e-5, I8), x)
    # Clip both, negate one, take the larger, divide, hold above eps.
    assert symmetric.flops == 2 * 127 + 2 + 2 + 1 + 1
