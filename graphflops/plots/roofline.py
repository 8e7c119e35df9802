"""Roofline chart: operators by their arithmetic intensity and the rate that is expected of them."""

from __future__ import annotations

from collections.abc import Sequence
from math import atan2, degrees, sqrt
from pathlib import Path
from typing import TYPE_CHECKING

from graphflops.plots.files import figure_file
from graphflops.plots.labels import Label, place_labels
from graphflops.plots.units import si_formatter
from graphflops.render.roofline import LEAST_SHARE, RooflinePoint, roofline_points, roofs
from graphflops.render.timing import seconds_text
from graphflops.render.units import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from graphflops.render.protocols import TimedPasses

_COLORS = ("#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2")
_MARKERS = "osD^v<"
_SMALLEST, _LARGEST = 18.0, 600.0
"""Areas of points in square points: of no time, and of all of it."""
_MARGIN = 3.0
_ROOM = 40.0
"""Factor beyond the largest intensity, for the names of roofs and operators."""
_GREY = "#666666"


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
    points = list(roofline_points(report))
    rates = roofs(report)
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


def _limit(
    axes: Axes, points: Sequence[RooflinePoint], rates: dict[float, str], bandwidth: float
) -> None:
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


def _draw_points(axes: Axes, points: Sequence[RooflinePoint], names: Sequence[str]) -> None:
    from matplotlib.lines import Line2D

    handles = []
    for series, name in enumerate(names):
        color, marker = _COLORS[series % len(_COLORS)], _MARKERS[series % len(_MARKERS)]
        own = [point for point in points if point.pass_name == name]
        if not own:
            continue
        xs, ys = [point.intensity for point in own], [point.expected for point in own]
        axes.vlines(xs, ys, [point.bound for point in own], color=color, linewidth=0.6, alpha=0.7)
        axes.scatter(
            xs,
            ys,
            list(map(_area, own)),
            color=color,
            marker=marker,
            alpha=0.75,
            linewidth=0,
            zorder=3,
        )
        handles.append(Line2D([], [], linestyle="", marker=marker, color=color, label=name))
    if len(handles) > 1:
        axes.legend(handles=handles, frameon=False, loc="lower right")


def _left_out(points: Sequence[RooflinePoint]) -> str:
    """Return what the chart leaves out, in words."""
    rest = 1 - sum(point.share for point in points)
    return f"   (no or little arithmetic: {rest:.1%} of the time)" if rest >= LEAST_SHARE else ""


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
    axes: Axes, points: Sequence[RooflinePoint], rates: dict[float, str], bandwidth: float
) -> None:
    left, right = axes.get_xlim()
    ridge = max(rates, default=right * bandwidth) / bandwidth
    lines = [((left, left * bandwidth), (ridge, ridge * bandwidth))]
    lines += [((rate / bandwidth, rate), (right, rate)) for rate in rates]
    labels = [
        Label(p.operator.removeprefix("aten::"), p.intensity, p.expected, sqrt(_area(p)) / 2)
        for p in sorted(points, key=lambda point: -point.share)
    ]
    place_labels(axes, labels, 7.5, lines)


def _area(point: RooflinePoint) -> float:
    return _SMALLEST + (_LARGEST - _SMALLEST) * point.share
