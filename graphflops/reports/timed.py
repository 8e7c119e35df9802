"""Reports that can be timed on a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graphflops.analysis.call_time import Roofline
from graphflops.analysis.devices import Device
from graphflops.analysis.efficiency import Efficiency
from graphflops.analysis.fused_time import kept_by_pass
from graphflops.analysis.traffic_roles import bytes_by_role
from graphflops.core.cost import Dim
from graphflops.core.ir import Capture, OpRecord
from graphflops.reports.summand import CapturedPass, Summand
from graphflops.reports.timing import (
    PassTime,
    Runs,
    TimeReport,
    roofline_of,
    times_of_passes,
)


class Timed(ABC):
    """Report whose passes take time on a device."""

    if TYPE_CHECKING:

        @property
        def model(self) -> str:
            """Name of what was counted."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """Kind of report, in words."""

    @property
    @abstractmethod
    def passes_by_name(self) -> Mapping[str, Summand]:
        """Passes by name, also those that the totals leave out."""

    @property
    @abstractmethod
    def _first(self) -> CapturedPass:
        """Pass that stands for what all have in common."""

    def time(
        self,
        device: Device | str,
        *,
        dtype: str | None = None,
        efficiency: Efficiency | float | None = None,
        fused: bool = False,
    ) -> TimeReport:
        """Return the time on a device: a bound that holds, and a prediction.

        Args:
            device: Device, or its name as ``graphflops devices`` has it.
            dtype: Dtype of contractions and floating tensors, in place of those counted;
                ``"tf32"`` is that of contractions in float32 alone.
            efficiency: What kernels reach of the peak rates, or one share for all; by default
                that of the family of the device.
            fused: Let pointwise operators run in the kernels around them, as a compiler does.

        Raises:
            ModelSpecError: There is no such device, it has no rate for a dtype, or the efficiency
                is no share.

        Example:
            >>> import torch, graphflops
            >>> linear = torch.nn.Linear(4096, 4096, bias=False, device="meta")
            >>> report = graphflops.count(linear, (torch.empty(8192, 4096, device="meta"),))
            >>> bound = report.time("a100", dtype="bfloat16").bound
            >>> round(bound * 312e12 / (2 * 8192 * 4096 * 4096), 3)  # 312 TFLOP/s
            1.0
        """
        roofline = roofline_of(device, dtype, efficiency, self._first.records)
        kept = self._kept_storages if fused else None
        passes = times_of_passes(self.timed_runs, roofline, kept)
        return TimeReport(
            model=self.model,
            kind=self.kind,
            roofline=roofline,
            passes=passes,
            fused=fused,
            modules=tuple(module.path for module in self._first.capture.modules),
            figures=self._figures(passes, roofline),
        )

    def _figures(self, passes: Mapping[str, PassTime], roofline: Roofline) -> dict[str, Any]:  # noqa: ARG002 - reports with figures read them
        return {}

    @property
    def _kept_storages(self) -> Mapping[str, frozenset[str]]:
        """Storages that each pass leaves in memory for what comes after it, by pass."""
        kept: dict[str, frozenset[str]] = {}
        for records, capture in self._captures():
            kept |= kept_by_pass(records, capture.outputs)
        return kept

    def bytes_by_role(self) -> dict[str, dict[str, Dim]]:
        """Return the bytes that a run of each pass moves, by what they are.

        Roles are ``weights`` (parameters and buffers), ``inputs``, ``kv_cache``,
        ``saved_activations`` (made in one pass and read in another), ``activations`` and
        ``gradients``. Each operator is taken on its own, nothing fused.
        """
        found: dict[str, dict[str, Dim]] = {}
        for records, capture in self._captures():
            found |= bytes_by_role(records, capture)
        return found

    def _captures(self) -> Iterator[tuple[dict[str, Sequence[OpRecord]], Capture]]:
        """Yield each capture with the records of its passes by name."""
        passes = self.passes_by_name
        records = {name: part.report.records for name, part in passes.items()}
        if len({part.report.phase for part in passes.values()}) == len(passes):
            yield records, self._first.capture  # the phases of one step
            return
        for name, part in passes.items():
            yield {name: records[name]}, part.report.capture

    @property
    def timed_runs(self) -> Mapping[str, Runs]:
        """Passes that take time, by name."""
        return {name: Runs(s.records, s.times) for name, s in self.passes_by_name.items()}
