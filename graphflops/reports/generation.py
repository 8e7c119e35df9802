"""Report of a generation: a prompt in one pass, then token after token."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import sympy

from graphflops.analysis.call_time import Roofline
from graphflops.analysis.largest_size import OpenPeak
from graphflops.core.arguments import whole_number
from graphflops.core.cost import Dim, OpCost, substitute
from graphflops.core.guards import check_assumptions
from graphflops.core.ir import OpRecord
from graphflops.errors import ModelSpecError
from graphflops.render import generation as rendering
from graphflops.reports.base import CostReport
from graphflops.reports.decoding import DecodeGraph, DecodeSegment
from graphflops.reports.memory import MemoryReport
from graphflops.reports.report import Report
from graphflops.reports.summand import Summand
from graphflops.reports.timing import PassTime, generation_figures


@dataclass(frozen=True, kw_only=True, repr=False)
class GenerationReport(CostReport):
    """Cost of the continuation of a prompt: in total, by module and by token.

    Attributes:
        model: Name of what was counted.
        symbolic_prefill: The pass over the prompt, in ``B``, ``P`` (and ``M``).
        decode_graphs: One more token, in ``B``, ``K`` (and ``P``, ``M``), one for each way it runs.
        sizes: What the symbols stand for: ``B`` sequences, ``P`` prompt tokens, ``N`` new
            tokens, ``K`` tokens in the cache before the first step, ``M`` its room.
        cache: What kind of cache the steps use, and the windows of its layers.
        notes: What a reader must know of the inputs.
        seconds: Wall time of the captures.
    """

    model: str
    symbolic_prefill: Report
    decode_graphs: tuple[DecodeGraph, ...]
    sizes: Mapping[str, int]
    cache: str
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    @cached_property
    def summands(self) -> tuple[Summand, ...]:
        """Prefill once, and each decode graph over the lengths of the cache that it serves."""
        decode = (Summand(d.report, d.steps, d.summed, d.step) for d in self.decode_segments)
        return (Summand(self.prefill), *decode)

    @property
    def kind(self) -> str:
        """Kind of report, in words."""
        return "generation"

    @property
    def workload(self) -> Mapping[str, str]:
        """Sizes by symbol, and the shapes of the inputs."""
        sizes = {f"size {name}": str(size) for name, size in sorted(self.sizes.items())}
        return {**sizes, **self.prefill.workload}

    @property
    def passes_by_name(self) -> Mapping[str, Summand]:
        """Prefill and decode; further decode graphs have a number."""
        names = ("prefill", "decode", *(f"decode {i}" for i in range(2, len(self.summands))))
        return dict(zip(names, self.summands, strict=False))

    def _figures(self, passes: Mapping[str, PassTime], roofline: Roofline) -> dict[str, Any]:  # noqa: ARG002 - as others take it
        return generation_figures(passes, self.sizes["B"])

    @property
    def new_tokens(self) -> int:
        """Tokens produced for each sequence, N."""
        return self.sizes["N"]

    @property
    def steps(self) -> int:
        """Steps after the pass over the prompt, which gives the first token: N - 1."""
        return self.new_tokens - 1

    @cached_property
    def prefill(self) -> Report:
        """The pass over the prompt, in numbers."""
        return self.symbolic_prefill.subs(**self._bound(self.symbolic_prefill))

    @property
    def decode(self) -> Report:
        """One more token, in ``K``: tokens in the cache.

        Where a window fills up on the way there are several graphs, :attr:`decode_segments`; this
        is the first.

        Raises:
            ModelSpecError: One token is produced, by the pass over the prompt.
        """
        if not self.decode_segments:
            raise ModelSpecError("one new token takes no further step. Ask for more of them.")
        return self.decode_segments[0].report

    @cached_property
    def decode_segments(self) -> tuple[DecodeSegment, ...]:
        """The graphs that the steps run, each with the lengths of the cache it serves.

        Raises:
            ModelSpecError: There is none for some length.
        """
        self._require_graphs()
        return tuple(
            DecodeSegment(
                report=step.report.subs(**self._bound(step.report)), first=first, last=last
            )
            for step, first, last in self._ranges()
        )

    def next_without_a_graph(self) -> int | None:
        """The shortest cache for which there is no graph; ``None`` if there is one for all."""
        reached = self.sizes["K"] - 1
        for _, _, last in self._ranges():
            reached = last
        return None if reached >= self.last_cached else reached + 1

    @cached_property
    def total(self) -> OpCost:
        """Cost of the whole generation."""
        # Of the symbolic graphs: binding a total is quicker than binding every call.
        sums = (
            DecodeSegment(report=graph.report, first=first, last=last).summed(
                graph.report.total.subs(**self._bound(graph.report))
            )
            for graph, first, last in self._ranges()
        )
        prefill = self.symbolic_prefill
        return sum(sums, start=prefill.total.subs(**self._bound(prefill)))

    @property
    def params(self) -> int:
        """Number of parameters, tied ones once."""
        return self.symbolic_prefill.params

    @property
    def complete(self) -> bool:
        """True if every call has a price; otherwise all totals are lower bounds."""
        return all(report.complete for report in self._reports)

    @property
    def records(self) -> Sequence[OpRecord]:
        """Calls of the prefill and of one step of each decode graph, with their costs."""
        reports = (self.prefill, *(decode.report for decode in self.decode_segments))
        return [record for report in reports for record in report.records]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Names of the sizes that :meth:`subs` takes: ``N`` and those of the graphs."""
        return tuple(sorted({"N", *self._open}))

    @property
    def all_notes(self) -> tuple[str, ...]:
        """Notes on the inputs and the graphs, without duplicates."""
        captured = (note for report in self._reports for note in report.capture.notes)
        return tuple(dict.fromkeys((*self.notes, *captured)))

    def at(self, token: int) -> OpCost:
        """Return the cost of one of the new tokens, numbered from 1.

        Raises:
            ModelSpecError: There is no such token.
        """
        report, cached = self._pass_of(token)
        return report.total if token == 1 else report.total.subs(K=cached)

    def _pass_of(self, token: int) -> tuple[Report, int]:
        """Return the report of the pass that produces a token, and the tokens in the cache.

        Raises:
            ModelSpecError: There is no such token.
        """
        if not 1 <= (token := whole_number("token", token)) <= self.new_tokens:
            msg = f"there is no new token {token}: they are 1 to {self.new_tokens}."
            raise ModelSpecError(msg)
        cached = self.sizes["K"] + token - 2
        if token == 1:
            return self.prefill, cached
        return next(d.report for d in self.decode_segments if d.first <= cached <= d.last), cached

    @cached_property
    def memory(self) -> MemoryReport:
        """Memory of the pass that takes most: the prefill, or the last step of a decode graph.

        ``memory.largest`` takes the sizes that :meth:`subs` takes: the number of sequences that
        are served, the longest prompt, the most tokens.

        Raises:
            CaptureError: A graph was exported, and did not run as Python.
        """
        last = (decode.last - self.sizes["K"] + 2 for decode in self.decode_segments)
        largest = max(map(self.memory_at, (1, *last)), key=lambda memory: memory.peak)
        open_peak = OpenPeak(self.symbols, lambda sizes: self.subs(**sizes)._peak)
        return replace(largest, open_peak=open_peak)

    @property
    def _peak(self) -> Dim:
        """The peak of all passes, from symbolic ones: quicker than to bind every call."""
        peaks = [substitute(self.symbolic_prefill.memory.peak, self._bound(self.symbolic_prefill))]
        for graph, _, last in self._ranges():
            sizes = {**self._bound(graph.report), "K": last}
            peaks.append(substitute(graph.report.memory.peak, sizes))
        return max(peaks)

    def memory_at(self, token: int) -> MemoryReport:
        """Return the memory of the pass that produces one of the new tokens, numbered from 1.

        Raises:
            ModelSpecError: There is no such token.
        """
        report, cached = self._pass_of(token)
        kind = f"{self.kind}, {'prefill' if token == 1 else f'step for token {token:,}'}"
        return replace(_bind_cached(report, cached).memory, kind=kind)

    @property
    def kv_cache_bytes_per_token(self) -> Dim:
        """Bytes that one more token adds to the cache of one sequence, at the first step."""
        if not self.decode_graphs:
            return 0
        first = self.decode_graphs[0]
        # The first step may have a graph of its own.
        second = next((g for g, start, _ in self._ranges() if start == self.sizes["K"] + 1), first)
        grown = substitute(self._cache_bytes(second.report), {"K": self.sizes["K"] + 1})
        size = substitute(self._cache_bytes(first.report), {"K": self.sizes["K"]})
        return (grown - size) // self.sizes["B"]

    @property
    def kv_cache_bytes(self) -> Dim:
        """Bytes of the caches of all sequences after the last step."""
        if not self.decode_segments:
            return 0
        step = self.decode_graphs[-1].report
        return substitute(self._cache_bytes(step), {"K": self.last_cached + 1})

    def subs(self, **sizes: int) -> GenerationReport:
        """The same generation for other sizes, without another capture: ``subs(P=4096, N=7)``.

        Raises:
            ModelSpecError: The formula has no such symbol, or no graph holds for these sizes.
        """
        known = {"N", *self._open}
        for name in sizes:
            if name not in known:
                have = ", ".join(sorted(known))
                msg = f"the cost of this generation is no function of {name!r}, but of {have}."
                raise ModelSpecError(msg + " Count again for another.")
        merged = {**self.sizes, **{name: whole_number(name, size) for name, size in sizes.items()}}
        if self.sizes["K"] == self.sizes.get("P"):
            merged["K"] = merged["P"]
        found = replace(self, sizes={**merged, "M": merged["K"] + merged["N"] - 1})
        found._require_graphs()
        for report in (found.symbolic_prefill, *(step.report for step, _, _ in found._ranges())):
            check_assumptions(report.capture.assumptions, found._bound(report), report.model)
        return found

    def formula(self, depth: int | None = None) -> str:  # noqa: ARG002 - graphs have no modules
        """Return MACs and FLOPs of prefill, of a decode step and of all tokens, factored."""
        return rendering.formulas(self)

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
        return rendering.table(self, depth, width=width, columns=columns)

    def to_dict(self, *, ops: bool = False) -> dict[str, Any]:
        """Return the report as plain data; ``ops`` adds one entry per call of each graph."""
        return rendering.to_dict(self, ops=ops)

    def to_markdown(self, depth: int | None = 1) -> str:
        """Return summary, modules and operators as Markdown tables."""
        return rendering.table(self, depth, "github")

    def _totals(self) -> Sequence[tuple[str, str]]:
        return rendering.totals(self)

    def _coverage(self) -> Sequence[tuple[str, str]]:
        return rendering.coverage(self)

    def _require_graphs(self) -> None:
        if (missing := self.next_without_a_graph()) is not None:
            msg = (
                f"no graph of {self.model} was captured that holds for {missing} tokens in the "
                "cache. Count again with this prompt and so many new tokens."
            )
            raise ModelSpecError(msg)

    @property
    def last_cached(self) -> int:
        """Tokens in the cache before the last step."""
        return self.sizes["K"] + self.steps - 1

    @property
    def _reports(self) -> tuple[Report, ...]:
        return (self.symbolic_prefill, *(step.report for step in self.decode_graphs))

    @cached_property
    def _open(self) -> frozenset[str]:
        """Sizes other than N that every graph is a function of."""
        # The cache of a decoder begins with the prompt: its K is its P.
        first = {"P"} if self.sizes["K"] == self.sizes.get("P") else set()
        open_in_all = set(self.symbolic_prefill.symbols) - {"K", "M"}
        for step in self.decode_graphs:
            open_in_all &= first.union(step.report.symbols)
        return frozenset(open_in_all)

    def _ranges(self) -> Iterator[tuple[DecodeGraph, int, int]]:
        """Graphs in the order they run, each from how many tokens in the cache to how many."""
        first = self.sizes["K"]
        while first <= self.last_cached:
            for step in self.decode_graphs:
                last = step.last(first, self.last_cached, self.sizes)
                if last >= first:
                    yield step, first, last
                    first = last + 1
                    break
            else:
                return

    def _bound(self, report: Report) -> dict[str, int]:
        return {n: size for n, size in self.sizes.items() if n in report.symbols and n != "K"}

    def _cache_bytes(self, step: Report) -> Dim:
        sizes: list[Dim] = [
            meta.nbytes
            for name, meta in step.capture.inputs
            # Scalars in it say how full it is.
            if name in step.capture.caches and meta.shape
        ]
        return substitute(sum(sizes, start=sympy.Integer(0)), self._bound(step))


def _bind_cached(report: Report, cached: int) -> Report:
    """Return the report of a pass with a number of tokens in the cache."""
    return report.subs(K=cached) if "K" in report.symbols else report
