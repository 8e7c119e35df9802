"""Report of the memory that a pass takes."""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from graphflops.analysis.category_timeline import CategoryTimeline, category_timeline
from graphflops.analysis.last_use import last_use_peak
from graphflops.analysis.live_tensors import LiveTensor, label_storages
from graphflops.analysis.memory import Memory
from graphflops.analysis.memory_savings import Savings, SavingsEstimate
from graphflops.analysis.memory_snapshot import PICKLE_PROTOCOL, memory_snapshot
from graphflops.analysis.tensor_shapes import TensorShapes
from graphflops.core.cost import Dim
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.errors import ModelSpecError
from graphflops.plots.files import write_bytes
from graphflops.plots.memory_timeline import plot_timeline
from graphflops.render import memory as rendering
from graphflops.reports.tabular import TabularReport


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class MemoryReport(TabularReport, Memory):
    """Memory that a pass takes: its peak, what is alive then, and the timeline.

    Attributes:
        model: Name of what was counted.
        kind: Kind of pass.
        outputs: Tensors that the model returns, if they outlive the pass.
    """

    model: str
    kind: str
    outputs: tuple[TensorMeta, ...]

    @classmethod
    def of(
        cls, memory: Memory, outputs: tuple[TensorMeta, ...], *, model: str, kind: str
    ) -> MemoryReport:
        """Return the report of a pass.

        Args:
            memory: Its memory.
            outputs: Tensors that the model returns, if they outlive the pass.
            model: Name of what was counted.
            kind: Kind of pass.
        """
        values = {f.name: getattr(memory, f.name) for f in fields(memory)}
        return cls(**values, outputs=outputs, model=model, kind=kind)

    @cached_property
    def last_use_peak(self) -> int:
        """Peak in bytes if each result were freed right after the last call that reads it.

        What no schedule of the same calls in the same order goes below; views are uses of the
        whole. Parameters, inputs, gradients, caches and outputs stay.
        """
        self._check_numbers()
        return last_use_peak(self.storages, self._in_order, self.outputs, self.device, self.after)

    @property
    def peak_call(self) -> OpCall | None:
        """The call at which the peak is first reached.

        ``None`` before the first call, and in the step of an optimizer.
        """
        return self.calls.find((self.call,)).get(self.call)

    @cached_property
    def shapes(self) -> tuple[tuple[Dim, ...] | None, ...]:
        """Shapes of the tensors in ``at_peak``; ``None`` where a shape is not known."""
        shapes = TensorShapes(self._in_order)
        return tuple(map(shapes.of, self.at_peak))

    @cached_property
    def category_timeline(self) -> CategoryTimeline:
        """Bytes by category over the calls."""
        return category_timeline(
            self.storages, self._labels, self.device, self.after, len(self.calls)
        )

    @cached_property
    def _in_order(self) -> Sequence[OpCall]:
        return self.calls.in_order()

    @cached_property
    def _labels(self) -> Mapping[int, LiveTensor]:
        self._check_numbers()
        return label_storages(self.storages, self.calls, self.caches)

    @property
    def is_training(self) -> bool:
        """True for a training step, which has gradients."""
        return bool(self.storages.gradients)

    def savings(self, ranks: int = 8) -> Savings:
        """Return what FSDP and checkpoints of layers would take off the peak of a training step.

        Args:
            ranks: Number of devices that share weights, gradients and the optimizer's state.

        Raises:
            ModelSpecError: This is no training step, or there is less than one device.

        Example:
            >>> import torch, graphflops as gf
            >>> layers = [torch.nn.Linear(1000, 1000, bias=False) for _ in range(8)]
            >>> x = torch.empty(1, 1000)
            >>> step = gf.count_training(torch.nn.Sequential(*layers), (x,), optimizer="sgd")
            >>> step.memory.savings(ranks=8).sharding  # of 8 weights and gradients of 4 MB
            45500000
        """
        if not self.is_training:
            msg = "sharding and checkpoints are of training: ask the report of a training step."
            raise ModelSpecError(msg)
        if ranks < 1:
            raise ModelSpecError(f"ranks is {ranks}. Give at least 1.")
        estimate = SavingsEstimate(self._levels, self._labels, self._in_order, self.after)
        return estimate.savings(ranks)

    def plot(self, path: str | Path) -> None:
        """Plot memory by category over the calls into an SVG or PNG file.

        Raises:
            OutputError: The file cannot be written, or matplotlib is not installed.
        """
        plot_timeline(self, Path(path))

    def snapshot(self, path: str | Path) -> None:
        """Write the timeline as a snapshot for PyTorch's memory viewer.

        https://pytorch.org/memory_viz opens the file; ``python -m torch.cuda._memory_viz trace_plot
        FILE -o FILE.html`` makes a page of it.

        Raises:
            OutputError: The file cannot be written.
        """
        found = memory_snapshot(
            self.storages, self._labels, self._in_order, self.device, self.after
        )
        write_bytes(Path(path), pickle.dumps(found, protocol=PICKLE_PROTOCOL))

    def to_dict(self) -> dict[str, Any]:
        """Return the memory as plain data, in bytes."""
        return rendering.to_dict(self)

    def _tables(self, depth: int | None, tablefmt: str, width: int | None) -> str:
        return rendering.table(self, depth, tablefmt, width)
