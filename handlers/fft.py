"""Fourier transforms: 5 N log2 N for N complex numbers, half of that for real ones.

The count of the radix-2 algorithm, N / 2 log2 N butterflies of a complex multiplication (6)
and two complex additions (4), and the convention of FFTW's benchmarks
(https://www.fftw.org/speed/method.html). A length that is no power of two takes the next
integer for its logarithm. Several axes are transformed one after the other. Normalizing is a
multiplication per output number, two for a complex one, as in ``torch._refs.fft``. The
composite operators (``fft_rfft``, ``stft``, ...) decompose into these.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

from ._lapack import floor
from ._shapes import log2_ceil

if TYPE_CHECKING:
    from graphflops.core.ir import TensorMeta


def _transform(elements: Dim, transformed: TensorMeta, dim: tuple[int, ...]) -> Dim:
    """5 FLOPs per element and round; ``transformed`` has the sizes of the transforms."""
    return 5 * elements * sum((log2_ceil(transformed.shape[axis]) for axis in dim), start=0)


def _normalized(normalization: int, out: TensorMeta) -> OpCost:
    """0 is none; 1 (by the root of N) and 2 (by N) scale each element, both parts of it."""
    per = 2 if out.is_complex else 1
    return OpCost(flops=per * out.numel if normalization else 0)


@register("prims::fft_c2c")
def complex_to_complex(self: TensorMeta, dim: tuple[int, ...]) -> OpCost:
    """5 numel ceil(log2 N), the logarithms of all ``dim`` added up."""
    return OpCost(flops=_transform(self.numel, self, dim))


@register("prims::fft_r2c")
def real_to_complex(self: TensorMeta, dim: tuple[int, ...]) -> OpCost:
    """Half of a complex transform of the input's numel: 5/2 numel ceil(log2 N), rounded down.

    Two-sided output repeats the other half, conjugated: nothing more to compute.
    """
    return OpCost(flops=floor(_transform(self.numel, self, dim), 2))


@register("prims::fft_c2r")
def complex_to_real(dim: tuple[int, ...], *, out: TensorMeta) -> OpCost:
    """Half of a complex transform of the output's numel: 5/2 numel ceil(log2 N), rounded down."""
    return OpCost(flops=floor(_transform(out.numel, out, dim), 2))


@register("aten::_fft_c2c")
def normalized_c2c(
    self: TensorMeta, dim: tuple[int, ...], normalization: int, *, out: TensorMeta
) -> OpCost:
    """5 numel ceil(log2 N), as ``prims::fft_c2c``, and the normalization."""
    return complex_to_complex(self, dim) + _normalized(normalization, out)


@register("aten::_fft_r2c")
def normalized_r2c(
    self: TensorMeta, dim: tuple[int, ...], normalization: int, *, out: TensorMeta
) -> OpCost:
    """5/2 numel ceil(log2 N), as ``prims::fft_r2c``, and the normalization."""
    return real_to_complex(self, dim) + _normalized(normalization, out)


@register("aten::_fft_c2r")
def normalized_c2r(dim: tuple[int, ...], normalization: int, *, out: TensorMeta) -> OpCost:
    """5/2 numel(out) ceil(log2 N), as ``prims::fft_c2r``, and the normalization."""
    return complex_to_real(dim, out=out) + _normalized(normalization, out)


@register("aten::istft")
def istft(self: TensorMeta, n_fft: int, hop_length: int | None, *, out: TensorMeta) -> OpCost:
    """Inverse transforms of F frames of N = ``n_fft``, windowed, overlapped and divided.

    For B signals: B F transforms, to real numbers (half the cost) unless ``out`` is complex,
    normalized (B F N); a window each (B F N); frames added up into E = N + (F - 1) hop samples
    (B (F N - E)); the squared window likewise, once (N + F N - E); a division per output
    sample. PyTorch's own composition, whose check of the window looks at values and so cannot
    be traced.
    """
    frames, signals = self.shape[-1], prod(self.shape[:-2])
    hop = n_fft // 4 if hop_length is None else hop_length
    samples = signals * frames * n_fft
    spectrum = 5 * samples * log2_ceil(n_fft)
    overlaps = frames * n_fft - (n_fft + (frames - 1) * hop)
    return OpCost(
        flops=(spectrum if out.is_complex else floor(spectrum, 2))
        + 2 * samples
        + (signals + 1) * overlaps
        + n_fft
        + out.numel
    )
