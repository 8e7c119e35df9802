"""Labels beside points that do not cover each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CHARACTER = 0.66
"""Width of a character in font sizes, a little more than the mean."""
_LINE = 1.3
"""Height of a line in font sizes."""
_POINTS_PER_INCH = 72


class Label(NamedTuple):
    """Label of a point.

    Attributes:
        text: The text.
        x: Place of the point in data coordinates.
        y: Likewise.
        radius: Radius of the point in typographic points.
    """

    text: str
    x: float
    y: float
    radius: float


class _Box(NamedTuple):
    left: float
    bottom: float
    right: float
    top: float

    def overlaps(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.bottom < other.top
            and other.bottom < self.top
        )


Segment: TypeAlias = tuple[tuple[float, float], tuple[float, float]]
"""A line between two points in data coordinates."""


def place_labels(
    axes: Axes, labels: Sequence[Label], fontsize: float, lines: Iterable[Segment] = ()
) -> None:
    """Write labels beside their points, the first ones first; one without room is left out.

    They cover neither points, nor each other, nor text that is there already.

    Args:
        axes: Axes of matplotlib, whose limits and size are final.
        labels: The labels, the most important first.
        fontsize: Size of the font in points.
        lines: Lines that no label may cover.
    """
    scale = axes.figure.dpi / _POINTS_PER_INCH
    frame = _Box(*axes.get_window_extent().extents)
    places = [axes.transData.transform((label.x, label.y)) for label in labels]
    taken = [
        _around(x, y, label.radius * scale) for label, (x, y) in zip(labels, places, strict=True)
    ]
    taken += [_Box(*text.get_window_extent().extents) for text in axes.texts]
    taken += [box for line in lines for box in _along(axes.transData.transform(line), 3 * scale)]
    for label, (x, y) in zip(labels, places, strict=True):
        width = len(label.text) * _CHARACTER * fontsize * scale
        height = _LINE * fontsize * scale
        for dx, dy in _offsets(label.radius * scale + 2, width, height):
            box = _Box(x + dx, y + dy, x + dx + width, y + dy + height)
            is_inside = box.left > frame.left and box.right < frame.right
            is_inside &= box.bottom > frame.bottom and box.top < frame.top
            if is_inside and not any(map(box.overlaps, taken)):
                taken.append(box)
                axes.annotate(
                    label.text,
                    (label.x, label.y),
                    xytext=((dx + 1) / scale, (dy + height / 2) / scale),
                    textcoords="offset points",
                    fontsize=fontsize,
                    va="center",
                )
                break


def _around(x: float, y: float, radius: float) -> _Box:
    return _Box(x - radius, y - radius, x + radius, y + radius)


def _along(line: Any, step: float) -> Iterable[_Box]:
    """Yield boxes that cover a line in pixels."""
    (x, y), (x_end, y_end) = line
    steps = max(1, int(max(abs(x_end - x), abs(y_end - y)) / step))
    for i in range(steps + 1):
        yield _around(x + (x_end - x) * i / steps, y + (y_end - y) * i / steps, step / 3)


def _offsets(gap: float, width: float, height: float) -> Iterable[tuple[float, float]]:
    """Yield where a label's lower left corner may be, from its point: the best first."""
    for distance in (gap, gap + height / 2, gap + height, gap + 2 * height):
        yield distance, -height / 2
        yield -distance - width, -height / 2
        yield -width / 2, distance
        yield -width / 2, -distance - height
        for dy in (distance / 2, -distance / 2 - height):
            yield distance * 0.8, dy
            yield -distance * 0.8 - width, dy
