"""Icicle chart: the time of modules, each below the module that it is part of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from graphflops.plots.files import figure_file
from graphflops.plots.units import si_formatter
from graphflops.render.roofline import whole_time
from graphflops.render.timing import seconds_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from graphflops.render.protocols import TimedPasses

_PALETTE = (
    *("#a0cbe8", "#ffbe7d", "#8cd17d", "#f1ce63", "#ff9d9a", "#d4a6c8"),
    *("#86bcb6", "#d7b5a6", "#fabfd2", "#d9c56b", "#b5cfe8", "#c7e9c0"),
)
_PLAIN = "#d9d9d9"
_WIDTH = 10.0
_ROW = 0.62
"""Height of a row in inches."""
_NARROWEST = 0.0002
"""Share of the time from which on a module is drawn."""
_FONT = 7.0
_CHARACTER = 0.6 * _FONT / 72
"""Width of a character in inches."""
_LINE = 1.05 * _FONT / 72
_LEGEND_COLUMNS = 6


class _Cell(NamedTuple):
    """A module in the chart.

    Attributes:
        path: Path of the module.
        depth: Row.
        start: Seconds left of it.
        seconds: Its own seconds, its parts included.
    """

    path: str
    depth: int
    start: float
    seconds: float

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]


def plot_icicle(report: TimedPasses, path: Path) -> None:
    """Plot the expected time by module, parts below the whole.

    Modules of one name have one colour. What is left white below a module are its own operators.

    Args:
        report: Times of a report.
        path: Name of an SVG or PNG file.

    Raises:
        ModelSpecError: The name of the file ends in no known format, or nothing takes time.
        OutputError: matplotlib is not installed, or the file cannot be written.
        UnboundSymbolError: Times are symbolic.
    """
    whole = whole_time(report)
    seconds = {name: float(time.expected) for name, time in report.by_module().items()}
    cells = [cell for cell in _cells(seconds) if cell.seconds >= _NARROWEST * whole]
    rows = 1 + max(cell.depth for cell in cells)
    colors = _colors(cells)
    with figure_file(path, (_WIDTH, 1.3 + _ROW * rows)) as figure:
        axes = figure.subplots()
        bars: defaultdict[tuple[int, str], list[tuple[float, float]]] = defaultdict(list)
        for cell in cells:
            bars[cell.depth, colors.get(cell.name, _PLAIN)].append((cell.start, cell.seconds))
        for (depth, color), spans in bars.items():
            place = (-depth - 0.5, 1)
            axes.broken_barh(spans, place, facecolor=color, edgecolor="white", linewidth=0.5)
        named = {cell.name for cell in cells if _write(axes, cell, whole, report.model)}
        axes.set_xlim(0, whole)
        axes.set_ylim(0.5 - rows, 0.5)
        axes.yaxis.set_visible(False)
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_formatter(si_formatter("s"))
        axes.set_title(
            f"{report.model}, {report.kind} on {report.device.title}: time of kernels by module",
            loc="left",
        )
        _add_legend(figure, {name: c for name, c in colors.items() if name not in named})


def _add_legend(figure: Figure, colors: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    if colors:
        figure.legend(
            handles=[Patch(facecolor=color, label=name) for name, color in colors.items()],
            loc="outside lower center",
            ncols=_LEGEND_COLUMNS,
            frameon=False,
        )


def _cells(seconds: Mapping[str, float]) -> Iterator[_Cell]:
    """Yield modules with their places, wholes before their parts."""
    parts: defaultdict[str, list[str]] = defaultdict(list)
    for path in seconds:
        if path:
            parts[path.rpartition(".")[0]].append(path)

    def walk(path: str, depth: int, start: float) -> Iterator[_Cell]:
        yield _Cell(path, depth, start, seconds[path])
        for part in parts[path]:
            yield from walk(part, depth + 1, start)
            start += seconds[part]

    return walk("", 0, 0.0)


def _colors(cells: list[_Cell]) -> dict[str, str]:
    """Return colours of the names that take most time; numbers of layers have none."""
    totals: defaultdict[str, float] = defaultdict(float)
    for cell in cells:
        if cell.name and not cell.name.isdecimal():
            totals[cell.name] += cell.seconds
    names = sorted(totals, key=lambda name: -totals[name])
    return dict(zip(names, _PALETTE, strict=False))


def _write(axes: Axes, cell: _Cell, whole: float, model: str) -> bool:
    """Write name and time into a cell if there is room, and return True if there is."""
    name = cell.name or model
    width = _WIDTH * 0.96 * cell.seconds / whole
    lines = [name, f"{seconds_text(cell.seconds)}, {cell.seconds / whole:.1%}"]
    text, rotation = name, 0
    if width > _CHARACTER * max(map(len, lines)):
        text = "\n".join(lines)
    elif width < _CHARACTER * len(name) + 0.02:
        if width < _LINE or _CHARACTER * len(name) > _ROW:
            return False
        rotation = 90
    axes.text(
        cell.start + cell.seconds / 2,
        -cell.depth,
        text,
        ha="center",
        va="center",
        rotation=rotation,
        fontsize=_FONT,
        in_layout=False,
    )
    return True
