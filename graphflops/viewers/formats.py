"""Formats of viewers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from graphflops.core.arguments import check_choice
from graphflops.errors import ModelSpecError
from graphflops.render.protocols import TimedPasses
from graphflops.runtime.patches import WITHOUT_GARBAGE_COLLECTION
from graphflops.viewers.dot import check_pydot, dot
from graphflops.viewers.graphml import graphml
from graphflops.viewers.model_explorer import model_explorer
from graphflops.viewers.perfetto import perfetto
from graphflops.viewers.speedscope import speedscope
from graphflops.viewers.viewed import Viewed

Texts: TypeAlias = Mapping[str, str]
"""Texts of files, by what their names end in before the suffix; that of the main one is empty."""


class ViewerFormat(NamedTuple):
    """Format of a viewer.

    Attributes:
        write: Function from a report and its time on a device to the texts of files.
        needs_time: True if it shows times only.
        has_companions: True if it is several files.
    """

    write: Callable[[Viewed, Any], Texts]
    needs_time: bool = False
    has_companions: bool = False

    def texts(self, report: Viewed, times: TimedPasses | None) -> Texts:
        """Return a report as files.

        Args:
            report: Report of any kind.
            times: Its time on a device.

        Raises:
            UnboundSymbolError: Costs are symbolic, and the format shows numbers.
        """
        with WITHOUT_GARBAGE_COLLECTION.holding():
            return self.write(report, times)


FORMATS: Mapping[str, ViewerFormat] = {
    "speedscope": ViewerFormat(lambda report, times: {"": speedscope(report, times)}),
    "perfetto": ViewerFormat(lambda report, times: {"": perfetto(report, times)}, needs_time=True),
    "model-explorer": ViewerFormat(model_explorer, has_companions=True),
    "dot": ViewerFormat(lambda report, _: {"": dot(report)}),
    "graphml": ViewerFormat(lambda report, _: {"": graphml(report)}),
}


def viewer_format(to: str, device: object, path: Path | None) -> ViewerFormat:
    """Return a format that can be written, before the work whose result it shows.

    Args:
        to: Its name.
        device: Device for times, if any.
        path: The file, if it is one.

    Raises:
        ModelSpecError: There is no such format, or it needs a device or a file of another name.
        OutputError: A package is not installed.
    """
    check_choice("to", to, FORMATS)
    if FORMATS[to].has_companions and (path is None or path.suffix != ".json"):
        msg = f"{to} is several files, which lie side by side. Give a file that ends in .json."
        raise ModelSpecError(msg)
    if FORMATS[to].needs_time and device is None:
        msg = f"{to} shows times, on a device such as h100-sxm. Name one of `graphflops devices`."
        raise ModelSpecError(msg)
    if to == "dot":
        check_pydot()
    return FORMATS[to]


def beside(path: Path, name: str) -> Path:
    """Return the path of a file beside the main one: ``x.json`` has ``x.flops.json``.

    Example:
        >>> beside(Path("llama.json"), "flops").name
        'llama.flops.json'
    """
    return path.with_name(f"{path.stem}.{name}{path.suffix}") if name else path
