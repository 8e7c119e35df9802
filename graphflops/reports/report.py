"""Report of one captured pass."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from graphflops import conventions
from graphflops.analysis.compare_conventions import differences, merge
from graphflops.analysis.live_tensors import PassCalls
from graphflops.analysis.memory import memory_of
from graphflops.core.arguments import whole_number
from graphflops.core.call_sequence import CallSequence
from graphflops.core.cost import OpCost
from graphflops.core.guards import check_assumptions
from graphflops.core.ir import Capture, OpCall, OpRecord, Phase, Status
from graphflops.core.module_tree import CostSum, ModuleNode, roll_up, sum_costs
from graphflops.core.substitution import Substitution
from graphflops.core.sums import sum_by_key
from graphflops.errors import ModelSpecError
from graphflops.graph.operator_graph import OperatorGraph
from graphflops.pricing.price import price_all
from graphflops.pricing.registry import Registry
from graphflops.render import data, tables
from graphflops.reports.base import CostReport
from graphflops.reports.comparison import ConventionComparison
from graphflops.reports.memory import MemoryReport
from graphflops.reports.summand import Summand


@dataclass(frozen=True, kw_only=True, repr=False)
class Report(CostReport):
    """Cost of a pass: in total, by module, by operator and call by call.

    Attributes:
        model: Name of what was counted.
        registry: The handlers it was counted with.
        capture: The captured graph, and how it was obtained.
        records: Every call with its cost, in order.
        phase: Part of a training step that it is about; a forward pass otherwise.
        timings: Seconds that each part of the count took.
    """

    model: str
    registry: Registry
    capture: Capture
    records: Sequence[OpRecord]
    phase: Phase = Phase.FORWARD
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def summands(self) -> tuple[Summand, ...]:
        """The pass itself, once."""
        return (Summand(self),)

    @property
    def kind(self) -> str:
        """Kind of report, in words."""
        return f"{self.phase.value} pass"

    @property
    def workload(self) -> Mapping[str, str]:
        """Shapes of the inputs by name."""
        inputs = self.capture.inputs
        return {f"input {name}": f"[{', '.join(map(str, m.shape))}]" for name, m in inputs}

    @property
    def passes_by_name(self) -> Mapping[str, Summand]:
        """The pass itself."""
        return {self.phase.value: Summand(self)}

    @cached_property
    def root(self) -> ModuleNode:
        """Module tree with the cost of each module."""
        return roll_up(self.records, self.capture.modules)

    @cached_property
    def graph(self) -> OperatorGraph:
        """The captured graph: calls and the tensors between them, in FX, in networkx."""
        return OperatorGraph(records=self.records, capture=self.capture)

    @cached_property
    def memory(self) -> MemoryReport:
        """Memory that the pass takes: its peak, what is alive then, and the timeline.

        That of a forward pass is as under ``torch.no_grad()``: autograd saves nothing.

        Raises:
            CaptureError: The graph was exported or read from a file, and did not run as Python.
        """
        capture = self.capture
        memory = memory_of(capture.storages, PassCalls(self.records), caches=capture.caches)
        report = MemoryReport.of(memory, capture.outputs, model=self.model, kind=self.kind)
        return report.keep_open(
            self.symbols, lambda sizes: check_assumptions(capture.assumptions, sizes, self.model)
        )

    @cached_property
    def _sum(self) -> CostSum:
        return sum_costs(self.records)

    @property
    def total(self) -> OpCost:
        """Cost of the whole pass."""
        return self._sum.cost

    @property
    def complete(self) -> bool:
        """True if every call has a price; otherwise all totals are lower bounds."""
        return self._sum.unknown == 0

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences that a reader of the report must know."""
        return self.capture.notes

    def by_operator(self) -> dict[str, OpCost]:
        """Return the cost of each operator; unsupported operators are left out."""
        return _sum_by(self.records, lambda call: call.op)

    def by_dtype(self) -> dict[str, OpCost]:
        """Return the cost by the dtype that operators compute in, e.g. ``"bfloat16"``."""
        return _sum_by(self.records, lambda call: call.dtype)

    def by_module_and_operator(self) -> dict[str, dict[str, OpCost]]:
        """Return the cost of each operator within each module, children included."""
        inside: defaultdict[str, list[OpRecord]] = defaultdict(list)
        for record in self.records:
            path = record.call.module_path
            inside[path].append(record)
            while path:
                path = path.rpartition(".")[0]
                inside[path].append(record)
        return {
            node.path: _sum_by(inside[node.path], lambda call: call.op) for node in self.root.walk()
        }

    def unsupported_ops(self) -> dict[str, int]:
        """Return the operators without a price, with the number of their calls."""
        if self.complete:
            return {}
        return dict(Counter(r.call.op for r in self.records if r.status is Status.UNKNOWN))

    def uncalled_modules(self) -> set[str]:
        """Return the paths of modules that never ran, and below which nothing ran.

        A container such as ``ModuleList`` is never called itself: it is listed only if none
        of its children ran.
        """
        ran = {r.call.module_path for r in self.records}
        ran |= {node.path for node in self.root.walk() if node.calls}
        alive = set(ran)
        for path in ran:
            while path:
                path = path.rpartition(".")[0]  # noqa: PLW2901 - climbing to the root
                alive.add(path)
        return {node.path for node in self.root.walk()} - alive

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbolic sizes that inputs and costs depend on."""
        sizes = [size for _, meta in self.capture.inputs for size in meta.shape]
        values = [*sizes, *(value for _, value in self.total.items())]
        free = (value.free_symbols for value in values if not isinstance(value, int))
        return tuple(sorted({symbol.name for symbols in free for symbol in symbols}))

    def subs(self, **values: int) -> Report:
        """Return the report with numbers for symbolic sizes: ``report.subs(B=8, S=4096)``.

        Raises:
            ModelSpecError: There is no symbol of that name, or the graph does not hold for
                these sizes.

        Example:
            >>> import torch, graphflops
            >>> x = torch.empty(2, 3)
            >>> report = graphflops.count(
            ...     torch.nn.Linear(3, 4), (x,), dynamic_shapes=({0: "B"},)
            ... )
            >>> report.macs, report.subs(B=8).macs
            (12*B, 96)
        """
        symbols = self.symbols
        for name in values:
            if name not in symbols:
                raise ModelSpecError(self._no_symbol(name))
        sizes = {name: whole_number(name, size) for name, size in values.items()}
        check_assumptions(self.capture.assumptions, sizes, self.model)
        numbers = Substitution(sizes)
        records = CallSequence.of(self.records).map_items(lambda r: (numbers.record(r),))
        inputs = tuple((name, numbers.tensor(meta)) for name, meta in self.capture.inputs)
        storages = self.capture.storages and self.capture.storages.map_sizes(numbers.dim)
        capture = replace(self.capture, inputs=inputs, storages=storages)
        return replace(self, records=records, capture=capture)

    def _no_symbol(self, name: str) -> str:
        symbols = self.symbols
        hint = f"They are in {', '.join(symbols)}." if symbols else "They are numbers already."
        if any(name == size.name for size in self.capture.data_sizes):
            hint = f"It is a size that follows from data: count again with assume={{{name!r}: N}}."
        return f"the costs of {self.model} have no symbol {name!r}. {hint}"

    def compare_conventions(self, convention: str) -> ConventionComparison:
        """Compare with another convention: the calls that it counts differently, and why.

        Args:
            convention: Its name, e.g. ``"calflops"``.

        Raises:
            ModelSpecError: There is no convention of that name.
        """
        registry = self.registry.rebase_onto(conventions.get(convention))
        # The records' calls, not the capture's: numbers may have been put in for its symbols.
        calls = (record.call for record in self.records)
        others = price_all(calls, registry, self.capture.fallback)
        names = self.convention, convention
        rows = list(differences(self.records, self.registry, others, registry, names))
        return ConventionComparison(
            model=self.model,
            conventions=names,
            flops_per_mac=(self.registry.flops_per_mac, registry.flops_per_mac),
            ours=self.total,
            theirs=sum((record.cost or OpCost() for record in others), start=OpCost()),
            operators=merge(rows, lambda _: ""),
            modules=merge(rows, lambda row: row.path),
        )

    def formula(self, depth: int | None = 1) -> str:
        """Return MACs and FLOPs as factored expressions, in total and by module to a depth."""
        return tables.formula_table(self.root, depth)

    def table(
        self,
        depth: int | None = 1,
        width: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> str:
        """Return summary, modules down to ``depth`` and operators as plain-text tables.

        Args:
            depth: Levels of modules below the root.
            width: Columns to fit the tables into; by default they are as wide as they are.
            columns: Headers of the module table's columns to show, in this order.

        Raises:
            ModelSpecError: There is no such column.
        """
        return tables.report_table(self, depth, width=width, columns=columns)

    def to_dict(self, *, ops: bool = False) -> dict[str, Any]:
        """Return the report as plain data; ``ops`` adds one entry per call."""
        return data.to_dict(self, ops=ops)

    def to_markdown(self, depth: int | None = 1) -> str:
        """Return summary, modules and operators as Markdown tables."""
        return tables.report_table(self, depth, tablefmt="github")

    def _totals(self) -> Sequence[tuple[str, str]]:
        return tables.totals(self)

    def _coverage(self) -> Sequence[tuple[str, str]]:
        return tables.coverage(self)


def _sum_by(records: Iterable[OpRecord], key: Callable[[OpCall], str]) -> dict[str, OpCost]:
    """Return costs by a property that the calls of a repeated layer share."""
    return sum_by_key(
        records, lambda record: () if record.cost is None else ((key(record.call), record.cost),)
    )
