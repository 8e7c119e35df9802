"""What is checked of a count of a generated model."""

from __future__ import annotations

import copy
import json
import re
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import jsonschema
import torch

import graphflops as gf
from benchmarks import fuzz_contractions, fuzz_state, graph_checks
from benchmarks.fuzz_graphs import Graph, copy_to_meta, generate
from benchmarks.fuzz_modules import SEEN
from graphflops.core.ir import OpRecord, Phase
from graphflops.render.data import Kind, schema

Rows = list[tuple[Any, ...]]
EVERY = {"twice": 4, "layer_reuse": 4, "threads": 10, "compile": 500, "rendered": 10}
"""How rarely the slow ones are made: of every so many seeds one; where layers were reused,
``reuse_layers`` always."""


@dataclass
class Found:
    """What became of a seed.

    Attributes:
        name: The seed.
        status: ``"counted"``; ``"nothing"`` generated; or ``"refused"``, by PyTorch as well.
        failures: What failed, with a message.
        kinds: Layer kinds and operators of torch that the model is made of.
        operators: Operators that were priced, how many calls of each.
        traits: What is special about the model.
        reused: Layers that were not traced again.
        compared: Whether contractions were compared.
    """

    name: str
    status: str = "counted"
    failures: list[tuple[str, str]] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    traits: set[str] = field(default_factory=set)
    reused: int = 0
    compared: bool = False


@dataclass
class Counted:
    """A forward pass or a step that was counted, in one shape for both."""

    report: Any
    parts: tuple[gf.Report, ...]

    @property
    def records(self) -> list[OpRecord]:
        """Records of all parts."""
        return [record for part in self.parts for record in part.records]

    @property
    def described(self) -> list[tuple[Any, ...]]:
        """All of each record but the name of its node, which is made up."""
        return [_described(record) for record in self.records]


def examine(name: str, checks: frozenset[str], *, always: bool = False) -> Found:
    """Generate the model of a name, count it, and check what was asked for.

    Args:
        name: Kind and number, such as ``"forward:12"`` or ``"step:12"``.
        checks: Names of checks; :data:`benchmarks.fuzz_page.CHECKS` says what they are.
        always: Whether the slow ones are made however rarely they are due.
    """
    kind, _, number = name.partition(":")
    graph = generate(name, training=kind == "step")
    found = Found(name)
    if graph is None:
        found.status = "nothing"
        return found
    found.kinds, found.traits = graph.kinds, graph.traits
    due = {check for check in checks if always or int(number) % EVERY.get(check, 1) == 0}
    _Examination(graph, found, training=kind == "step").run(due, checks)
    return found


