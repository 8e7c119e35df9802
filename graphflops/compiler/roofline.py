"""Time of a call at the rates of an accelerator, as a weight for schedulers."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from graphflops.analysis.devices import Device, device
from graphflops.core.ir import OpRecord
from graphflops.errors import ModelSpecError
from graphflops.pricing.memory_traffic import read_all_write_all


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """Time of a call by the roofline: arithmetic at peak rate or bytes at peak bandwidth.

    The larger of the two, nothing fused. A dtype without a published rate has that of float32.

    Attributes:
        accelerator: Name of the accelerator whose peak rates are used.
        bytes_per_second: Memory bandwidth; ``None`` for that of the accelerator.
        device: The accelerator, with that bandwidth.

    Raises:
        ModelSpecError: There is no such accelerator, or the bandwidth is not above 0.
    """

    accelerator: str = "h100-sxm"
    bytes_per_second: float | None = None
    device: Device = field(init=False)

    def __post_init__(self) -> None:
        found, bandwidth = device(self.accelerator), self.bytes_per_second
        if bandwidth is not None and not bandwidth > 0:
            msg = f"no roofline with {bandwidth} bytes/s. Give a bandwidth above 0, or none."
            raise ModelSpecError(msg)
        found = found if bandwidth is None else replace(found, bandwidth=bandwidth)
        object.__setattr__(self, "device", found)

    def milliseconds(self, record: OpRecord) -> float:
        """Return the time of a call without symbolic sizes; without a price, that of its bytes."""
        if record.cost is None:
            nbytes = sum(read_all_write_all(record.call))
            return 1000 * float(nbytes) / self.device.bandwidth
        cost = record.cost
        peak = {**self.device.vector, **self.device.matrix}
        rate = peak.get(record.call.dtype) or peak.get("float32") or max(peak.values())
        compute = float(cost.flops) / rate
        memory = float(cost.bytes_read + cost.bytes_written) / self.device.bandwidth
        return 1000 * max(compute, memory)
