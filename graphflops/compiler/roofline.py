"""Time of a call at the rates of an accelerator, as a weight for schedulers."""

from __future__ import annotations

from dataclasses import dataclass

from graphflops.analysis.accelerators import ACCELERATORS
from graphflops.core.ir import OpRecord
from graphflops.errors import ModelSpecError
from graphflops.pricing.memory_traffic import read_all_write_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Time of a call by the roofline: arithmetic at peak rate or bytes at peak bandwidth.

    The larger of the two, nothing fused. A dtype without a published rate has that of float32.

    Attributes:
        accelerator: Name of the accelerator whose peak rates are used.
        bytes_per_second: Memory bandwidth; by default that of an H100 SXM, 3.35 TB/s.

    Raises:
        ModelSpecError: There is no such accelerator, or the bandwidth is not above 0.
    """

    accelerator: str = "h100-sxm"
    bytes_per_second: float = 3.35e12

    def __post_init__(self) -> None:
        if self.accelerator not in ACCELERATORS or not self.bytes_per_second > 0:
            msg = (
                f"no roofline of {self.accelerator!r} with {self.bytes_per_second} bytes/s. Give "
                f"one of {', '.join(ACCELERATORS)}, and a bandwidth above 0."
            )
            raise ModelSpecError(msg)

    def milliseconds(self, record: OpRecord) -> float:
        """Return the time of a call without symbolic sizes; without a price, that of its bytes."""
        if record.cost is None:
            nbytes = sum(read_all_write_all(record.call))
            return 1000 * float(nbytes) / self.bytes_per_second
        cost = record.cost
        peak = ACCELERATORS[self.accelerator].peak
        rate = peak.get(record.call.dtype) or peak.get("float32") or max(peak.values())
        compute = float(cost.flops) / rate
        memory = float(cost.bytes_read + cost.bytes_written) / self.bytes_per_second
        return 1000 * max(compute, memory)
