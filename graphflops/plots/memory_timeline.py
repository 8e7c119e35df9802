"""Plot of memory over the calls of a pass, stacked by category."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from graphflops.analysis.live_tensors import Category
from graphflops.plots.files import figure_file
from graphflops.plots.units import si_formatter
from graphflops.render.units import quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from graphflops.render.protocols import PeakMemory

_COLORS = {
    Category.PARAMETERS: "#4e79a7",
    Category.BUFFERS: "#9c755f",
    Category.OPTIMIZER: "#b07aa1",
    Category.GRADIENTS: "#e15759",
    Category.INPUTS: "#bab0ac",
    Category.KV_CACHE: "#76b7b2",
    Category.ACTIVATIONS: "#59a14f",
    Category.TEMPORARIES: "#f28e2b",
}
"""Colours in the order of the stack, what stays longest at the bottom."""
_POINTS = 1200
"""Most points of a curve: about one for each pixel of its width."""
_CONSTANT_SHARE = 0.6
"""Share of the peak that is there throughout, from which on the rest has a panel of its own."""
_HEADROOM = 1.2
_GREY = "#555555"
_VISIBLE = 0.004
"""Share of the height of the lowest panel from which on a category can be seen."""


def plot_timeline(report: PeakMemory, path: Path) -> None:
    """Plot memory by category over the calls, and the peak.

    Of calls that fall on one pixel, the one that needs most is drawn. Where most of the memory is
    there throughout, a second panel shows the rest.

    Args:
        report: Memory of a pass.
        path: Name of an SVG or PNG file.

    Raises:
        ModelSpecError: The name of the file ends in no known format.
        OutputError: matplotlib is not installed, or the file cannot be written.
    """
    timeline = report.category_timeline
    totals = timeline.totals
    peak = max(1, *totals)
    shown = timeline.highest(_POINTS)
    calls = [timeline.calls[i] for i in shown]
    stacks = {
        category: [timeline.nbytes[category][i] for i in shown]
        for category in _COLORS
        if any(timeline.nbytes[category])
    }
    floor = {category: min(values) for category, values in stacks.items()}
    has_panels = sum(floor.values()) > _CONSTANT_SHARE * peak
    height = peak - sum(floor.values()) * has_panels
    visible = {category for category, values in stacks.items() if max(values) > _VISIBLE * height}
    with figure_file(path, (9, 6.4 if has_panels else 4.2)) as figure:
        panels = figure.subplots(2 if has_panels else 1, 1, sharex=True, squeeze=False)[:, 0]
        _fill(panels[0], calls, stacks, visible)
        panels[0].set_ylim(0, peak * _HEADROOM)
        _mark_peak(panels[0], calls, report, peak)
        _mark_phases(panels[0], report)
        panels[0].set_title(f"{report.model}, {report.kind}: memory on {report.device}", loc="left")
        if has_panels:
            varying = {
                category: [value - floor[category] for value in values]
                for category, values in stacks.items()
                if max(values) > floor[category]
            }
            _fill(panels[1], calls, varying)
            panels[1].set_title("without what is there throughout", loc="left", fontsize="medium")
        panels[-1].set_xlabel("operator call")
        panels[-1].set_xlim(calls[0], max(calls[-1], calls[0] + 1))
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)


def _fill(
    axes: Axes,
    calls: Sequence[int],
    stacks: Mapping[Category, Sequence[int]],
    labelled: Container[Category] = (),
) -> None:
    lower = [0] * len(calls)
    for category, values in stacks.items():
        upper = [bottom + nbytes for bottom, nbytes in zip(lower, values, strict=True)]
        edges = list(zip(calls, lower, upper, strict=True))
        # Where a band goes on as before, a point says nothing.
        steps = [edge for edge, last in pairwise(reversed(edges)) if edge[1:] != last[1:]]
        xs, lows, highs = zip(*sorted({edges[0], *steps, edges[-1]}), strict=True)
        axes.fill_between(
            xs,
            lows,
            highs,
            step="post",
            color=_COLORS[category],
            linewidth=0,
            # A label that begins with an underscore stands in no legend.
            label=category.value.replace("_", " ") if category in labelled else "_",
        )
        lower = upper
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(si_formatter("B"))
    axes.grid(axis="y", alpha=0.3)


def _mark_peak(axes: Axes, calls: Sequence[int], report: PeakMemory, peak: int) -> None:
    call = report.peak_call
    text = f"peak {quantity(peak, 'B')}" + (f", {call.op}" if call else "")
    axes.plot([report.call], [peak], "v", color="black", markersize=5, clip_on=False)
    is_left = report.call - calls[0] < (calls[-1] - calls[0]) / 2
    axes.annotate(
        text,
        (report.call, peak),
        xytext=(8 if is_left else -8, 5),
        textcoords="offset points",
        ha="left" if is_left else "right",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
    )


def _mark_phases(axes: Axes, report: PeakMemory) -> None:
    """Write where the backward pass begins, if there is one."""
    start = report.calls.first_later
    if start is None:
        return
    axes.axvline(start, color=_GREY, linewidth=0.8, linestyle=":")
    for name, shift, side in (("forward", -6, "right"), ("backward", 6, "left")):
        axes.annotate(
            name,
            (start, 0.99),
            xycoords=("data", "axes fraction"),
            xytext=(shift, 0),
            textcoords="offset points",
            ha=side,
            va="top",
            color=_GREY,
        )