class _Examination:
    def __init__(self, graph: Graph, found: Found, *, training: bool) -> None:
        self.graph, self.found, self.training = graph, found, training
        # Before anything is counted, for what must not see our traces.
        self.spare = copy.deepcopy(graph)
        self.other: Graph | None = None

    def run(self, due: set[str], asked: frozenset[str]) -> None:
        """Count, and make the checks that are due, of those that are asked for."""
        # Generating draws numbers: all of it comes before anything is looked at.
        self.other = self._neighbour() if "threads" in due else None
        before = self._state() if "untouched" in due else {}
        try:
            counted = self.count()
        except Exception as error:  # noqa: BLE001 - a failure is what is looked for
            self._failed(error)
            return
        self.found.operators = Counter(record.call.op for record in counted.records)
        self.found.reused = counted.parts[0].capture.layer_reuse.layers
        due |= asked & {"layer_reuse"} if self.found.reused else set()
        if unknown := counted.report.unsupported_ops():
            self.fail("unsupported", str(unknown))
        checks: dict[str, Callable[[Counted], None]] = {
            "twice": self._twice,
            "layer_reuse": self._layer_reuse,
            "threads": self._threads,
            "totals": self._totals,
            "rendered": self._rendered,
            "graph": self._graph,
            "untouched": lambda _: self._compare(before),
            # These run models themselves, and torch.compile leaves names behind.
            "contractions": self._contractions,
            "compile": self._compiles,
        }
        for name in [name for name in checks if name in due]:
            self._make(name, checks[name], counted)

    def _make(self, name: str, check: Callable[[Counted], None], counted: Counted) -> None:
        try:
            check(counted)
        except Exception as error:  # noqa: BLE001 - a failure is what is looked for
            self.fail(name, _told(error))

    def count(self, graph: Graph | None = None, *, reuse_layers: bool = True) -> Counted:
        """Count a model, by default the one that is examined."""
        graph = graph or self.graph
        function: Any = gf.count_training if self.training else gf.count
        report = function(
            graph.model, graph.args, graph.kwargs, reuse_layers=reuse_layers, on_unknown="ignore"
        )
        return Counted(report, report.parts if self.training else (report,))

    def fail(self, what: str, message: str) -> None:
        """Note a failure."""
        self.found.failures.append((what, message[:600]))

    def _failed(self, error: Exception) -> None:
        """A count that failed is right where PyTorch refuses the model too."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self._run_eagerly()
        except Exception:  # noqa: BLE001 - whatever it refuses it with
            self.found.status = "refused"
            return
        self.fail("count", _told(error))

    def _run_eagerly(self) -> None:
        spare = self.spare
        with torch.set_grad_enabled(self.training):
            output = spare.model(*spare.args, **spare.kwargs)
            if self.training:
                fuzz_contractions.loss(output).backward()  # type: ignore[no-untyped-call]

    def _state(self) -> dict[str, fuzz_state.State]:
        graph = self.graph
        held = {"model": graph.model, "args": graph.args, "kwargs": graph.kwargs, "seen": SEEN}
        return {
            "model": fuzz_state.of_model(held),
            "chance": fuzz_state.of_chance(),
            "process": fuzz_state.of_process(),
        }

    def _compare(self, before: dict[str, fuzz_state.State]) -> None:
        after = self._state()
        for name, state in before.items():
            if changed := fuzz_state.differences(state, after[name]):
                self.fail(f"untouched: {name}", f"{len(changed)}: {'; '.join(changed[:4])}")

    def _twice(self, counted: Counted) -> None:
        self._equal(counted, self.count(), "twice")

    def _layer_reuse(self, counted: Counted) -> None:
        self._equal(counted, self.count(reuse_layers=False), "layer_reuse", order=_with_sums_last)

    def _neighbour(self) -> Graph | None:
        """Another model, which is counted at the same time."""
        kind, _, number = self.found.name.partition(":")
        return generate(f"{kind}:other {number}", training=self.training)

    def _threads(self, counted: Counted) -> None:
        other, alone = self.other, None
        try:
            alone = other and self.count(other)
        except gf.GraphFlopsError:  # a model that PyTorch refuses is no neighbour
            other = None
        jobs = [self.graph, other or self.graph, self.graph, other or self.graph]
        with ThreadPoolExecutor(len(jobs)) as pool:
            results = list(pool.map(self.count, jobs))
        for graph, result in zip(jobs, results, strict=True):
            self._equal(counted if graph is self.graph else alone or counted, result, "threads")

    def _equal(
        self, one: Counted, other: Counted, what: str, order: Callable[[Rows], Rows] = list
    ) -> None:
        ours, theirs = order(one.described), order(other.described)
        if ours == theirs and one.parts[0].root == other.parts[0].root:
            return
        pairs = [(a, b) for a, b in zip(ours, theirs, strict=False) if a != b]
        parted = {
            name for pair in pairs for name, a, b in zip(_OF_RECORDS, *pair, strict=True) if a != b
        }
        first = f", first {pairs[0][0][:2]}" if pairs else ""
        self.fail(what, f"{len(ours)} records, {len(theirs)}; {len(pairs)} in {parted}{first}")

    def _totals(self, counted: Counted) -> None:
        for problem in _inconsistencies(counted, self.graph):
            self.fail("totals", problem)

    def _rendered(self, counted: Counted) -> None:
        report = counted.report
        for text in (str(report), report.tree(), report.table(), report.to_markdown()):
            assert text  # noqa: S101 - a check
        assert report.to_csv()  # noqa: S101 - a check
        assert report._repr_html_()  # noqa: S101 - a check
        data = json.loads(report.to_json(ops=True))
        _validator("training" if self.training else "forward").validate(data)

    def _graph(self, counted: Counted) -> None:
        if self.training:
            return  # the order in which autograd visits nodes is no part of a graph
        (report,) = counted.parts
        spare = copy.deepcopy(self.spare)
        for problem in graph_checks.problems(report, spare.model, spare.args, spare.kwargs):
            self.fail("graph", problem)

    def _contractions(self, counted: Counted) -> None:
        if not fuzz_contractions.comparable(counted.records):
            return
        copy_to_meta(self.spare.model)
        try:
            expected = fuzz_contractions.expected(self.spare, training=self.training)
        except (RuntimeError, NotImplementedError):
            return  # no rule for the shapes of an operator on meta: nothing to compare with
        self.found.compared = True
        ours = fuzz_contractions.counted(counted.records)
        if ours != expected:
            self.fail("contractions", f"{ours:,} and FlopCounterMode {expected:,}")

    def _compiles(self, _: Counted) -> None:
        if not fuzz_state.compiles():
            self.fail("compile", "the backend was not called")


_OF_CALLS = (
    *(
        "op",
        "module_path",
        "overload",
        "inputs",
        "attrs",
        "outputs",
        "writes",
        "is_view",
        "module_class",
        "source_line",
    ),
    *(
        "torch_function",
        "phase",
        "is_weight_gradient",
        "discarded_gradients",
        "trip_count",
        "index",
    ),
)
_OF_RECORDS = (*_OF_CALLS, "status", "cost")


def _described(record: OpRecord) -> tuple[Any, ...]:
    of_call = (getattr(record.call, name) for name in _OF_CALLS)
    return (*of_call, record.status, record.cost)


def _with_sums_last(rows: Rows) -> Rows:
    """Records, those last by which autograd adds up gradients of one tensor; without places.

    It adds where a part of the sum is made; those of a layer that is reused come at its end. So
    what is added first may differ too, and with it in which order the inputs lie in memory.
    """
    index, inputs = _OF_RECORDS.index("index"), _OF_RECORDS.index("inputs")
    rows = [(*row[:index], None, *row[index + 1 :]) for row in rows]
    sums = [(*row[:inputs], None, *row[inputs + 1 :]) for row in rows if _is_sum(row)]
    texts = sorted(re.sub(r"strides=\([^)]*\), name='[^']*'", "", repr(row)) for row in sums)
    others = [row for row in rows if not _is_sum(row)]
    return others + [(text,) * len(_OF_RECORDS) for text in texts]


def _is_sum(row: tuple[Any, ...]) -> bool:
    of_record = dict(zip(_OF_RECORDS, row, strict=True))
    is_add = of_record["op"] == "aten::add" and not of_record["source_line"]
    return is_add and of_record["phase"] is Phase.BACKWARD


def _inconsistencies(counted: Counted, graph: Graph) -> Iterator[str]:
    for part in counted.parts:
        nodes = list(part.root.walk())
        for name in ("flops", "macs", "transcendentals", "bytes_read", "bytes_written"):
            total = getattr(part.total, name)
            own = sum(getattr(node.own, name) for node in nodes)
            by_operator = sum(getattr(cost, name) for cost in part.by_operator().values())
            if not own == by_operator == total == getattr(part.root.total, name):
                yield f"{name}: {total} in all, {own} by module, {by_operator} by operator"
    for record in counted.records:
        if record.cost is not None and record.cost.transcendentals > record.cost.flops:
            yield f"{record.call.op} has more transcendentals than FLOPs"
    parameters = sum(p.numel() for p in graph.model.parameters())
    if counted.report.params != parameters:
        yield f"{counted.report.params} parameters of {parameters}"


def _told(error: BaseException) -> str:
    frames: Iterable[Any] = traceback.extract_tb(error.__traceback__)
    last = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in frames][-3:]
    return f"{type(error).__name__}: {error} ({' '.join(last)})"


@cache
def _validator(kind: Kind) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(schema(kind))
