"""Roofline chart: operators by their arithmetic intensity and the rate that is expected of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import atan2, degrees, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graphflops.analysis.call_time import CallTime
from graphflops.core.ir import TensorMeta
from graphflops.plots.files import figure_file
from graphflops.plots.labels import Label, place_labels
from graphflops.plots.seconds import drawable
from graphflops.plots.units import si_formatter
from graphflops.render.timing import seconds_text
from graphflops.render.units import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from graphflops.render.protocols import TimedPasses

_COLORS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2")
_MARKERS = "osD^v<"
_SMALLEST, _LARGEST = 18.0, 600.0
"""Areas of points in square points: of no time, and of all of it."""
_LEAST = 0.0005
"""Share of the time from which on an operator is drawn."""
_MARGIN = 3.0
_ROOM = 40.0
"""Factor beyond the largest intensity, for the names of roofs and operators."""
_GREY = "#666666"


class _Point(NamedTuple):
    """An operator in a pass.

    Attributes:
        series: Number of the pass.
        operator: Name of the operator.
        intensity: FLOPs per byte.
        expected: FLOP/s that are expected.
        bound: FLOP/s that the peak rates allow.
        share: Share of the time.
    """

    series: int
    operator: str
    intensity: float
    expected: float
    bound: float
    share: float

    @property
    def area(self) -> float:
        return _SMALLEST + (_LARGEST - _SMALLEST) * self.share


def plot_roofline(report: TimedPasses, path: Path) -> None:
    """Plot each operator of each pass under the roofline of the device.

    A point is at the rate that is expected of it, as large as its share of the time; the line above
    it ends at the rate that the device allows at its intensity.

    Args:
        report: Times of a report.
        path: Name of an SVG or PNG file.

    Raises:
        ModelSpecError: The name of the file ends in no known format, or nothing takes time.
        OutputError: matplotlib is not installed, or the file cannot be written.
        UnboundSymbolError: Times are symbolic.
    """
    whole = drawable(report.total.expected, report.model)
    points = list(_points(report, whole))
    rates = _rates(report)
    with figure_file(path, (9, 6)) as figure:
        from matplotlib.ticker import FuncFormatter

        axes = figure.subplots()
        axes.set(xscale="log", yscale="log")
        axes.set_title(
            f"{report.model}, {report.kind} on {report.device.title}: "
            f"{seconds_text(report.expected)} expected" + (", fused" if report.fused else ""),
            loc="left",
        )
        _limit(axes, points, rates, report.device.bandwidth)
        _draw_roofs(axes, rates, report.device.bandwidth)
        _draw_points(axes, points, list(report.passes))
        axes.set_xlabel(f"arithmetic intensity in FLOPs per byte{_left_out(points)}")
        axes.set_ylabel("arithmetic performance")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda intensity, _: f"{intensity:,g}"))
        axes.yaxis.set_major_formatter(si_formatter("FLOP/s"))
        axes.grid(alpha=0.25)
        figure.draw_without_rendering()  # the size of the axes is final from here on
        figure.set_layout_engine("none")
        _label_bandwidth(axes, report.device.bandwidth)
        _label_points(axes, points, rates, report.device.bandwidth)


def _points(report: TimedPasses, whole: float) -> Iterable[_Point]:
    for series, part in enumerate(report.passes.values()):
        times: defaultdict[str, CallTime] = defaultdict(CallTime)
        for (_, operator), time in part.calls.items():
            times[operator] += time
        for operator, time in times.items():
            if time.flops and time.nbytes and time.expected >= _LEAST * whole:
                yield _Point(
                    series=series,
                    operator=operator,
                    intensity=float(time.intensity),
                    expected=float(time.flops / time.expected),
                    bound=float(time.flops / time.bound),
                    share=float(time.expected / whole),
                )


def _rates(report: TimedPasses) -> dict[float, str]:
    """Return the peak rates of the calls with their names, equal ones once."""
    names: defaultdict[float, dict[str, None]] = defaultdict(dict)
    for (dtype, is_matrix), rate in report.roofline.rates.items():
        if TensorMeta((), dtype=dtype).is_floating:
            names[rate][f"{dtype}, matrix units" if is_matrix else dtype] = None
    return {rate: " / ".join(found) for rate, found in sorted(names.items())}


def _limit(axes: Axes, points: Sequence[_Point], rates: dict[float, str], bandwidth: float) -> None:
    ridges = [rate / bandwidth for rate in rates]
    intensities = [point.intensity for point in points] + ridges or [1.0]
    heights = [point.expected for point in points] + list(rates) or [bandwidth]
    axes.set_xlim(min(intensities) / _MARGIN, max(intensities) * _ROOM)
    axes.set_ylim(min(heights) / _MARGIN, max(heights) * _MARGIN)


def _draw_roofs(axes: Axes, rates: dict[float, str], bandwidth: float) -> None:
    left, right = axes.get_xlim()
    top = max(rates, default=right * bandwidth)
    ridge = min(top / bandwidth, right)
    axes.plot([left, ridge], [left * bandwidth, ridge * bandwidth], color=_GREY, linewidth=1.2)
    for rate, name in rates.items():
        axes.plot([rate / bandwidth, right], [rate, rate], color=_GREY, linewidth=1.2)
        axes.annotate(
            f"{name}: {quantity(round(rate), 'FLOP/s')}",
            (right, rate),
            xytext=(-2, 3),
            textcoords="offset points",
            ha="right",
            color=_GREY,
            fontsize=8,
        )


def _draw_points(axes: Axes, points: Sequence[_Point], names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for series, name in enumerate(names):
        color, marker = _COLORS[series % len(_COLORS)], _MARKERS[series % len(_MARKERS)]
        own = [point for point in points if point.series == series]
        if not own:
            continue
        xs, ys = [point.intensity for point in own], [point.expected for point in own]
        axes.vlines(xs, ys, [point.bound for point in own], color=color, linewidth=0.6, alpha=0.7)
        axes.scatter(
            xs,
            ys,
            [point.area for point in own],
            color=color,
            marker=marker,
            alpha=0.75,
            linewidth=0,
            zorder=3,
        )
        handles.append(Line2D([], [], linestyle="", marker=marker, color=color, label=name))
    if len(handles) > 1:
        axes.legend(handles=handles, frameon=False, loc="lower right")


def _left_out(points: Sequence[_Point]) -> str:
    """Return what the chart leaves out, in words."""
    rest = 1 - sum(point.share for point in points)
    return f"   (no or little arithmetic: {rest:.1%} of the time)" if rest >= _LEAST else ""


def _label_bandwidth(axes: Axes, bandwidth: float) -> None:
    """Write the bandwidth along its line."""
    (left, right), (bottom, _) = axes.get_xlim(), axes.get_ylim()
    start = max(left, bottom / bandwidth)
    ends = [(x, x * bandwidth) for x in (start, right)]
    (x, y), (x_end, y_end) = axes.transData.transform(ends)
    axes.annotate(
        quantity(round(bandwidth), "B/s"),
        ends[0],
        xytext=(14, 22),
        textcoords="offset points",
        rotation=degrees(atan2(y_end - y, x_end - x)),
        rotation_mode="anchor",
        color=_GREY,
        fontsize=8,
    )


def _label_points(
    axes: Axes, points: Sequence[_Point], rates: dict[float, str], bandwidth: float
) -> None:
    left, right = axes.get_xlim()
    ridge = max(rates, default=right * bandwidth) / bandwidth
    lines = [((left, left * bandwidth), (ridge, ridge * bandwidth))]
    lines += [((rate / bandwidth, rate), (right, rate)) for rate in rates]
    labels = [
        Label(p.operator.removeprefix("aten::"), p.intensity, p.expected, sqrt(p.area) / 2)
        for p in sorted(points, key=lambda point: -point.share)
    ]
    place_labels(axes, labels, 7.5, lines)
