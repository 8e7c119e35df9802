"""What a measurement asks of a device: its memory, its clock, its allocator's events."""

from __future__ import annotations

import gc
import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity

MOST_EVENTS = 200_000
_COUNTERS = {
    "allocated": "allocated_bytes.all.current",
    "peak_allocated": "allocated_bytes.all.peak",
    "requested": "requested_bytes.all.current",
    "peak_requested": "requested_bytes.all.peak",
    "reserved": "reserved_bytes.all.current",
    "peak_reserved": "reserved_bytes.all.peak",
    "inactive_split": "inactive_split_bytes.all.current",
    "retries": "num_alloc_retries",
}
_PROPERTIES = (
    "name",
    "major",
    "minor",
    "total_memory",
    "multi_processor_count",
    "L2_cache_size",
    "shared_memory_per_multiprocessor",
    "clock_rate",
    "memory_clock_rate",
    "memory_bus_width",
)
_QUERY = "driver_version,clocks.max.sm,clocks.max.mem,power.limit,clocks.sm,temperature.gpu"
_VARIABLES = (
    "CUBLAS_WORKSPACE_CONFIG",
    "CUBLASLT_WORKSPACE_SIZE",
    "TORCH_CUBLASLT_UNIFIED_WORKSPACE",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "CUDA_MODULE_LOADING",
    "NVIDIA_TF32_OVERRIDE",
)


class Device(ABC):
    """A device that models are measured on.

    Attributes:
        device: The same to torch.
        activity: What a profiler records of it.
    """

    device: torch.device
    activity: ProfilerActivity

    @abstractmethod
    def memory(self) -> dict[str, int]:
        """Bytes that the allocator holds, and the most since the peaks were reset."""

    @abstractmethod
    def reset_peaks(self) -> None:
        """Let peaks begin at what is held now."""

    @abstractmethod
    def clean(self) -> None:
        """Give back all memory that no tensor holds."""

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until the device has done everything that was queued."""

    @abstractmethod
    def mark(self) -> Any:
        """Put a mark into the device's queue."""

    @abstractmethod
    def elapsed(self, first: Any, last: Any) -> float:
        """Milliseconds between two marks that the device has reached."""

    @abstractmethod
    def operator_milliseconds(self, event: Any) -> float:
        """Time that a profiled operator itself took on the device."""

    @abstractmethod
    def history(self, step: Callable[[], None]) -> dict[str, Any]:
        """The allocator's events during a step."""

    @abstractmethod
    def properties(self) -> dict[str, Any]:
        """What the device is."""


class Cpu(Device):
    """The CPU, for dry runs: nothing is known of its memory."""

    device = torch.device("cpu")
    activity = ProfilerActivity.CPU

    def memory(self) -> dict[str, int]:
        """Zeros under the names of a GPU's counters."""
        return dict.fromkeys((*_COUNTERS, "outside"), 0)

    def reset_peaks(self) -> None:
        """Do nothing."""

    def clean(self) -> None:
        """Collect garbage."""
        gc.collect()

    def synchronize(self) -> None:
        """Do nothing: the CPU has no queue."""

    def mark(self) -> float:
        """Seconds of the clock."""
        return time.perf_counter()

    def elapsed(self, first: float, last: float) -> float:
        """Milliseconds between two readings of the clock."""
        return (last - first) * 1e3

    def operator_milliseconds(self, event: Any) -> float:
        """CPU time of the operator itself."""
        return float(event.self_cpu_time_total) / 1e3

    def history(self, step: Callable[[], None]) -> dict[str, Any]:
        """Run the step; there are no events."""
        step()
        return compact({"segments": [], "device_traces": [[]]}, [], 0)

    def properties(self) -> dict[str, Any]:
        """Its kind."""
        return {"name": "cpu"}


class Cuda(Device):
    """The first CUDA device, with all work on its default stream."""

    device = torch.device("cuda", 0)
    activity = ProfilerActivity.CUDA

    def memory(self) -> dict[str, int]:
        """The caching allocator's counters and what is in use beside its segments."""
        stats = torch.cuda.memory_stats()
        counters = {name: int(stats.get(key, 0)) for name, key in _COUNTERS.items()}
        free, total = torch.cuda.mem_get_info()
        return counters | {"outside": total - free - counters["reserved"]}

    def reset_peaks(self) -> None:
        """Reset the allocator's peaks."""
        torch.cuda.reset_peak_memory_stats()

    def clean(self) -> None:
        """Collect garbage, free cuBLAS's workspaces and the cache, reset peaks."""
        gc.collect()
        torch.cuda.synchronize()
        clear_workspaces: Callable[[], None] | None = getattr(
            torch._C, "_cuda_clearCublasWorkspaces", None
        )
        if clear_workspaces is not None:
            clear_workspaces()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()

    def synchronize(self) -> None:
        """Wait for the device."""
        torch.cuda.synchronize()

    def mark(self) -> torch.cuda.Event:
        """Record an event that has a time."""
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event

    def elapsed(self, first: torch.cuda.Event, last: torch.cuda.Event) -> float:
        """Milliseconds on the device between two events."""
        return float(first.elapsed_time(last))

    def operator_milliseconds(self, event: Any) -> float:
        """Time of the kernels that the operator itself launched."""
        return float(event.self_device_time_total) / 1e3

    def history(self, step: Callable[[], None]) -> dict[str, Any]:
        """Record allocations and frees, without stacks, while the step runs."""
        memory = torch.cuda.memory
        before = memory._snapshot()["segments"]
        reserved = torch.cuda.memory_reserved()
        memory._record_memory_history(
            "all", context=None, stacks="python", max_entries=MOST_EVENTS, clear_history=True
        )
        try:
            step()
            torch.cuda.synchronize()
            after = memory._snapshot()
        finally:
            memory._record_memory_history(None)
        return compact(after, before, reserved)

    def properties(self) -> dict[str, Any]:
        """The card, its driver and what changes its libraries' memory."""
        card = torch.cuda.get_device_properties(self.device)
        return {
            **{name: getattr(card, name, None) for name in _PROPERTIES},
            "driver": _driver(),
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "allocator": torch.cuda.get_allocator_backend(),
            "variables": {name: os.environ.get(name) for name in _VARIABLES},
        }


def _driver() -> dict[str, str] | None:
    """What the driver's own tool says of itself and the clocks, where it is installed."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return None
    command = [tool, f"--query-gpu={_QUERY}", "--format=csv,noheader"]
    try:
        done = subprocess.run(  # noqa: S603 - no words of others
            command, capture_output=True, text=True, timeout=20, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    values = done.stdout.strip().split("\n")[0].split(", ")
    return dict(zip(_QUERY.split(","), values, strict=False))


def compact(after: dict[str, Any], before: list[Any], reserved: int) -> dict[str, Any]:
    """The events of an allocator's snapshot with addresses renumbered.

    Args:
        after: The snapshot with the events.
        before: The segments of one before the events.
        reserved: Bytes of those segments.
    """
    numbers: dict[int, int] = {}

    def number(address: int) -> int:
        return numbers.setdefault(address, len(numbers))

    live = []
    for segment in before:
        address = segment["address"]
        for block in segment["blocks"]:
            if block["state"] == "active_allocated":
                live.append([block.get("requested_size", block["size"]), number(address)])
            address += block["size"]
    traces = after["device_traces"]
    events = [
        [event["action"], event["size"], number(event["addr"]), event["stream"]]
        for event in (traces[0] if traces else [])
        if "addr" in event and event["action"] != "snapshot"
    ]
    return {"live": live, "reserved": reserved, "events": events}
