"""Published peak rates of accelerators, the denominators of MFU and HFU."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches

from graphflops.errors import ModelSpecError

_TERA = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Accelerator:
    """An accelerator and what its maker says it can do at best.

    Attributes:
        name: What it is called here.
        peak: FLOP/s by dtype, dense (not the figures for 2:4 sparsity), of one chip.
        source: Where that is published.
    """

    name: str
    peak: dict[str, int]
    source: str


def _accelerator(name: str, source: str, **tera: float) -> Accelerator:
    peak = {dtype: round(value * _TERA) for dtype, value in tera.items()}
    return Accelerator(name=name, peak=peak, source=source)


_HOPPER = {"bfloat16": 989.4, "float16": 989.4, "float8": 1978.9, "tf32": 494.7, "float32": 66.9}
_KNOWN = (
    _accelerator("v100-sxm2", "NVIDIA V100 data sheet, 2020", float16=125, float32=15.7),
    _accelerator("t4", "NVIDIA T4 data sheet, 2019", float16=65, float32=8.1),
    _accelerator(
        "a100",
        "NVIDIA A100 data sheet, 2021",
        bfloat16=312,
        float16=312,
        tf32=156,
        float32=19.5,
        float64=19.5,
    ),
    _accelerator(
        "a10", "NVIDIA A10 data sheet, 2021", bfloat16=125, float16=125, tf32=62.5, float32=31.2
    ),
    _accelerator(
        "l4",
        "NVIDIA L4 data sheet, 2023",
        bfloat16=121,
        float16=121,
        float8=242.5,
        tf32=60,
        float32=30.3,
    ),
    _accelerator(
        "l40s",
        "NVIDIA L40S data sheet, 2023",
        bfloat16=362.05,
        float16=362.05,
        float8=733,
        tf32=183,
        float32=91.6,
    ),
    _accelerator("h100-sxm", "NVIDIA H100 architecture white paper, 2022", **_HOPPER),
    _accelerator(
        "h100-pcie",
        "NVIDIA H100 data sheet, 2023",
        bfloat16=756,
        float16=756,
        float8=1513,
        tf32=378,
        float32=51,
    ),
    _accelerator("h200", "NVIDIA H200 data sheet, 2024: the rates of the H100 SXM", **_HOPPER),
    _accelerator(
        "b200",
        "NVIDIA HGX B200 data sheet, 2024, an eighth of eight",
        bfloat16=2250,
        float16=2250,
        float8=4500,
        float4=9000,
        tf32=1125,
    ),
    _accelerator("mi250x", "AMD Instinct MI250X data sheet, 2021", bfloat16=383, float16=383),
    _accelerator(
        "mi300x",
        "AMD Instinct MI300X data sheet, 2023",
        bfloat16=1307.4,
        float16=1307.4,
        float8=2614.9,
        tf32=653.7,
        float32=163.4,
    ),
    _accelerator("tpu-v4", "Google Cloud TPU v4 documentation", bfloat16=275),
    _accelerator("tpu-v5e", "Google Cloud TPU v5e documentation", bfloat16=197),
    _accelerator("tpu-v5p", "Google Cloud TPU v5p documentation", bfloat16=459),
    _accelerator("tpu-v6e", "Google Cloud TPU v6e documentation", bfloat16=918),
)
ACCELERATORS = {accelerator.name: accelerator for accelerator in _KNOWN}
"""The accelerators known, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """A training step as it was measured.

    Attributes:
        step_time: Seconds of a step of the optimizer.
        peak_flops: FLOP/s that all accelerators together can do at best.
        accelerator: What they are.
    """

    step_time: float
    peak_flops: float
    accelerator: str = ""


def peak_flops(name: str, dtype: str = "bfloat16") -> int:
    """The published peak rate of one accelerator, in FLOP/s, dense.

    Args:
        name: Its name, e.g. ``"h100-sxm"``; ``ACCELERATORS`` has them.
        dtype: What it computes in: ``"bfloat16"``, ``"float8"``, ``"tf32"``, ...

    Raises:
        ModelSpecError: There is no such accelerator, or no published rate for the dtype.

    Example:
        >>> peak_flops("a100")
        312000000000000
    """
    if name not in ACCELERATORS:
        close = get_close_matches(str(name).lower(), ACCELERATORS, n=3, cutoff=0.4)
        known = ", ".join(close or ACCELERATORS)
        hint = f"Did you mean {known}?" if close else f"Known: {known}."
        raise ModelSpecError(f"{name!r} is no accelerator known here. {hint}")
    peak = ACCELERATORS[name].peak
    if dtype not in peak:
        msg = f"no peak rate of {name} for {dtype} is known. There is one for {', '.join(peak)}."
        raise ModelSpecError(msg)
    return peak[dtype]
