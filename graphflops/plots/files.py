"""Figures of matplotlib, and the files that they are written to."""

from __future__ import annotations

import gzip
import importlib.util
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from graphflops.errors import ModelSpecError, OutputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = {".svg": "svg", ".png": "png"}
_STYLE = {
    "svg.hashsalt": "graphflops",  # ids that do not change from run to run
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # names of modules and operators are no formulas
}
_DRAWING = (
    *("axes.", "figure.dpi", "figure.facecolor", "figure.edgecolor", "figure.constrained", "font."),
    *("grid.", "legend.", "lines.", "patch.", "path.", "savefig.bbox", "savefig.facecolor"),
    *("savefig.pad", "savefig.transparent", "scatter.", "svg.", "text.", "xtick.", "ytick."),
)
"""Names of the settings that a figure's look depends on."""
_PNG_DPI = 150


def check_plot(path: Path) -> None:
    """Check that a plot can be made, before the work whose result it shows.

    Raises:
        ModelSpecError: The name of the file ends in no known format.
        OutputError: matplotlib is not installed, or the folder does not exist.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ModelSpecError(f"{path} is no name of a plot. Let it end in .svg or .png.")
    if importlib.util.find_spec("matplotlib") is None:
        msg = "plots need matplotlib, which is not installed: pip install 'graphflops[plots]'."
        raise OutputError(msg)
    check_folder(path)


def check_folder(path: Path) -> None:
    """Check that a file can be made in its folder.

    Raises:
        OutputError: There is no such folder, or the path is one itself.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder. Give the path of a file in it.")
    if not path.absolute().parent.is_dir():
        msg = f"{path}: there is no folder {path.parent}. Make it, or give another path."
        raise OutputError(msg)


@contextmanager
def figure_file(path: Path, size: tuple[float, float]) -> Iterator[Figure]:
    """Return a figure to draw on, which is written to a file at the end.

    Settings of matplotlib are its defaults and ours meanwhile, whatever they are outside.

    Args:
        path: Name of an SVG or PNG file.
        size: Width and height in inches.

    Raises:
        ModelSpecError: The name of the file ends in no known format.
        OutputError: matplotlib is not installed, or the file cannot be written.
    """
    check_plot(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    drawn = (name for name in mpl.rcParamsDefault if name.startswith(_DRAWING))
    defaults = {name: mpl.rcParamsDefault[name] for name in drawn}
    with mpl.rc_context({**defaults, **_STYLE}):
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        file, kind = io.BytesIO(), _FORMATS[path.suffix.lower()]
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(file, format=kind, dpi=_PNG_DPI, metadata=metadata)
    write_bytes(path, file.getvalue())


def text_bytes(path: Path, text: str) -> bytes:
    """Return a text as a file has it: in UTF-8, compressed if its name ends in ``.gz``."""
    data = text.encode("utf-8", "backslashreplace")
    return gzip.compress(data) if path.suffix == ".gz" else data


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file.

    Raises:
        OutputError: It cannot be written.
    """
    try:
        path.write_bytes(content)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise OutputError(f"{path} cannot be written: {reason}. Give another path.") from error
