"""Content of a roofline chart: operators of each pass, and the peak rates above them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from graphflops.analysis.call_time import CallTime
from graphflops.core.ir import TensorMeta
from graphflops.errors import ModelSpecError, UnboundSymbolError
from graphflops.render.protocols import TimedPasses

LEAST_SHARE = 0.0005
"""Share of the time from which on an operator is shown."""


class RooflinePoint(NamedTuple):
    """An operator in a pass, all its calls together.

    Attributes:
        pass_name: Name of the pass.
        operator: Name of the operator.
        intensity: FLOPs per byte.
        expected: FLOP/s that are expected.
        bound: FLOP/s that the peak rates allow.
        share: Share of the time of the report.
    """

    pass_name: str
    operator: str
    intensity: float
    expected: float
    bound: float
    share: float


def whole_time(report: TimedPasses) -> float:
    """Return the time of all kernels as a number.

    Raises:
        UnboundSymbolError: It is symbolic.
        ModelSpecError: Nothing takes time.
    """
    seconds = report.total.expected
    if not isinstance(seconds, int | float):
        names = ", ".join(sorted(map(str, seconds.free_symbols)))
        msg = f"a plot shows numbers, and {names} are symbols: bind them by subs() first."
        raise UnboundSymbolError(msg)
    if not seconds:
        msg = f"no operator of {report.model} takes time: there is nothing to plot."
        raise ModelSpecError(msg)
    return float(seconds)


def roofline_points(report: TimedPasses) -> Iterator[RooflinePoint]:
    """Yield the operators of each pass that do arithmetic and take more than a little time.

    Raises:
        UnboundSymbolError: Times are symbolic.
        ModelSpecError: Nothing takes time.
    """
    whole = whole_time(report)
    for name, part in report.passes.items():
        times: defaultdict[str, CallTime] = defaultdict(CallTime)
        for (_, operator), time in part.calls.items():
            times[operator] += time
        for operator, time in times.items():
            if time.flops and time.nbytes and time.expected >= LEAST_SHARE * whole:
                yield RooflinePoint(
                    pass_name=name,
                    operator=operator,
                    intensity=float(time.intensity),
                    expected=float(time.flops / time.expected),
                    bound=float(time.flops / time.bound),
                    share=float(time.expected / whole),
                )


def roofs(report: TimedPasses) -> dict[float, str]:
    """Return the peak rates of the calls with their names, equal ones once, the lowest first."""
    names: defaultdict[float, dict[str, None]] = defaultdict(dict)
    for (dtype, is_matrix), rate in report.roofline.rates.items():
        if TensorMeta((), dtype=dtype).is_floating:
            names[rate][f"{dtype}, matrix units" if is_matrix else dtype] = None
    return {rate: " / ".join(found) for rate, found in sorted(names.items())}
