"""Chrome traces that ``torch.profiler`` writes: files, events, and what belongs to an operator."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graphflops.errors import ModelSpecError

_GZIP = b"\x1f\x8b"
_OPERATOR = "cpu_op"
_ON_DEVICE = frozenset({"kernel", "gpu_memcpy", "gpu_memset"})
_RUNTIME = frozenset({"cuda_runtime", "cuda_driver", "hip_runtime"})
_AUTOGRAD = "autograd::engine::"


def read_trace(path: Path) -> dict[str, Any]:
    """Read a trace, compressed or not.

    Raises:
        ModelSpecError: The file cannot be read, or is no trace.
    """
    advice = "Give a file of torch.profiler's export_chrome_trace()."
    try:
        data = path.read_bytes()
        text = gzip.decompress(data) if data.startswith(_GZIP) else data
        trace = json.loads(text)
    except OSError as error:
        raise ModelSpecError(
            f"{path} cannot be read: {error.strerror or error}. {advice}"
        ) from None
    except (ValueError, EOFError, RecursionError) as error:
        raise ModelSpecError(f"{path} is no trace: {error}. {advice}") from None
    if isinstance(trace, list):  # the other form of the format
        trace = {"traceEvents": trace}
    events = trace.get("traceEvents") if isinstance(trace, dict) else None
    if not isinstance(events, list) or not all(isinstance(event, dict) for event in events):
        raise ModelSpecError(f"{path} is no trace: it has no list traceEvents. {advice}")
    result: dict[str, Any] = trace
    return result


@dataclass(eq=False)
class OperatorEvent:
    """Event of an operator on the host.

    Attributes:
        event: Event of the trace.
        parent: Event of the operator that called it.
        in_backward: True if autograd's engine runs it.
        sequence: Number that forward operators and their backward share, if it has one.
        on_device: Kernels, copies and fills that it launched itself.
    """

    event: dict[str, Any]
    parent: OperatorEvent | None = None
    in_backward: bool = False
    sequence: int | None = None
    on_device: list[dict[str, Any]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the operator."""
        return str(self.event.get("name", ""))

    @property
    def args(self) -> dict[str, Any]:
        """Arguments that the profiler recorded."""
        found = self.event.get("args")
        return found if isinstance(found, dict) else {}

    @property
    def seconds(self) -> float:
        """Time on the host."""
        return float(self.event.get("dur", 0)) / 1e6

    def with_ancestors(self) -> Iterator[OperatorEvent]:
        """Yield it, the operator that called it, and so on."""
        found: OperatorEvent | None = self
        while found is not None:
            yield found
            found = found.parent


@dataclass(frozen=True)
class Operators:
    """Operators of a trace.

    Attributes:
        events: Their events in the order of time, of all threads.
        orphans: Kernels, copies and fills of which no operator is known.
    """

    events: tuple[OperatorEvent, ...]
    orphans: tuple[dict[str, Any], ...]

    @property
    def has_device(self) -> bool:
        """True if the trace has kernels."""
        return bool(self.orphans) or any(found.on_device for found in self.events)


def operators_of(trace: dict[str, Any]) -> Operators:
    """Return the operators of a trace with what they launched on a device.

    A kernel has the ``External id`` of its operator; where it has none, its ``correlation`` is
    that of the call that launched it, which lies within the operator's time.
    """
    events = [e for e in trace["traceEvents"] if e.get("ph") == "X" and "ts" in e]
    nested = _nest([e for e in events if e.get("cat") == _OPERATOR or e.get("cat") in _RUNTIME])
    operators = tuple(o for o in nested if o.event.get("cat") == _OPERATOR)
    by_id: dict[Any, OperatorEvent] = {}
    for operator in operators:
        by_id.setdefault(operator.args.get("External id"), operator)
    by_id.pop(None, None)
    by_correlation = {
        launch.args["correlation"]: launch.parent
        for launch in nested
        if launch.event.get("cat") in _RUNTIME and "correlation" in launch.args
    }
    orphans = []
    for event in events:
        if event.get("cat") in _ON_DEVICE:
            args = event.get("args") or {}
            external = args.get("External id", args.get("external id"))
            owner = by_id.get(external) or by_correlation.get(args.get("correlation"))
            if owner is None:
                orphans.append(event)
            else:
                owner.on_device.append(event)
    return Operators(operators, tuple(orphans))


def _nest(events: list[dict[str, Any]]) -> list[OperatorEvent]:
    """Return events with the operators that called them: those of a thread that enclose them."""
    open_by_thread: dict[Any, list[OperatorEvent]] = {}
    nested = []
    for event in sorted(events, key=lambda e: (float(e["ts"]), -float(e.get("dur", 0)))):
        stack = open_by_thread.setdefault((event.get("pid"), event.get("tid")), [])
        while stack and _end(stack[-1].event) <= float(event["ts"]):
            stack.pop()
        parent = stack[-1] if stack else None
        found = OperatorEvent(event, parent)
        starts = found.name.startswith(_AUTOGRAD)
        found.in_backward = starts or (parent is not None and parent.in_backward)
        found.sequence = found.args.get("Sequence number")
        if found.sequence is None and found.in_backward and parent is not None:
            found.sequence = parent.sequence
        nested.append(found)
        stack.append(found)
    return nested


def _end(event: dict[str, Any]) -> float:
    return float(event["ts"]) + float(event.get("dur", 0))


def device_names(trace: dict[str, Any]) -> list[str]:
    """Return the names of the GPUs that a trace was recorded on."""
    properties = trace.get("deviceProperties") or []
    return [
        str(entry["name"]) for entry in properties if isinstance(entry, dict) and "name" in entry
    ]
