"""What is observed of a step: its memory, its time, its floating-point operations."""

from __future__ import annotations

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import (
    FlopCounterMode,
    sdpa_backward_flop_count,
    sdpa_flop_count,
)

from benchmarks.gpu.device import Device
from benchmarks.gpu.steps import After, nothing

Step = Callable[[After], None]
Shape = tuple[int, ...]
DIGITS = 5


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long is measured.

    Attributes:
        fewest: Repetitions of a step at least.
        most: Repetitions at most.
        seconds: How long repetitions take together where that is between the two.
        slow: Seconds of one step from which on ``fewest_slow`` repetitions are enough.
        fewest_slow: Repetitions of such a slow step.
        fewest_wall: Repetitions by the clock at least.
        tokens: How many tokens a generation adds.
        row: Seconds after which a row is given up.
    """

    fewest: int = 5
    most: int = 20
    seconds: float = 0.6
    slow: float = 0.4
    fewest_slow: int = 3
    fewest_wall: int = 3
    tokens: int = 32
    row: float = 120.0

    def repetitions(self, seconds: float, share: float = 1.0) -> int:
        """How often a step of so many seconds is repeated in a share of the time."""
        fewest = self.fewest_slow if seconds > self.slow else self.fewest
        wanted = int(share * self.seconds / max(seconds, 1e-9))
        return max(fewest, min(self.most, wanted))


DRY = Limits(fewest=1, most=1, seconds=0.0, fewest_slow=1, fewest_wall=1, tokens=3, row=400.0)


def memory_by_phase(device: Device, step: Step) -> dict[str, dict[str, int]]:
    """Memory at the end of each phase of one step, and its peak within the phase."""
    phases: dict[str, dict[str, int]] = {}

    def after(phase: str) -> None:
        phases[phase] = device.memory()
        device.reset_peaks()

    device.reset_peaks()
    step(after)
    device.synchronize()
    return phases


def seconds_of(device: Device, step: Step) -> float:
    """Seconds of one step by the clock, the device idle before and after."""
    device.synchronize()
    start = time.perf_counter()
    step(nothing)
    device.synchronize()
    return time.perf_counter() - start


def spread(milliseconds: list[float]) -> dict[str, float]:
    """Median, extremes and quartiles of repetitions."""
    if len(milliseconds) > 1:
        lower, median, upper = statistics.quantiles(milliseconds, n=4, method="inclusive")
    else:
        lower = median = upper = milliseconds[0]
    values = {
        "median": median,
        "min": min(milliseconds),
        "q1": lower,
        "q3": upper,
        "max": max(milliseconds),
    }
    return {name: round(value, DIGITS) for name, value in values.items()} | {
        "repetitions": len(milliseconds)
    }


def phase_milliseconds(device: Device, step: Step, repetitions: int) -> dict[str, list[float]]:
    """Milliseconds of each phase on the device, and of the whole ``step``, per repetition.

    The device is not waited for between repetitions, so that it idles only where the host
    launches kernels too slowly.
    """
    marked: list[list[tuple[str, Any]]] = []

    def after(phase: str) -> None:
        marked[-1].append((phase, device.mark()))

    device.synchronize()
    for _ in range(repetitions):
        marked.append([("", device.mark())])
        step(after)
    device.synchronize()
    times: dict[str, list[float]] = defaultdict(list)
    for marks in marked:
        times["step"].append(device.elapsed(marks[0][1], marks[-1][1]))
        for (_, before), (phase, now) in itertools.pairwise(marks):
            times[phase].append(device.elapsed(before, now))
    return dict(times)


def times(device: Device, step: Step, limits: Limits) -> dict[str, dict[str, float]]:
    """Milliseconds of a step's phases on the device and by the clock; it has run before."""
    once = seconds_of(device, step)
    phases = phase_milliseconds(device, step, limits.repetitions(once))
    walls = max(limits.fewest_wall, limits.repetitions(once, share=0.4) // 2)
    clock = [seconds_of(device, step) * 1e3 for _ in range(walls)]
    return {phase: spread(values) for phase, values in phases.items()} | {"wall": spread(clock)}


def _query_heads(query: Shape, other: Shape) -> Shape:
    """The shape of keys or values that are repeated for each of the query's heads."""
    return (other[0], query[1], *other[2:])


def _attention_flops(
    query: Shape, key: Shape, value: Shape, *_others: object, **_options: object
) -> int:
    key, value = _query_heads(query, key), _query_heads(query, value)
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


def _attention_backward_flops(
    gradient: Shape,
    query: Shape,
    key: Shape,
    value: Shape,
    *_others: object,
    **_options: object,
) -> int:
    key, value = _query_heads(query, key), _query_heads(query, value)
    count = sdpa_backward_flop_count(gradient, query, key, value)  # type: ignore[no-untyped-call]
    return int(count)


def _grouped() -> dict[Any, Any]:
    """Formulas of attention that take fewer heads of keys than of queries; torch's refuse."""
    kinds = ("flash", "efficient", "cudnn")
    names = {f"_scaled_dot_product_{kind}_attention": _attention_flops for kind in kinds} | {
        f"_scaled_dot_product_{kind}_attention_backward": _attention_backward_flops
        for kind in kinds
    }
    aten = torch.ops.aten
    return {getattr(aten, name): formula for name, formula in names.items() if hasattr(aten, name)}


def flops(step: Step, *, grouped: bool = False) -> dict[str, dict[str, int]]:
    """FLOPs of one step by phase and operator, as torch counts them.

    Args:
        step: The step.
        grouped: Whether attention may have fewer heads of keys than of queries.
    """
    counter = FlopCounterMode(display=False, custom_mapping=_grouped() if grouped else None)
    phases: dict[str, dict[str, int]] = {}
    seen: dict[str, int] = {}

    def after(phase: str) -> None:
        now = {str(name): int(n) for name, n in counter.get_flop_counts().get("Global", {}).items()}
        counts = {name: n - seen.get(name, 0) for name, n in now.items()}
        phases[phase] = {name: n for name, n in counts.items() if n}
        seen.update(now)

    with counter:
        step(after)
    return phases
