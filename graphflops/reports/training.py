"""Report of a training step: forward, backward, recomputation, optimizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from graphflops.analysis.call_time import Roofline
from graphflops.analysis.live_tensors import PassCalls
from graphflops.analysis.memory import memory_of
from graphflops.analysis.optimizers import OptimizerStep
from graphflops.analysis.utilization import Measurement
from graphflops.core.arguments import check_choice
from graphflops.core.call_sequence import CallSequence
from graphflops.core.cost import Dim, OpCost, substitute
from graphflops.core.guards import check_assumptions
from graphflops.core.ir import OpCall, OpRecord, Phase, Status, TensorMeta
from graphflops.core.module_tree import ModuleNode, roll_up
from graphflops.core.storage_events import StorageEvents
from graphflops.core.substitution import Substitution
from graphflops.errors import ModelSpecError, UnboundSymbolError
from graphflops.graph.operator_graph import OperatorGraph
from graphflops.render import training as rendering
from graphflops.reports.base import CostReport
from graphflops.reports.comparison import ConventionComparison
from graphflops.reports.memory import MemoryReport
from graphflops.reports.module_training import ModuleTraining, costs_of_modules
from graphflops.reports.report import Report
from graphflops.reports.summand import Summand
from graphflops.reports.timing import PassTime, Runs
from graphflops.viewers.viewed import Execution

UNATTRIBUTED = "(unattributed)"
"""Path of backward calls that no module is known to have caused."""
CONVENTIONS = ("exact", "causal", "torch")
"""Conventions that price the backward pass; the others see a forward pass only."""


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainingReport(CostReport):
    """Cost of a training step: in total, by module and by call.

    *Model FLOPs* are those of the forward and the backward pass, whatever is computed twice;
    *hardware FLOPs* are with recomputation: of checkpoints, and of the scores that the backward
    of fused attention computes again. They are the numerators of MFU and HFU. The optimizer
    is in neither.

    Attributes:
        forward: The forward pass and the loss.
        backward: The backward pass, each call by the module whose forward caused it.
        recompute: What is computed again in between.
        loss: What is differentiated, in words.
        optimizer: A step of the optimizer, if one was asked for.
        gradient_accumulation_steps: Passes before a step of the optimizer.
        steps: Steps of the optimizer.
        notes: What a reader must know of the inputs and the capture.
        measured: A step as it was measured, for its MFU and HFU to be shown.
        storages: When memory is allocated and freed; ``None`` if it is not known.
    """

    forward: Report
    backward: Report
    recompute: Report
    loss: str
    optimizer: OptimizerStep | None = None
    gradient_accumulation_steps: int = 1
    steps: int = 1
    notes: tuple[str, ...] = ()
    measured: Measurement | None = None
    storages: StorageEvents | None = field(default=None, compare=False)

    @classmethod
    def of(cls, whole_number: Report, **rest: Any) -> TrainingReport:
        """Sort the calls of a report by when they run."""
        return cls(
            forward=_part(whole_number, Phase.FORWARD),
            backward=_part(whole_number, Phase.BACKWARD),
            recompute=_part(whole_number, Phase.RECOMPUTE),
            notes=whole_number.capture.notes,
            storages=whole_number.capture.storages,
            **rest,
        )

    @property
    def model(self) -> str:
        """Name of what was counted."""
        return self.forward.model

    @property
    def kind(self) -> str:
        """Kind of report, in words."""
        return "training step"

    @property
    def workload(self) -> Mapping[str, str]:
        """Shapes of the inputs by name, and the number of passes."""
        return {**self.forward.workload, "number of passes": str(self.passes)}

    @property
    def summands(self) -> tuple[Summand, ...]:
        """Forward and backward pass, as often as they run."""
        return tuple(self.passes_by_name.values())[:2]

    @property
    def passes_by_name(self) -> Mapping[str, Summand]:
        """Forward, backward and recomputation, as often as they run."""

        def in_all(cost: OpCost) -> OpCost:
            return cost * self.passes

        names = (phase.value for phase in (Phase.FORWARD, Phase.BACKWARD, Phase.RECOMPUTE))
        parts = (Summand(part, self.passes, in_all) for part in self.parts)
        return dict(zip(names, parts, strict=True))

    @property
    def executions(self) -> Mapping[str, Execution]:
        """The graph of a pass with all its phases, as often as it runs."""
        return {"pass": Execution(lambda _: self, self.passes, tuple(self.passes_by_name))}

    def by_pass(self) -> dict[str, OpCost]:
        """Return the cost of each pass in all runs, and of the optimizer's steps, if any."""
        optimizer = {} if self.optimizer is None else {"optimizer": self.optimizer_cost}
        return {**super().by_pass(), **optimizer}

    @property
    def parts(self) -> tuple[Report, Report, Report]:
        """Forward, backward and recomputation of one pass, in this order."""
        return self.forward, self.backward, self.recompute

    @property
    def records(self) -> Sequence[OpRecord]:
        """Calls of one pass with their costs: forward, backward, recomputation."""
        return [record for part in self.parts for record in part.records]

    @cached_property
    def graph(self) -> OperatorGraph:
        """The captured graph of a pass: the calls of all phases in the order they run."""
        records = sorted(self.records, key=lambda record: record.call.index)
        return OperatorGraph(records=records, capture=self.forward.capture)

    @property
    def complete(self) -> bool:
        """True if every call has a price; otherwise all totals are lower bounds."""
        return all(part.complete for part in self.parts)  # which expand no repeated layer

    @cached_property
    def memory(self) -> MemoryReport:
        """Memory that a step takes after the first, in which the optimizer's state is there.

        The gradients are made anew in each step, as after ``zero_grad()``; the model's outputs
        are dropped once the loss is computed. The optimizer works as ``torch.optim`` does by
        default: on lists of parameters on a GPU, on one parameter after the other on the CPU.
        Where gradients are accumulated, it is a pass that adds to those of others.
        """
        calls = PassCalls(self.forward.records, (self.backward.records, self.recompute.records))
        storages = self.storages
        if storages is not None and self.gradient_accumulation_steps > 1:
            storages = storages.with_kept_gradients()
        memory = memory_of(storages, calls, optimizer=self.optimizer)
        report = MemoryReport.of(memory, (), model=self.model, kind=self.kind)
        conditions = self.forward.capture.assumptions
        return report.keep_open(
            self.symbols, lambda sizes: check_assumptions(conditions, sizes, self.model)
        )

    @property
    def _module_tree(self) -> ModuleNode:
        # The backward pass may have calls of no module.
        return roll_up(self.records, self.forward.capture.modules)

    @property
    def timings(self) -> Mapping[str, float]:
        """Seconds that each part of the count took, by what it is."""
        return self.forward.timings

    @property
    def dtype(self) -> str:
        """Dtype of most of the multiply-accumulates."""
        by_dtype = (self.forward.by_dtype(), self.backward.by_dtype())
        macs = Counter({dtype: 0 for costs in by_dtype for dtype in costs})
        for costs in by_dtype:
            macs.update({dtype: _in_scale(cost.macs) for dtype, cost in costs.items()})
        return macs.most_common(1)[0][0] if macs else ""

    @property
    def passes(self) -> int:
        """Forward and backward passes in all steps."""
        return self.gradient_accumulation_steps * self.steps

    @property
    def model_flops(self) -> Dim:
        """The numerator of MFU: :attr:`flops`."""
        return self.flops

    @property
    def hardware_flops(self) -> Dim:
        """The numerator of HFU: model FLOPs and those of recomputation."""
        return self.flops + self.recompute.flops * self.passes

    @property
    def optimizer_cost(self) -> OpCost:
        """Steps of the optimizer, and sums of the gradients of further passes."""
        if self.optimizer is None:
            return OpCost()
        summed = OpCost(flops=self.optimizer.parameters * (self.gradient_accumulation_steps - 1))
        return (self.optimizer.cost + summed) * self.steps

    @property
    def timed_runs(self) -> Mapping[str, Runs]:
        """Passes that take time, by name, and the optimizer's steps."""
        runs = dict(super().timed_runs)
        if self.optimizer is not None:
            name, dtype = self.optimizer.optimizer.name, self.dtype
            call = OpCall(op=f"optimizer::{name}", outputs=(TensorMeta((), dtype=dtype),))
            step = OpRecord(call=call, status=Status.COUNTED, cost=self.optimizer.cost)
            runs["optimizer"] = Runs(lambda _: (step,), self.steps)
        return runs

    def _figures(self, passes: Mapping[str, PassTime], roofline: Roofline) -> dict[str, Any]:
        seconds = sum((part.expected for part in passes.values()), start=0.0) / self.steps
        if not (isinstance(seconds, float) and isinstance(self.flops, int) and self.macs):
            return {}
        peak = roofline.peak
        return {"mfu": self.mfu(seconds, peak), "hfu": self.hfu(seconds, peak)}

    @property
    def unattributed(self) -> OpCost:
        """Backward calls of which nothing says what module they belong to."""
        return self.backward.by_module().get(UNATTRIBUTED, OpCost())

    def by_module_and_phase(self) -> dict[str, ModuleTraining]:
        """Return the cost of each module in one pass by path, split by phase."""
        return self._by_module_and_phase

    @cached_property
    def _by_module_and_phase(self) -> dict[str, ModuleTraining]:
        modules = self.forward.capture.modules
        return costs_of_modules(
            self.forward.by_module(), self.backward.records, self.recompute.by_module(), modules
        )

    def mfu(self, step_time: float, peak_flops: float, *, causal: bool = False) -> float:
        """Model FLOPs utilization: model FLOPs of a step over what the hardware could do.

        Args:
            step_time: Measured seconds of a step: of all passes it accumulates.
            peak_flops: FLOP/s of all accelerators together; :func:`graphflops.peak_flops` has
                what their makers publish.
            causal: Leave out what causal masks hide. By default attention counts in full, as
                in PaLM (Chowdhery et al., 2022, appendix B), whatever a mask hides.

        Raises:
            ModelSpecError: A time or a rate is not positive.
            UnboundSymbolError: The cost is no number yet.

        Example:
            >>> import torch, graphflops
            >>> step = graphflops.count_training(torch.nn.Linear(1, 1), (torch.empty(1, 1),))
            >>> step.mfu(step_time=1.0, peak_flops=10)  # 3 FLOPs forward, 2 backward: 1 MAC
            0.5
        """
        cost = self.forward.total + self.backward.total
        return self._utilization(cost, step_time, peak_flops, causal=causal)

    def hfu(self, step_time: float, peak_flops: float, *, causal: bool = False) -> float:
        """Hardware FLOPs utilization: as :meth:`mfu`, with what is recomputed."""
        cost = self.forward.total + self.backward.total + self.recompute.total
        return self._utilization(cost, step_time, peak_flops, causal=causal)

    def _utilization(
        self, cost: OpCost, step_time: float, peak_flops: float, *, causal: bool
    ) -> float:
        if not (step_time > 0 and peak_flops > 0):
            msg = (
                f"a step of {step_time} s at {peak_flops} FLOP/s is no measurement. Give seconds "
                "and a rate above 0."
            )
            raise ModelSpecError(msg)
        flops = cost.flops - (cost.flops_masked if causal else 0)
        if not isinstance(flops, int):
            msg = (
                f"a pass takes {flops} FLOPs, which is no number yet: sizes follow from data, as "
                "the notes of the report say. Count with assume= for them."
            )
            raise UnboundSymbolError(msg)
        return float(flops * self.gradient_accumulation_steps / (step_time * peak_flops))

    def compare_conventions(self, convention: str) -> ConventionComparison:
        """Compare with another convention: the calls that it counts differently, and why.

        Args:
            convention: ``"exact"``, ``"causal"`` or ``"torch"``; others have no prices for a
                backward pass.

        Raises:
            ModelSpecError: It is another one.
        """
        check_choice("convention", convention, CONVENTIONS)
        return super().compare_conventions(convention)

    def subs(self, **values: int) -> TrainingReport:
        """Return the report with numbers for symbolic sizes.

        Raises:
            ModelSpecError: There is no symbol of that name.
        """
        for name in values:
            if name not in self.symbols:
                return replace(self, forward=self.forward.subs(**values))  # which says so

        def bound(part: Report) -> Report:
            return part.subs(**{n: v for n, v in values.items() if n in part.symbols})

        forward, backward, recompute = map(bound, self.parts)
        storages = self.storages and self.storages.map_sizes(Substitution(values).dim)
        return replace(
            self, forward=forward, backward=backward, recompute=recompute, storages=storages
        )

    def formula(self, depth: int | None = None) -> str:  # noqa: ARG002 - phases have no modules
        """Return MACs and FLOPs of each phase, and of all passes, as factored expressions."""
        return rendering.formulas(self)

    def tree(self, depth: int | None = None, width: int | None = None) -> str:
        """Return the module tree in PyTorch's ``repr`` style with the costs of one pass."""
        return rendering.tree(self, depth, width)

    def table(
        self,
        depth: int | None = 1,
        width: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> str:
        """Return summary and modules down to ``depth`` as plain-text tables.

        Args:
            depth: Levels of modules below the root.
            width: Columns to fit the tables into; by default they are as wide as they are.
            columns: Headers of the columns to show, in this order.

        Raises:
            ModelSpecError: There is no such column.
        """
        return rendering.table(self, depth, width=width, columns=columns)

    def to_dict(self, *, ops: bool = False) -> dict[str, Any]:
        """Return the report as plain data; ``ops`` adds one entry per call."""
        return rendering.to_dict(self, ops=ops)

    def to_csv(self, depth: int | None = None) -> str:
        """Return one line per module with its cost in each phase, numbers unformatted."""
        return rendering.to_csv(self, depth)

    def to_markdown(self, depth: int | None = 1) -> str:
        """Return summary and modules as Markdown tables."""
        return rendering.table(self, depth, "github")

    def _totals(self) -> Sequence[tuple[str, str]]:
        return rendering.totals(self)

    def _coverage(self) -> Sequence[tuple[str, str]]:
        return rendering.coverage(self)


def _in_scale(value: Dim) -> int:
    """A count as a number to compare others with: sizes that are open are large."""
    symbols = () if isinstance(value, int) else value.free_symbols
    return int(substitute(value, {symbol.name: _LARGE for symbol in symbols}))


_LARGE = 1000


def _part(whole_number: Report, phase: Phase) -> Report:
    records = CallSequence.of(whole_number.records).map_items(
        lambda r: (r,) if r.call.phase is phase else ()
    )
    calls = records.map_items(lambda record: (record.call,))
    return replace(
        whole_number,
        records=records,
        capture=replace(whole_number.capture, calls=calls, storages=None),
        phase=phase,
    )
