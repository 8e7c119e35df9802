"""Memory of a pass as a snapshot of PyTorch's CUDA allocator, which its memory viewer reads.

The format is that of ``torch.cuda.memory._dump_snapshot()``: a dictionary with the segments as they
are at the end, and a trace of events for each device. Tensors get addresses in one segment, each
the first gap that is large enough; those of a run on a device differ.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

from graphflops.analysis.live_tensors import LiveTensor
from graphflops.analysis.optimizer_memory import OptimizerMemory
from graphflops.core.ir import OpCall
from graphflops.core.storage_events import StorageEvents

PICKLE_PROTOCOL = 4
"""The highest that the viewer reads."""
_BASE = 0x7F0000000000
"""Address of the segment, as CUDA gives them."""
_STREAM = 0


def memory_snapshot(
    storages: StorageEvents,
    labels: Mapping[int, LiveTensor],
    calls: Sequence[OpCall],
    device: str,
    after: OptimizerMemory,
) -> dict[str, Any]:
    """Return a snapshot of the memory of a pass.

    What is there before the first call is allocated at the start of the trace.

    Args:
        storages: When each storage is allocated and freed, with sizes that are numbers.
        labels: What each storage is for.
        calls: The calls of the pass, by index.
        device: Device whose memory it is; 0 in the snapshot.
        after: Memory of the step of an optimizer that follows.
    """
    trace = _Trace()
    classes = {call.module_path: call.module_class for call in calls}
    if after.state:
        trace.allocate("state", after.state, "optimizer", [_frame(f"{after.name}: state")])
    for _, storage, number in storages:
        label = labels[storage]
        if number is None:
            trace.free(storage)
        elif label.device == device:
            trace.allocate(storage, label.nbytes, label.category.value, _frames(label, classes))
    if after.temporaries:
        frames = [_frame(f"{after.name}: step")]
        trace.allocate("step", after.temporaries, "temporaries", frames)
        trace.free("step")
    return trace.snapshot()


def _frames(label: LiveTensor, classes: Mapping[str, str]) -> list[dict[str, Any]]:
    """Return stack frames: the call of the operator, then the modules around it."""
    path, _, line = label.source_line.rpartition(":")
    operator = f"{label.operator} {label.name}" if label.operator else label.name
    frames = [_frame(operator, path, int(line) if line.isdecimal() else 0)]
    module = label.module_path
    while module:
        frames.append(_frame(classes.get(module) or "Module", module))
        module = module.rpartition(".")[0]
    return [*frames, _frame(classes.get("") or "Module", "(model)")]


def _frame(name: str, filename: str = "", line: int = 0) -> dict[str, Any]:
    return {"name": name, "filename": filename, "line": line}


class _Trace:
    """Events of a device, and the blocks that are allocated."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._blocks: list[tuple[int, int, object]] = []  # address, size and key, by address
        self._active: dict[object, dict[str, Any]] = {}
        self._end = _BASE

    def allocate(
        self, key: object, nbytes: int, category: str, frames: list[dict[str, Any]]
    ) -> None:
        """Add the allocation of a tensor; one without elements takes no memory."""
        if not nbytes:
            return
        address = self._gap(nbytes)
        insort(self._blocks, (address, nbytes, key), key=itemgetter(0))
        self._end = max(self._end, address + nbytes)
        event = {"addr": address, "size": nbytes, "stream": _STREAM, "frames": frames}
        event["category"] = category
        self._active[key] = event
        self._events.append({"action": "alloc", **event})

    def free(self, key: object) -> None:
        """Add the release of a tensor, if it takes memory."""
        if (event := self._active.pop(key, None)) is None:
            return
        del self._blocks[bisect_left(self._blocks, event["addr"], key=itemgetter(0))]
        self._events += [
            {"action": action, **event} for action in ("free_requested", "free_completed")
        ]

    def snapshot(self) -> dict[str, Any]:
        """Return the snapshot."""
        size = self._end - _BASE
        segment = {"action": "segment_alloc", "addr": _BASE, "size": size, "stream": _STREAM}
        # The viewer fails on a trace with categories of which none is called so.
        segment |= {"frames": [], "category": "unknown"}
        trace = [segment, *self._events] if size else []
        return {"segments": [self._segment(size)] if size else [], "device_traces": [trace]}

    def _gap(self, nbytes: int) -> int:
        """Return the first address with so much room."""
        end = _BASE
        for address, size, _ in self._blocks:
            if address - end >= nbytes:
                return end
            end = address + size
        return end

    def _segment(self, size: int) -> dict[str, Any]:
        blocks: list[dict[str, Any]] = []
        end = _BASE
        for address, nbytes, key in self._blocks:
            if address > end:
                blocks.append(_free_block(end, address - end))
            frames = self._active[key]["frames"]
            blocks.append(_block(address, nbytes, "active_allocated", frames))
            end = address + nbytes
        if self._end > end:
            blocks.append(_free_block(end, self._end - end))
        allocated = sum(block[1] for block in self._blocks)
        return {
            "device": 0,
            "address": _BASE,
            "total_size": size,
            "allocated_size": allocated,
            "active_size": allocated,
            "requested_size": allocated,
            "stream": _STREAM,
            "segment_type": "large",
            "is_expandable": False,
            "frames": [],
            "blocks": blocks,
        }


def _block(address: int, size: int, state: str, frames: list[dict[str, Any]]) -> dict[str, Any]:
    values = {"address": address, "size": size, "requested_size": size}
    return {**values, "state": state, "frames": frames}


def _free_block(address: int, size: int) -> dict[str, Any]:
    return _block(address, size, "inactive", [])
