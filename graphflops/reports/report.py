"""The result of a count: what may be asked of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from typing import Any, Literal, get_args

from graphflops.analysis.compare_conventions import ConventionComparison, compare_conventions
from graphflops.core.arguments import check_choice
from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import Capture, OpCall, OpRecord, Phase, Status
from graphflops.core.module_tree import CostSum, ModuleNode, roll_up, sum_costs
from graphflops.errors import ModelSpecError, UnboundSymbolError
from graphflops.pricing.registry import Registry
from graphflops.render import data, tables
from graphflops.render.explain import explain
from graphflops.render.tree import render_tree
from graphflops.reports.binding import bind

SortKey = Literal["order", "flops", "macs", "bytes", "transcendentals"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Report:
    """What a model costs, as a whole, by module, by operator and call by call.

    Numbers are integers, or sympy expressions where the model was captured with symbolic
    shapes. FLOPs count floating-point operations (a MAC is two), bytes count what each
    operator reads and writes on its own.

    Attributes:
        model: Name of what was counted.
        registry: The handlers it was counted with.
        capture: How the graph was obtained.
        records: Every call with its cost, in order.
        phase: Which part of a training step it is about; a forward pass otherwise.
        timings: Seconds that each part of the count took, by what it is.
    """

    model: str
    registry: Registry
    capture: Capture
    records: Sequence[OpRecord]
    phase: Phase = Phase.FORWARD
    timings: Mapping[str, float] = field(default_factory=dict, compare=False)

    @property
    def convention(self) -> str:
        """Name of the way of counting."""
        return self.registry.name

    @cached_property
    def root(self) -> ModuleNode:
        """The module tree, built when it is asked for first."""
        return roll_up(self.records, self.capture.modules)

    @cached_property
    def _sum(self) -> CostSum:
        return sum_costs(self.records)

    @property
    def total(self) -> OpCost:
        """Cost of the whole model."""
        return self._sum.cost

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
        """Those of the FLOPs that are elementary functions."""
        return self.total.transcendentals

    @property
    def bytes_read(self) -> Dim:
        """Bytes read, summed over operators, nothing fused."""
        return self.total.bytes_read

    @property
    def bytes_written(self) -> Dim:
        """Bytes written, likewise."""
        return self.total.bytes_written

    @property
    def params(self) -> int:
        """Parameters, tied ones once."""
        return self.root.params_total

    @property
    def params_trainable(self) -> int:
        """Those of the parameters that require a gradient."""
        return self.root.params_trainable

    @property
    def complete(self) -> bool:
        """Whether every call has a price; if not, all totals are lower bounds."""
        return self._sum.unknown == 0

    @cached_property
    def coverage(self) -> Mapping[Status, int]:
        """How many calls have each status."""
        return Counter(record.status for record in self.records)

    def by_module(self) -> dict[str, OpCost]:
        """Total cost of each module, children included, by path; ``""`` is the model."""
        return {node.path: node.total for node in self.root.walk()}

    def by_operator(self) -> dict[str, OpCost]:
        """Cost of each operator over the whole model; unknown ones are left out."""
        return _sum_by(self.records, lambda call: call.op)

    def by_dtype(self) -> dict[str, OpCost]:
        """Cost by the dtype that operators compute in, e.g. ``"bfloat16"``."""
        return _sum_by(self.records, lambda call: call.dtype)

    def by_module_and_operator(self) -> dict[str, dict[str, OpCost]]:
        """Cost of each operator within each module, children included."""
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
        """Operators without a price, with the number of their calls."""
        return dict(Counter(r.call.op for r in self.records if r.status is Status.UNKNOWN))

    def uncalled_modules(self) -> set[str]:
        """Paths of modules that never ran, and below which nothing ran.

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

    def sorted_records(self, key: SortKey = "order", top: int | None = None) -> list[OpRecord]:
        """Records in call order, or the most expensive first.

        Args:
            key: ``"order"``, or what to sort by, descending; unknown records come first.
            top: Keep only this many.

        Raises:
            UnboundSymbolError: Costs are symbolic and cannot be compared.
            ModelSpecError: There is no such key.
        """
        check_choice("key", key, get_args(SortKey))
        if key == "order":
            return list(self.records[:top])

        def weight(record: OpRecord) -> tuple[bool, int]:
            if record.cost is None:
                return True, 0
            cost = record.cost
            value = cost.bytes_read + cost.bytes_written if key == "bytes" else getattr(cost, key)
            if not isinstance(value, int):
                msg = (
                    f"cannot sort by {key}: {record.call.op} costs {value}, which is no number "
                    "yet. Count with concrete shapes."
                )
                raise UnboundSymbolError(msg)
            return False, value

        return sorted(self.records, key=weight, reverse=True)[:top]

    def find(self, what: str) -> list[OpRecord]:
        """Calls by node name, by number, or one of each kind of an operator.

        Args:
            what: ``"linear_3"``, ``"17"``, ``"aten::linear"`` or ``"linear"``. Of an operator,
                calls with equal shapes and attributes are alike: the first is returned.

        Raises:
            ModelSpecError: The model has no such call.
        """
        found = [r for r in self.records if what in {r.call.name, str(r.call.index)}]
        if found:
            return found
        alike: dict[object, OpRecord] = {}
        for record in self.records:
            call = record.call
            if what in {call.op, call.op.rpartition("::")[2], f"{call.op}.{call.overload}"}:
                kind = (tuple(call.inputs.items()), tuple(call.attrs.items()))
                alike.setdefault(kind, record)
        if not alike:
            known = sorted({r.call.op for r in self.records} | {r.call.name for r in self.records})
            close = ", ".join(get_close_matches(what, known, n=4, cutoff=0.5))
            hint = f" Did you mean {close}?" if close else ""
            raise ModelSpecError(f"{self.model} makes no call {what!r}.{hint} See graphflops ops.")
        return list(alike.values())

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the symbolic sizes that the inputs and costs have."""
        sizes = [size for _, meta in self.capture.inputs for size in meta.shape]
        values = [*sizes, *(value for _, value in self.total.items())]
        found = (value.free_symbols for value in values if not isinstance(value, int))
        return tuple(sorted({symbol.name for symbols in found for symbol in symbols}))

    def subs(self, **values: int) -> Report:
        """The report with numbers in place of symbolic sizes: ``report.subs(B=8, S=4096)``.

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
        return bind(self, values)

    def formula(self, depth: int | None = 1) -> str:
        """MACs and FLOPs as factored expressions, in total and by module down to a depth."""
        return tables.formula_table(self, depth)

    def explain(self, record: OpRecord) -> str:
        """Why a call costs what it costs: formula, numbers put in, shapes, source, parts."""
        return explain(record, self.registry)

    def compare_conventions(self, convention: str) -> ConventionComparison:
        """Where another convention counts the same calls differently, and why.

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
        return compare_conventions(self, convention)

    def tree(self, depth: int | None = None) -> str:
        """The module tree in PyTorch's ``repr`` style, each line with its costs."""
        return render_tree(self.root, depth)

    def table(self, depth: int | None = 1) -> str:
        """Summary, modules down to ``depth`` and operators as plain-text tables."""
        return tables.report_table(self, depth)

    def to_dict(self, *, ops: bool = False) -> dict[str, Any]:
        """The report as plain data (``schema_version`` 1); ``ops`` adds one entry per call."""
        return data.to_dict(self, ops=ops)

    def to_json(self, *, ops: bool = False) -> str:
        """:meth:`to_dict` as JSON. Integers stay integers, expressions become strings."""
        return data.to_json(self, ops=ops)

    def to_csv(self, depth: int | None = None) -> str:
        """One line per module, numbers unformatted."""
        return data.module_csv(self.root, depth)

    def to_markdown(self, depth: int | None = 1) -> str:
        """Summary, modules and operators as Markdown tables."""
        return tables.report_table(self, depth, tablefmt="github")

    def __repr__(self) -> str:
        return self.table(depth=1)

    def _repr_html_(self) -> str:
        return tables.report_table(self, 1, tablefmt="html")


def unsupported_in(reports: Iterable[Report]) -> dict[str, int]:
    """Operators without a price in some reports, with the number of their calls in all."""
    return dict(sum((Counter(report.unsupported_ops()) for report in reports), start=Counter()))


def _sum_by(records: Iterable[OpRecord], key: Callable[[OpCall], str]) -> dict[str, OpCost]:
    costs: defaultdict[str, OpCost] = defaultdict(OpCost)
    for record in records:
        if record.cost is not None:
            costs[key(record.call)] += record.cost
    return dict(costs)
