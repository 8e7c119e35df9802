"""Memory as a function of sizes that are open: the largest batch that fits."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from graphflops.analysis.devices import Device
from graphflops.analysis.devices import device as find_device
from graphflops.core.cost import Dim
from graphflops.errors import ModelSpecError, UnboundSymbolError

_UNITS = {
    **{f"{prefix}B": 1000**power for power, prefix in enumerate(("", "k", "M", "G", "T"))},
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate(("K", "M", "G", "T"), start=1)},
}
_CAPACITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]+)")
_LIMIT = 2**31 - 1
"""Largest size that is tried."""
_STEPS = 16
"""Sizes of which one fulfils the conditions of a graph, such as multiples of 8."""


def parse_capacity(capacity: int | str | Device) -> int:
    """Return bytes of memory.

    Args:
        capacity: Bytes, a figure with its unit such as ``"80GB"`` (10^9 bytes each) or ``"80GiB"``
            (2^30), a device, or its name.

    Raises:
        ModelSpecError: It is none of these.

    Example:
        >>> parse_capacity("1.5 GiB"), parse_capacity("h100-sxm")
        (1610612736, 80000000000)
    """
    if isinstance(capacity, Device):
        return capacity.memory
    if isinstance(capacity, int):
        nbytes = capacity
    elif found := _CAPACITY.fullmatch(capacity.strip()):
        number, unit = found.groups()
        if unit.lower() not in {known.lower() for known in _UNITS}:
            return find_device(capacity).memory
        factors = {known.lower(): factor for known, factor in _UNITS.items()}
        nbytes = int(float(number) * factors[unit.lower()])
    else:
        return find_device(capacity).memory
    if nbytes <= 0:
        msg = f"{capacity} bytes is no memory. Give more than 0, such as 80GB, or a device."
        raise ModelSpecError(msg)
    return nbytes


@dataclass(frozen=True, slots=True, eq=False)
class OpenPeak:
    """Peak of memory as a function of the sizes that a report keeps open.

    Attributes:
        names: Symbols of these sizes.
        at: Function from values by name to bytes; it raises a ModelSpecError where the graph does
            not hold: for more than some length, or for other than multiples.
    """

    names: tuple[str, ...]
    at: Callable[[Mapping[str, int]], Dim]

    def largest(self, name: str, capacity: int, static: Mapping[str, int]) -> int:
        """Return the largest value of a size with which the peak is at most a capacity.

        The peak has to grow with the size.

        Args:
            name: Symbol of the size.
            capacity: Bytes.
            static: Bytes of what is there whatever the size, by what it is: for the error.

        Raises:
            ModelSpecError: There is no such symbol, or no size fits.
            UnboundSymbolError: The peak has further symbols.
        """
        if name not in self.names:
            known = ", ".join(self.names) or "none, so count with symbolic sizes"
            msg = f"the memory of this report is no function of {name!r}. Its symbols: {known}."
            raise ModelSpecError(msg)

        def peak_at(value: int) -> int:
            peak = self.at({name: value})
            if isinstance(peak, int):
                return peak
            others = ", ".join(sorted(symbol.name for symbol in peak.free_symbols))
            msg = f"the largest {name} depends on {others} too: bind them first by subs()."
            raise UnboundSymbolError(msg)

        found = largest_size(peak_at, capacity)
        if found is None:
            raise ModelSpecError(_explain_misfit(name, peak_at, capacity, static))
        return found


def _explain_misfit(
    name: str, peak_at: Callable[[int], int], capacity: int, static: Mapping[str, int]
) -> str:
    """Return what does not fit, and what could be saved."""
    peak = smallest = 0
    while not peak:
        smallest += 1
        with suppress(ModelSpecError):
            peak = peak_at(smallest)
    parts = ", ".join(f"{nbytes / 1e9:.2f} GB of {what}" for what, nbytes in static.items())
    return (
        f"with {name} = {smallest} the peak is {peak / 1e9:.2f} GB, which is more than "
        f"{capacity / 1e9:.2f} GB. There are {parts or 'no parameters'} whatever {name} is. Take a "
        "narrower dtype, shard what does not change, checkpoint layers, or take a larger device."
    )


def largest_size(peak_at: Callable[[int], int], capacity: int) -> int | None:
    """Return the largest size with which a peak fits into a capacity; ``None`` if there is none.

    Args:
        peak_at: Function from a size to bytes, which grow with it; it raises a ModelSpecError
            where the graph does not hold: for more than some length, or but for multiples.
        capacity: Bytes.

    Example:
        >>> largest_size(lambda batch: 100 + 8 * batch, 1000)
        112
    """

    def nearest(size: int) -> int | None:
        """Return the largest size up to this one for which the graph holds, if it fits."""
        for smaller in range(size, max(size - _STEPS, 0), -1):
            try:
                return smaller if peak_at(smaller) <= capacity else None
            except ModelSpecError:
                continue
        return None

    powers = [2**power for power in range(_LIMIT.bit_length())]
    fitting = [power for power in powers if nearest(power) is not None]
    if not fitting:
        return None
    lower, upper = fitting[-1], min(2 * fitting[-1], _LIMIT)
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (lower, middle) if nearest(middle) is None else (middle, upper)
    return nearest(lower)
