"""Time of a report on a device: a bound that holds, and a prediction."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import sympy

from graphflops.analysis.call_time import (
    CallTime,
    Roofline,
    Seconds,
    times_by_module_and_operator,
)
from graphflops.analysis.devices import Device
from graphflops.analysis.devices import device as find_device
from graphflops.analysis.efficiency import Efficiency, efficiency_of
from graphflops.analysis.fused_time import times_of_kernels
from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import OpRecord
from graphflops.core.module_tree import path_depth
from graphflops.plots.icicle import plot_icicle
from graphflops.plots.roofline import plot_roofline
from graphflops.render import timing as rendering
from graphflops.reports.tabular import TabularReport

_Times = Mapping[tuple[str, str], CallTime]


@dataclass(frozen=True, kw_only=True)
class PassTime:
    """Time of one pass of a report, in all its runs.

    Attributes:
        runs: Number of runs.
        calls: Time of the calls by path of their module and operator.
        host: Seconds that the host takes to start the kernels.
    """

    runs: int
    calls: _Times
    host: Seconds

    @cached_property
    def total(self) -> CallTime:
        """Time of all calls, as if the host kept up."""
        return sum(self.calls.values(), start=CallTime())

    @property
    def bound(self) -> Seconds:
        """Seconds at the peak rates."""
        return self.total.bound

    @property
    def expected(self) -> Seconds:
        """Seconds expected: of the kernels, or of the host if it takes longer to start them."""
        kernels = self.total.expected
        if isinstance(kernels, float) and isinstance(self.host, float):
            return max(kernels, self.host)
        return sympy.Max(kernels, self.host)


@dataclass(frozen=True, kw_only=True, repr=False)
class TimeReport(TabularReport):
    """Time of what a report counts, on a device.

    Seconds are numbers, or sympy expressions where sizes are symbolic. ``bound`` is what no
    execution can beat that runs operator after operator, each from and to the device's memory;
    ``expected`` is what to expect of eager PyTorch there.

    Attributes:
        model: Name of what was counted.
        kind: Kind of its report.
        roofline: Device, dtype and what kernels reach of the peak rates.
        passes: Time of each pass by name.
        fused: True if operators run fused, as a compiler makes them.
        modules: Paths of the modules in the order of the model.
        figures: What follows from the times expected, by name. Of a generation: seconds
            ``time_to_first_token`` and ``time_per_token``, ``tokens_per_second`` of all sequences.
            Of a training step: ``mfu`` and ``hfu``.
    """

    model: str
    kind: str
    roofline: Roofline
    passes: Mapping[str, PassTime]
    fused: bool = False
    modules: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> Device:
        """The device."""
        return self.roofline.device

    @property
    def efficiency(self) -> Efficiency:
        """Shares of the peak rates that kernels reach."""
        return self.roofline.efficiency

    @cached_property
    def total(self) -> CallTime:
        """Time of all calls of all passes."""
        return sum((part.total for part in self.passes.values()), start=CallTime())

    @property
    def bound(self) -> Seconds:
        """Seconds at the peak rates: of each call, the longer of arithmetic and traffic."""
        return self.total.bound

    @property
    def expected(self) -> Seconds:
        """Seconds expected; where the host takes longer to start the kernels, that time."""
        return sum((part.expected for part in self.passes.values()), start=0.0)

    @property
    def compute_bound(self) -> Seconds:
        """Seconds expected of the calls whose arithmetic takes longer than their traffic."""
        return self.total.compute_bound

    @property
    def memory_bound(self) -> Seconds:
        """Seconds expected of the calls whose traffic takes longer than their arithmetic."""
        return self.total.memory_bound

    def by_module(self) -> dict[str, CallTime]:
        """Return the time of each module by path, children included; ``""`` is the model.

        They are in the order of the model, parents before children.
        """
        times: defaultdict[str, CallTime] = defaultdict(CallTime)
        for (path, _), time in self._calls():
            times[path] += time
        for depth in range(max(map(path_depth, times), default=0), 0, -1):
            for path in [path for path in times if path_depth(path) == depth]:
                times[path.rpartition(".")[0]] += times[path]
        order = {path: position for position, path in enumerate(self.modules)}
        return dict(sorted(times.items(), key=lambda item: order.get(item[0], len(order))))

    def by_operator(self) -> dict[str, CallTime]:
        """Return the time of each operator."""
        times: defaultdict[str, CallTime] = defaultdict(CallTime)
        for (_, operator), time in self._calls():
            times[operator] += time
        return dict(times)

    def time_of(self, record: OpRecord) -> CallTime:
        """Return the time of one call of the report."""
        return self.roofline.time(record)

    def _calls(self) -> list[tuple[tuple[str, str], CallTime]]:
        return [item for part in self.passes.values() for item in part.calls.items()]

    def plot_roofline(self, path: str | Path) -> None:
        """Plot each operator under the device's roofline into an SVG or PNG file.

        Raises:
            ModelSpecError: The name of the file ends in no known format.
            OutputError: The file cannot be written, or matplotlib is not installed.
            UnboundSymbolError: Times are symbolic.
        """
        plot_roofline(self, Path(path))

    def plot_icicle(self, path: str | Path) -> None:
        """Plot the time by module, parts below the whole, into an SVG or PNG file.

        Raises:
            ModelSpecError: The name of the file ends in no known format.
            OutputError: The file cannot be written, or matplotlib is not installed.
            UnboundSymbolError: Times are symbolic.
        """
        plot_icicle(self, Path(path))

    def to_dict(self) -> dict[str, Any]:
        """Return the times as plain data: seconds, FLOPs and bytes; expressions become strings."""
        return rendering.to_dict(self)

    def _tables(self, depth: int | None, tablefmt: str, width: int | None) -> str:
        return rendering.table(self, depth, tablefmt, width)


def roofline_of(
    device: Device | str,
    dtype: str | None,
    efficiency: Efficiency | float | None,
    records: Iterable[OpRecord],
) -> Roofline:
    """Return the roofline of a device.

    Args:
        device: Device, or its name.
        dtype: Dtype in place of those counted, if any.
        efficiency: What kernels reach, or one share for all; by default that of the family.
        records: Records whose contractions say the precision.
    """
    found = find_device(device) if isinstance(device, str) else device
    precision = dtype or _main_dtype(records)
    return Roofline(found, efficiency_of(efficiency, found, precision), dtype, precision)


def _main_dtype(records: Iterable[OpRecord]) -> str:
    """Return the dtype of most multiply-accumulates; of symbolic ones, of most contractions."""
    macs: Counter[str] = Counter()
    for record in CallSequence.of(records).distinct():
        if record.cost is not None and record.cost.macs:
            macs[record.call.dtype] += record.cost.macs if isinstance(record.cost.macs, int) else 1
    return max(macs, key=macs.__getitem__, default="float32")


def generation_figures(passes: Mapping[str, PassTime], sequences: int) -> dict[str, Any]:
    """Return time to the first token, for each further one, and tokens per second.

    Args:
        passes: Prefill, and decode if there is any.
        sequences: Number of sequences.
    """
    prefill, *decode = passes.values()
    steps = sum(part.runs for part in decode)
    seconds = sum((part.expected for part in decode), start=0.0)
    figures = {"time_to_first_token": prefill.expected}
    if steps:
        figures["time_per_token"] = seconds / steps
    tokens = sequences * (1 + steps)
    return {**figures, "tokens_per_second": tokens / (prefill.expected + seconds)}


class Runs(NamedTuple):
    """Runs of a pass, which may differ in a size.

    Attributes:
        records: Function that returns the records of a run, from 0.0 (the first) to 1.0 (the last).
        times: Number of runs.
    """

    records: Callable[[float], Sequence[OpRecord]]
    times: int


def times_of_passes(
    runs: Mapping[str, Runs], roofline: Roofline, kept: Mapping[str, frozenset[str]] | None
) -> dict[str, PassTime]:
    """Return the time of each pass.

    Args:
        runs: Runs of the passes.
        roofline: Device, dtype and what kernels reach of the peak rates.
        kept: Storages that are read after each pass, if operators are fused.
    """
    of_fused: Mapping[str, frozenset[str]] = kept or {}
    return {name: pass_time(part, roofline, of_fused.get(name)) for name, part in runs.items()}


def pass_time(runs: Runs, roofline: Roofline, kept: frozenset[str] | None = None) -> PassTime:
    """Return the time of a pass in all its runs.

    Args:
        runs: Runs of the pass.
        roofline: Device, dtype and what kernels reach of the peak rates.
        kept: Storages that are read after the pass, if its operators are fused.

    Of three and more runs the first, the middle and the last are looked at, and the sum is
    Simpson's: exact where no call changes on the way between compute-bound and memory-bound.
    """
    records_of, times = runs
    weights = {1: {0.0: 1}, 2: {0.0: 1, 1.0: 1}}.get(
        times, {0.0: times / 6, 0.5: 4 * times / 6, 1.0: times / 6}
    )
    calls: dict[tuple[str, str], CallTime] = {}
    for position, weight in weights.items():
        records = records_of(position)
        if kept is None:
            times_by_key = times_by_module_and_operator(records, roofline)
        else:
            times_by_key = times_of_kernels(records, roofline, kept)
        for key, time in times_by_key.items():
            weighted = time if weight == 1 else time * weight
            calls[key] = calls[key] + weighted if key in calls else weighted
    kernels = sum((time.kernels for time in calls.values()), start=0)
    return PassTime(runs=times, calls=calls, host=kernels * roofline.efficiency.dispatch)
