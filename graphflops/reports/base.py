"""Questions that every report answers: of one pass, or of a weighted sum of passes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graphflops.analysis.devices import Device
from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpRecord, Status
from graphflops.core.module_tree import ModuleNode
from graphflops.html import notebook
from graphflops.html.compared import compared
from graphflops.html.content import content
from graphflops.html.page import page
from graphflops.plots.files import check_folder, write_bytes
from graphflops.render import data
from graphflops.render.explain import explain
from graphflops.render.layout import labelled
from graphflops.render.tree import render_tree
from graphflops.reports.calls import SortKey, find_records, sort_records
from graphflops.reports.comparison import ConventionComparison
from graphflops.reports.diff import CostDiff, Workload, diff_reports
from graphflops.reports.memory import MemoryReport
from graphflops.reports.summand import CapturedPass, Summand
from graphflops.reports.viewable import Viewable


class CostReport(Viewable, ABC):
    """Base of all reports.

    Costs are integers, or sympy expressions where sizes are symbolic. Those of a module include
    its children. FLOPs count floating-point operations (a MAC is two); bytes count what each
    operator reads and writes by itself, nothing fused.
    """

    if TYPE_CHECKING:  # fields of some reports, which properties here would take the place of

        @property
        def records(self) -> Sequence[OpRecord]:
            """Calls of each pass once, with their costs, in order."""

        @property
        def memory(self) -> MemoryReport:
            """Memory that it takes: its peak, what is alive then, and the timeline."""

    @property
    @abstractmethod
    def summands(self) -> tuple[Summand, ...]:
        """Passes that the totals are the sum of."""

    @property
    @abstractmethod
    def workload(self) -> Mapping[str, str]:
        """Sizes that the costs are for, by what they are sizes of."""

    @property
    def _first(self) -> CapturedPass:
        return self.summands[0].report

    @property
    def convention(self) -> str:
        """Name of the way of counting."""
        return self._first.registry.name

    @cached_property
    def total(self) -> OpCost:
        """Cost of the whole."""
        costs = (summand.total_of(summand.report.total) for summand in self.summands)
        return sum(costs, start=OpCost())

    @property
    def flops(self) -> Dim:
        """Floating-point operations."""
        return self.total.flops

    @property
    def macs(self) -> Dim:
        """Multiply-accumulates of the contractions."""
        return self.total.macs

    @property
    def transcendentals(self) -> Dim:
        """Transcendental operations, included in :attr:`flops`."""
        return self.total.transcendentals

    @property
    def bytes_read(self) -> Dim:
        """Bytes read, summed over operators, nothing fused."""
        return self.total.bytes_read

    @property
    def bytes_written(self) -> Dim:
        """Bytes written, summed over operators, nothing fused."""
        return self.total.bytes_written

    @property
    def params(self) -> int:
        """Number of parameters, tied ones once."""
        return self._first.root.params_total

    @property
    def params_trainable(self) -> int:
        """Number of parameters that require a gradient."""
        return self._first.root.params_trainable

    @property
    def complete(self) -> bool:
        """True if every call has a price; otherwise all totals are lower bounds."""
        return not self.unsupported_ops()

    @cached_property
    def coverage(self) -> Mapping[Status, int]:
        """Number of calls by status."""
        return Counter(record.status for record in self.records)

    @cached_property
    def root(self) -> ModuleNode:
        """Module tree, with the cost of each module over all passes."""
        passes = [
            (summand, {node.path: node for node in summand.report.root.walk()})
            for summand in self.summands
        ]

        def add(node: ModuleNode) -> ModuleNode:
            own, total, calls, unknown = OpCost(), OpCost(), 0, 0
            for summand, nodes in passes:
                if (part := nodes.get(node.path)) is not None:
                    own += summand.total_of(part.own)
                    total += summand.total_of(part.total)
                    calls += summand.times * (part.calls or 0)
                    unknown += summand.times * part.unknown
            return node._replace(
                own=own,
                total=total,
                calls=None if node.calls is None else calls,
                unknown=unknown,
                children=tuple(map(add, node.children)),
            )

        return add(self._module_tree)

    @property
    def _module_tree(self) -> ModuleNode:
        """Tree with every module of any pass; its costs are not looked at."""
        return self._first.root

    def by_module(self) -> dict[str, OpCost]:
        """Return the cost of each module by path; ``""`` is the model."""
        return {node.path: node.total for node in self.root.walk()}

    def by_operator(self) -> dict[str, OpCost]:
        """Return the cost of each operator; unsupported operators are left out."""
        return self._added(lambda report: report.by_operator())

    def by_pass(self) -> dict[str, OpCost]:
        """Return the cost of each pass in all runs, by name."""
        passes = self.passes_by_name.items()
        return {name: part.total_of(part.report.total) for name, part in passes}

    def by_dtype(self) -> dict[str, OpCost]:
        """Return the cost by the dtype that operators compute in, e.g. ``"bfloat16"``."""
        return self._added(lambda report: report.by_dtype())

    def by_module_and_operator(self) -> dict[str, dict[str, OpCost]]:
        """Return the cost of each operator within each module, children included."""
        costs: defaultdict[str, defaultdict[str, OpCost]] = defaultdict(lambda: defaultdict(OpCost))
        for summand in self.summands:
            for path, operators in summand.report.by_module_and_operator().items():
                inside = costs[path]
                for operator, cost in operators.items():
                    inside[operator] += summand.total_of(cost)
        return {path: dict(operators) for path, operators in costs.items()}

    def _added(self, costs_of: Callable[[CapturedPass], dict[str, OpCost]]) -> dict[str, OpCost]:
        costs: defaultdict[str, OpCost] = defaultdict(OpCost)
        for summand in self.summands:
            for key, cost in costs_of(summand.report).items():
                costs[key] += summand.total_of(cost)
        return dict(costs)

    def unsupported_ops(self) -> dict[str, int]:
        """Return the operators without a price, with the number of their calls."""
        unsupported = (r.call.op for r in self.records if r.status is Status.UNKNOWN)
        return dict(Counter(unsupported))

    def uncalled_modules(self) -> set[str]:
        """Return the paths of modules that no pass runs, nor anything below them.

        A container such as ``ModuleList`` is never called itself: it is listed only if none
        of its children ran.
        """
        return set.intersection(*(summand.report.uncalled_modules() for summand in self.summands))

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbolic sizes that inputs and costs depend on."""
        return tuple(sorted({name for s in self.summands for name in s.report.symbols}))

    def sorted_records(self, key: SortKey = "order", top: int | None = None) -> list[OpRecord]:
        """Return records in call order, or the most expensive first.

        Args:
            key: ``"order"``, or the figure to sort by, descending; unsupported calls come first.
            top: Number of records to keep.

        Raises:
            UnboundSymbolError: Costs are symbolic and cannot be compared.
            ModelSpecError: There is no such key.
        """
        return sort_records(self.records, key, top)

    def find(self, what: str) -> list[OpRecord]:
        """Return calls by node name, by number, or one of each kind of an operator.

        Args:
            what: ``"linear_3"``, ``"17"``, ``"aten::linear"`` or ``"linear"``. Of the calls of
                an operator with equal shapes and attributes, the first is returned.

        Raises:
            ModelSpecError: The model has no such call.
        """
        return find_records(self.records, what, self._first.model)

    def explain(self, record: OpRecord) -> str:
        """Explain the cost of a call: formula, numbers put in, shapes, source, parts."""
        return explain(record, self._first.registry)

    def compare_conventions(self, convention: str) -> ConventionComparison:
        """Compare with another convention: the calls that it counts differently, and why.

        Args:
            convention: Its name, e.g. ``"calflops"``.

        Raises:
            ModelSpecError: There is no convention of that name.

        Example:
            >>> import torch, graphflops
            >>> report = graphflops.count(torch.nn.Linear(3, 4), (torch.empty(2, 3),))
            >>> [(row.op, row.flops) for row in report.compare_conventions("calflops").operators]
            [('aten::linear', -8)]
        """
        first, *rest = (
            summand.report.compare_conventions(convention).summed(summand.total_of, summand.times)
            for summand in self.summands
        )
        return sum(rest, start=first)

    def diff(self, other: CostReport, *, workload: Workload = "same") -> CostDiff:
        """Compare with a report of another model, or of another version of this one.

        Args:
            other: Report of the same kind: what this one became.
            workload: ``"any"`` to compare costs for other inputs as well, which are refused.

        Raises:
            ModelSpecError: The two are of different kinds, conventions or workloads.

        Example:
            >>> import torch, graphflops
            >>> x = torch.empty(2, 3)
            >>> narrow, wide = (graphflops.count(torch.nn.Linear(3, n), (x,)) for n in (4, 5))
            >>> narrow.diff(wide).total["macs"].difference  # 2 rows, 3 inputs, 1 more output
            6
        """
        return diff_reports(self, other, workload)

    def tree(self, depth: int | None = None, width: int | None = None) -> str:
        """Return the module tree in PyTorch's ``repr`` style, each line with its costs.

        Args:
            depth: Levels below the root to show; all by default.
            width: Columns to fit lines into; lines are as long as they are by default.
        """
        return render_tree(self.root, depth, width=width)

    @abstractmethod
    def table(
        self,
        depth: int | None = 1,
        width: int | None = None,
        columns: Sequence[str] | None = None,
    ) -> str:
        """Return summary, modules down to ``depth`` and what is counted as plain-text tables.

        Args:
            depth: Levels of modules below the root.
            width: Columns to fit the tables into; by default they are as wide as they are.
            columns: Headers of the columns to show, in this order; all by default.
        """

    @abstractmethod
    def formula(self, depth: int | None = 1) -> str:
        """Return MACs and FLOPs as factored expressions, in total and by module to a depth."""

    @abstractmethod
    def to_dict(self, *, ops: bool = False) -> dict[str, Any]:
        """Return the report as plain data; ``ops`` adds one entry per call.

        The data follow the schema that :func:`graphflops.render.data.schema` returns.
        """

    @abstractmethod
    def to_markdown(self, depth: int | None = 1) -> str:
        """Return summary and modules as Markdown tables."""

    @abstractmethod
    def _totals(self) -> Sequence[tuple[str, str]]:
        """Totals as ``(label, text)`` lines."""

    @abstractmethod
    def _coverage(self) -> Sequence[tuple[str, str]]:
        """Lines on what the totals cover, how they were captured, and notes."""

    def to_text(self, depth: int | None = None, width: int | None = None) -> str:
        """Return totals, module tree and what is covered: what the command line prints.

        Args:
            depth: Levels below the root to show; all by default.
            width: Columns to fit lines into; lines are as long as they are by default.
        """
        totals, coverage = (labelled(lines, width) for lines in (self._totals(), self._coverage()))
        return f"{totals}\n\n{self.tree(depth, width)}\n\n{coverage}"

    def to_json(self, *, ops: bool = False) -> str:
        """Return :meth:`to_dict` as JSON. Integers stay integers, expressions become strings."""
        return data.json_text(self.to_dict(ops=ops))

    def to_csv(self, depth: int | None = None) -> str:
        """Return one line per module, numbers unformatted."""
        return data.module_csv(self.root, depth)

    def to_html(
        self,
        path: str | Path,
        *,
        device: Device | str | None = None,
        dtype: str | None = None,
        compare: CostReport | None = None,
        workload: Workload = "same",
    ) -> None:
        """Write a page for a browser: one file that works offline and fetches nothing.

        It has an icicle of the modules, operators, calls with formulas and source lines, memory
        over the calls and, with a device, times and the roofline.

        Args:
            path: Name of the file.
            device: Device whose times are shown, or its name as ``graphflops devices`` has it.
            dtype: Dtype that times are for, in place of those counted, as in :meth:`time`.
            compare: Report of the same kind that is shown beside this one: what this one became.
            workload: ``"any"`` to compare costs for other inputs as well, which are refused.

        Raises:
            ModelSpecError: There is no such device, or the two cannot be compared.
            OutputError: The file cannot be written.

        Example:
            >>> import tempfile, torch, graphflops
            >>> report = graphflops.count(torch.nn.Linear(3, 4), (torch.empty(2, 3),))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     report.to_html(f"{folder}/report.html", device="a100")
        """
        check_folder(Path(path))
        reports = [self] if compare is None else [self, compare]
        diff = None if compare is None else compared(self.diff(compare, workload=workload))
        shown = [report._shown(device, dtype) for report in reports]
        write_bytes(Path(path), page(shown, diff).encode())

    def _shown(self, device: Device | str | None, dtype: str | None) -> dict[str, Any]:
        time = None if device is None else self.time(device, dtype=dtype)
        return content(self, [*self._totals(), *self._coverage()], time)

    def __repr__(self) -> str:
        return self.table(depth=1)

    def _repr_html_(self) -> str:
        return notebook.html([*self._totals(), *self._coverage()], self.root)
