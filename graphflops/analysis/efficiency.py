"""Efficiency: what kernels of a family of devices reach of the peak rates."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from graphflops.analysis.devices import Device, rated_dtype
from graphflops.errors import ModelSpecError

_ANY = "any"


@dataclass(frozen=True, slots=True, kw_only=True)
class Efficiency:
    """Constants of a family of devices and a precision.

    Attributes:
        compute: Share of the peak rate that arithmetic reaches.
        memory: Share of the bandwidth that traffic reaches.
        waves: Weight, from 0 to 1, of what a contraction loses by tiles that are not full.
        dispatch: Seconds that the host takes to start an operator: a step of many small kernels
            takes as long as these.

    Raises:
        ModelSpecError: A share is not above 0 and at most 1, or a constant is negative.
    """

    compute: float = 1.0
    memory: float = 1.0
    waves: float = 0.0
    dispatch: float = 0.0

    def __post_init__(self) -> None:
        for name in ("compute", "memory"):
            if not 0 < getattr(self, name) <= 1:
                msg = (
                    f"an efficiency of {getattr(self, name)} is no share of the peak. Give "
                    f"{name} above 0 and at most 1."
                )
                raise ModelSpecError(msg)
        if not 0 <= self.waves <= 1 or self.dispatch < 0:
            raise ModelSpecError(
                "waves is a weight from 0 to 1, and dispatch is a time in seconds."
            )


def efficiency_of(
    given: Efficiency | float | None, device: Device, dtype: str = "float32"
) -> Efficiency:
    """Return the efficiency that was given, or that of the family of a device.

    Args:
        given: Efficiency, one share for arithmetic and traffic, or ``None``.
        device: Device.
        dtype: Dtype of most contractions.

    Raises:
        ModelSpecError: The share is not above 0 and at most 1.

    Example:
        >>> from graphflops.analysis.devices import device
        >>> efficiency_of(0.5, device("h100-sxm")).memory
        0.5
    """
    if isinstance(given, Efficiency):
        return given
    if given is not None:
        return Efficiency(compute=given, memory=given)
    families = _families()
    precisions = families.get(device.family, families[_ANY])
    return precisions.get(rated_dtype(dtype), precisions[_ANY])


@cache
def _families() -> dict[str, dict[str, Efficiency]]:
    text = resources.files(__package__).joinpath("efficiency.toml").read_text("utf-8")
    return {
        family: {dtype: Efficiency(**constants) for dtype, constants in precisions.items()}
        for family, precisions in tomllib.loads(text).items()
    }
