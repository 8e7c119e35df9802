"""Denominators of MFU and HFU: published peak rates, and the time of a measured step."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike

from graphflops.analysis.devices import device


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


def peak_flops(
    name: str, dtype: str = "bfloat16", devices: str | PathLike[str] | None = None
) -> int:
    """Return the published peak rate of one accelerator, in FLOP/s, dense.

    It is the rate of what the maker sells as one: of both dies of an MI250X, each of which is a
    :func:`device <graphflops.device>` of its own to programs.

    Args:
        name: Its name, e.g. ``"h100-sxm"``; ``graphflops devices`` lists them.
        dtype: What it computes in: ``"bfloat16"``, ``"float8"``, ``"tf32"``, ...
        devices: Path of your own devices in TOML, see :func:`graphflops.load_devices`; by default
            that of the environment variable ``GRAPHFLOPS_DEVICES``.

    Raises:
        ModelSpecError: There is no such accelerator, or no published rate for the dtype.

    Example:
        >>> peak_flops("a100")
        312000000000000
    """
    found = device(name, devices)
    return round(found.rate(dtype, matrix=True) * found.devices_per_package)
