"""Reports that viewers show: flame graphs, time lines, graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from graphflops.plots.files import check_folder, text_bytes, write_bytes
from graphflops.reports.timed import Timed
from graphflops.viewers.formats import beside, viewer_format
from graphflops.viewers.viewed import Execution

if TYPE_CHECKING:
    from graphflops.analysis.devices import Device
    from graphflops.core.cost import OpCost


class Viewable(Timed, ABC):
    """Report that viewers show."""

    @abstractmethod
    def by_pass(self) -> dict[str, OpCost]:
        """Return the cost of each pass in all runs, by name."""

    @property
    def executions(self) -> Mapping[str, Execution]:
        """Graphs in the order they run, by name."""
        passes = self.passes_by_name.items()
        return {name: Execution(part.run, part.times, (name,)) for name, part in passes}

    def view(
        self,
        path: str | Path,
        to: str = "speedscope",
        *,
        device: Device | str | None = None,
        dtype: str | None = None,
    ) -> tuple[Path, ...]:
        """Write files that a viewer opens.

        Args:
            path: The file, compressed if it ends in ``.gz``; those beside it, if any, have its name
                with that of a figure.
            to: ``"speedscope"``, ``"perfetto"``, ``"model-explorer"``, ``"dot"`` or ``"graphml"``.
            device: Device, or its name, for times on it; ``"perfetto"`` needs one.
            dtype: Dtype on the device, in place of those counted.

        Returns:
            Paths of the files.

        Raises:
            ModelSpecError: There is no such format, or it needs a device, or a file that ends in
                ``.json``.
            OutputError: A file cannot be written, or a package is not installed.
            UnboundSymbolError: Costs are symbolic, and the format shows numbers.

        Example:
            >>> import json, tempfile, torch, graphflops
            >>> report = graphflops.count(torch.nn.Linear(3, 4), (torch.empty(2, 3),))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     (path,) = report.view(f"{folder}/linear.json", to="speedscope")
            ...     profiles = json.loads(path.read_text())["profiles"]
            >>> profiles[0]["name"], sum(profiles[0]["weights"]), report.flops
            ('FLOPs', 56, 56)
        """
        viewer = viewer_format(to, device, Path(path))
        times = None if device is None else self.time(device, dtype=dtype)
        texts = viewer.texts(self, times)
        files = {beside(Path(path), name): text for name, text in texts.items()}
        for file in files:
            check_folder(file)
        for file, text in files.items():
            write_bytes(file, text_bytes(file, text))
        return tuple(files)
