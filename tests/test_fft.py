"""Fourier transforms against a transform that counts, and special functions by hand."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import sympy
import torch
from calls import count, meta
from hypothesis import given, settings
from hypothesis import strategies as st

from graphflops import conventions
from graphflops.core.cost import Dim, substitute
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.pricing.price import price

COMPLEX = torch.complex64


def radix_2(n: int) -> int:
    """FLOPs of the recursive transform of n = 2^k complex numbers, butterfly by butterfly."""
    if n == 1:
        return 0
    flops = 2 * radix_2(n // 2)
    for _ in range(n // 2):
        flops += 4 + 2  # the twiddle factor times the odd half: a complex multiplication
        flops += 2 + 2  # and added to and subtracted from the even half
    return flops


def test_a_transform_is_its_butterflies() -> None:
    assert radix_2(8) == 12 * 10
    for n in (1, 2, 8, 64):
        assert count(torch.fft.fft, meta(3, n, dtype=COMPLEX)).flops == 3 * radix_2(n)
    # Over another axis, and after padding to a power of two.
    assert count(lambda a: torch.fft.fft(a, dim=0), meta(8, 5, dtype=COMPLEX)).flops == 5 * 120
    assert count(lambda a: torch.fft.fft(a, n=8), meta(5, dtype=COMPLEX)).flops == 120


def test_real_transforms_are_half() -> None:
    half = radix_2(8) // 2
    assert count(torch.fft.rfft, meta(3, 8)).flops == 3 * half
    assert count(torch.fft.fft, meta(3, 8)).flops == 3 * half
    assert count(torch.fft.hfft, meta(3, 5, dtype=COMPLEX)).flops == 3 * half
    # Normalized by 1 / n: a multiplication for each number that comes out, or two.
    assert count(torch.fft.irfft, meta(3, 5, dtype=COMPLEX)).flops == 3 * (half + 8)
    assert count(torch.fft.ihfft, meta(3, 8)).flops == 3 * (half + 2 * 5)


def test_other_lengths_round_their_logarithm_up() -> None:
    assert count(torch.fft.fft, meta(6, dtype=COMPLEX)).flops == 5 * 6 * 3
    assert count(torch.fft.rfft, meta(7)).flops == 105 // 2  # 5 * 7 * 3 = 105


def test_several_axes_are_transformed_one_after_the_other() -> None:
    x = meta(2, 4, 6, dtype=COMPLEX)

    def one_by_one(a: torch.Tensor) -> Any:
        return torch.fft.fft(torch.fft.fft(a, dim=1), dim=2)

    assert count(torch.fft.fft2, x).flops == count(one_by_one, x).flops
    # On powers of two it is one transform of all numbers: 4 x 8 = 32 of them.
    assert count(torch.fft.fft2, meta(4, 8, dtype=COMPLEX)).flops == radix_2(32)
    assert count(torch.fft.rfftn, meta(4, 8)).flops == radix_2(32) // 2
    assert count(torch.fft.irfft2, meta(4, 5, dtype=COMPLEX)).flops == radix_2(32) // 2 + 32


@pytest.mark.parametrize("norm", ["backward", "ortho", "forward"])
def test_normalizing_scales_both_parts_of_each_element(norm: str) -> None:
    x = meta(3, 8, dtype=COMPLEX)
    forth = count(lambda a: torch.fft.fft(a, norm=norm), x).flops
    back = count(lambda a: torch.fft.ifft(a, norm=norm), x).flops
    assert forth == 3 * 120 + (0 if norm == "backward" else 2 * 24)
    assert back == 3 * 120 + (0 if norm == "forward" else 2 * 24)
    # The operator underneath normalizes by itself.
    raw = count(lambda a: torch._fft_c2c(a, [1], 0 if norm == "forward" else 2, False), x)
    assert raw.flops == back


def test_shifts_move_only() -> None:
    for shift in (torch.fft.fftshift, torch.fft.ifftshift):
        assert count(shift, meta(3, 8)).flops == 0


@pytest.mark.parametrize("normalized", [False, True])
def test_short_time_transforms_and_back(*, normalized: bool) -> None:
    window = meta(8)

    def forth(x: torch.Tensor, w: torch.Tensor, **options: Any) -> torch.Tensor:
        options |= {"return_complex": True, "normalized": normalized}
        spectrum: torch.Tensor = torch.stft(x, 8, 4, window=w, **options)
        return spectrum

    def back(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.istft(x, 8, 4, window=w, normalized=normalized)

    # 32 samples, padded to 40: 9 frames of 8, each windowed, transformed, maybe scaled.
    frame = 8 + 60 + (2 * 5 if normalized else 0)
    assert count(forth, meta(2, 32), window).flops == 2 * 9 * frame
    # One-sided or not, real frames are transformed as such; complex ones are not, and a real
    # window scales both of their parts.
    twice = count(lambda x, w: forth(x, w, onesided=False), meta(2, 32, dtype=COMPLEX), window)
    assert twice.flops == 2 * 9 * (2 * 8 + 120 + (2 * 8 if normalized else 0))
    # Back: transformed, scaled, windowed; 9 frames of 8 overlap into 40; so do the squares of
    # the window, once for both signals; and each of 32 samples is divided.
    frames, overlap = 9 * (60 + 8 + 8), 9 * 8 - 40
    expected = 2 * (frames + overlap) + (8 + overlap) + 2 * 32
    assert count(back, meta(2, 5, 9, dtype=COMPLEX), window).flops == expected


def of(op: str, dtype: str, *shape: Dim, dim: tuple[int, ...]) -> Dim:
    """FLOPs of a transform from and to the same shape, priced by hand."""
    tensor = TensorMeta(shape, dtype)
    attrs = {"dim": dim, "normalization": 2}
    call = OpCall(op=op, inputs={"self": tensor}, outputs=(tensor,), attrs=attrs)
    cost = price(call, conventions.exact()).cost
    assert cost is not None
    return cost.flops


TRANSFORMS: dict[str, Callable[[Dim, Dim, Dim], Dim]] = {
    "c2c": lambda b, m, n: of("aten::_fft_c2c", "complex64", b, m, n, dim=(1, 2)),
    "r2c": lambda b, m, n: of("aten::_fft_r2c", "float32", b, m, n, dim=(1, 2)),
    "c2r": lambda b, m, n: of("aten::_fft_c2r", "float32", b, m, n, dim=(2,)),
}


@functools.cache
def symbolic(name: str) -> Dim:
    return TRANSFORMS[name](*sympy.symbols("B M N", positive=True, integer=True))


@pytest.mark.parametrize("name", TRANSFORMS)
@settings(deadline=None)  # the first example builds the expression
@given(sizes=st.tuples(*[st.integers(1, 40)] * 3))
def test_symbolic_costs_are_the_concrete_ones(name: str, sizes: tuple[int, int, int]) -> None:
    bound = substitute(symbolic(name), dict(zip("BMN", sizes, strict=True)))
    assert bound == TRANSFORMS[name](*sizes)


x, y = meta(4, 6), meta(6)


@pytest.mark.parametrize(
    "function",
    [
        lambda a, _: torch.polygamma(2, a),
        torch.igamma,
        torch.special.gammaincc,
        lambda a, _: torch.special.airy_ai(a),
        lambda a, _: torch.special.bessel_y1(a),
        lambda a, _: torch.special.modified_bessel_k0(a),
        lambda a, _: torch.special.scaled_modified_bessel_k1(a),
        torch.special.chebyshev_polynomial_t,
        torch.special.shifted_chebyshev_polynomial_w,
        torch.special.hermite_polynomial_he,
        torch.special.laguerre_polynomial_l,
        torch.special.legendre_polynomial_p,
    ],
)
def test_a_special_function_is_one_elementary_function_per_element(function: Any) -> None:
    report = count(function, x, y)
    assert (report.flops, report.transcendentals) == (24, 24)


def test_angle_of_real_and_of_complex_numbers() -> None:
    real = count(torch.angle, x)
    assert (real.flops, real.transcendentals) == (2 * 24, 0)
    complex_ = count(torch.angle, x.to(COMPLEX))
    assert (complex_.flops, complex_.transcendentals) == (24, 24)


@pytest.mark.parametrize(("dim", "steps"), [(0, 3 * 6), (-1, 4 * 5)])
def test_logcumsumexp_is_a_scan_of_logaddexp(dim: int, steps: int) -> None:
    step = count(torch.logaddexp, meta(1), meta(1))
    report = count(lambda a: torch.logcumsumexp(a, dim), x)
    assert report.flops == steps * step.flops
    assert report.transcendentals == steps * step.transcendentals == steps * 2


def test_taking_a_number_apart_computes_nothing() -> None:
    assert count(torch.frexp, x).flops == 0
