"""A generation as text and as data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import sympy

from graphflops.core.closed_form import sum_over
from graphflops.core.cost import Dim, OpCost
from graphflops.render import data
from graphflops.render.tables import aligned, factored, labelled, pairs
from graphflops.render.units import exact, parameters, percent, quantity

if TYPE_CHECKING:
    from graphflops.reports.generation import GenerationReport


def summary(report: GenerationReport) -> list[tuple[str, str]]:
    """The totals as ``(label, text)`` lines, units spelt out."""
    total, sizes = report.total, report.sizes
    bound = "" if report.complete else "at least "
    workload = (
        f"{sizes['B']} x {sizes.get('P', sizes['K']):,} prompt tokens, {report.new_tokens:,} new "
        f"tokens each: 1 pass over the prompt, {report.steps:,} steps"
    )
    cache = (
        f"{report.cache}: {quantity(report.kv_cache_bytes, 'B')} after the last step, "
        f"{quantity(report.kv_cache_bytes_per_token, 'B')} per token and sequence"
    )
    found = [
        ("Model", f"{report.model}, generation, {report.convention} convention"),
        ("Workload", workload),
        ("Parameters", f"{parameters(report.params)} ({exact(report.params)})"),
        ("Prefill", _work(report.prefill.total)),
    ]
    for decode in report.decode_segments:
        first, last = (decode.report.total.subs(K=k) for k in (decode.first, decode.last))
        found += [
            (
                f"Decode, {decode.steps:,} step{'s' if decode.steps > 1 else ''}",
                _work(decode.summed(decode.report.total)),
            ),
            ("  first", f"{quantity(first.flops, 'FLOPs')} with {decode.first:,} tokens cached"),
            ("  last", f"{quantity(last.flops, 'FLOPs')} with {decode.last:,} tokens cached"),
        ]
    found += [
        ("Total", bound + _work(total)),
        ("  exactly", f"{exact(total.macs)} MACs, {exact(total.flops)} FLOPs"),
        ("With backward", f"{_work(total * 3)} (estimate: 3 x forward)"),
        ("KV cache", cache),
        ("Captured in", f"{report.seconds:.2f} s"),
    ]
    return found + [("Note", note) for note in report.all_notes]


def table(report: GenerationReport, depth: int | None, tablefmt: str = "simple") -> str:
    """Summary, and modules down to a depth."""
    rows = [
        (
            node.path or "(model)",
            node.module_class,
            "" if node.calls is None else str(node.calls),
            parameters(node.params_total),
            quantity(node.total.macs),
            quantity(node.total.flops),
            percent(node.total.flops, report.flops),
        )
        for node in report.root.walk(depth)
    ]
    headers = ["module", "class", "calls", "params", "MACs", "FLOPs", "% FLOPs"]
    return f"{pairs(summary(report), tablefmt)}\n\n{aligned(headers, rows, tablefmt)}"


def tree(report: GenerationReport, depth: int | None) -> str:
    """Summary, and the module tree."""
    return f"{labelled(summary(report))}\n\n{report.tree(depth)}"


def formulas(report: GenerationReport) -> str:
    """Prefill, a step and the whole as factored expressions in the symbols they have."""
    prefill = report.symbolic_prefill
    rows = [("prefill", factored(prefill.macs), factored(prefill.flops))]
    for graph in report.decode_graphs:
        label = f"step, as with {graph.cached:,} cached"
        rows.append((label, factored(graph.report.macs), factored(graph.report.flops)))
    if len(report.decode_graphs) == 1:
        macs, flops = (factored(value) for value in _closed_form(report))
        rows.append(("all N tokens", macs, flops))
    return aligned(["", "MACs", "FLOPs"], rows, "simple")


def _closed_form(report: GenerationReport) -> tuple[Dim, Dim]:
    """MACs and FLOPs of the pass over the prompt and N - 1 steps."""
    length, count = (sympy.Symbol(name, positive=True, integer=True) for name in "PN")
    grows = report.sizes.get("P") == report.sizes["K"]
    first: Dim = length if grows else report.sizes["K"]
    prefill, step = report.symbolic_prefill, report.decode_graphs[0].report
    last = first + count - 2
    return (
        prefill.macs + sum_over(step.macs, "K", first, last),
        prefill.flops + sum_over(step.flops, "K", first, last),
    )


def to_dict(report: GenerationReport) -> dict[str, Any]:
    """The report as plain data: what the totals are made of, and each module's share."""
    return {
        "schema_version": data.SCHEMA_VERSION,
        "model": report.model,
        "environment": data.environment(),
        "convention": report.convention,
        "sizes": dict(report.sizes),
        "cache": report.cache,
        "notes": list(report.all_notes),
        "complete": report.complete,
        "totals": {**data.cost_dict(report.total), "params": report.params},
        "prefill": data.cost_dict(report.prefill.total),
        "decode": [
            {
                "first_cached": decode.first,
                "last_cached": decode.last,
                "step": data.cost_dict(decode.report.total),
                "total": data.cost_dict(decode.summed(decode.report.total)),
            }
            for decode in report.decode_segments
        ],
        "kv_cache_bytes": report.kv_cache_bytes,
        "kv_cache_bytes_per_token": report.kv_cache_bytes_per_token,
        "modules": [data.module_dict(node) for node in report.root.walk()],
    }


def to_json(report: GenerationReport) -> str:
    """:func:`to_dict` as indented JSON."""
    return json.dumps(to_dict(report), indent=2)


def _work(cost: OpCost) -> str:
    return f"{quantity(cost.macs, 'MACs')}, {quantity(cost.flops, 'FLOPs')}"
