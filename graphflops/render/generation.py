"""A generation as text and as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy

from graphflops.core.closed_form import sum_over
from graphflops.core.cost import Dim, OpCost
from graphflops.render import data, tables
from graphflops.render.layout import aligned, pairs
from graphflops.render.protocols import GenerationCosts
from graphflops.render.tables import factored
from graphflops.render.units import exact, parameters, quantity


def totals(report: GenerationCosts) -> list[tuple[str, str]]:
    """Return the totals as ``(label, text)`` lines, units spelt out."""
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
    lines = [
        ("Model", f"{report.model}, generation, {report.convention} convention"),
        ("Workload", workload),
        ("Parameters", f"{parameters(report.params)} ({exact(report.params)})"),
        ("Prefill", _work(report.prefill.total)),
    ]
    for decode in report.decode_segments:
        first, last = (decode.report.total.subs(K=k) for k in (decode.first, decode.last))
        lines += [
            (
                f"Decode, {decode.steps:,} step{'s' if decode.steps > 1 else ''}",
                _work(decode.summed(decode.report.total)),
            ),
            ("  first", f"{quantity(first.flops, 'FLOPs')} with {decode.first:,} tokens cached"),
            ("  last", f"{quantity(last.flops, 'FLOPs')} with {decode.last:,} tokens cached"),
        ]
    lines += [
        ("Total", bound + _work(total)),
        ("  exactly", f"{exact(total.macs)} MACs, {exact(total.flops)} FLOPs"),
        ("With backward", f"{_work(total * 3)} (estimate: 3 x forward)"),
        ("KV cache", cache),
    ]
    return lines


def coverage(report: GenerationCosts) -> list[tuple[str, str]]:
    """Return what the totals cover, as ``(label, text)`` lines."""
    graphs = 1 + len(report.decode_graphs)
    captured = f"{report.prefill.capture.method}, {graphs} graphs in {report.seconds:.2f} s"
    lines = [("Coverage", tables.coverage_line(report)), ("Captured by", captured)]
    return lines + [("Note", note) for note in report.all_notes]


def table(
    report: GenerationCosts,
    depth: int | None,
    tablefmt: str = "simple",
    width: int | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """Return summary, modules down to a depth and operators as tables."""
    parts = (
        pairs(totals(report), tablefmt, width),
        tables.module_table(report.root, depth, tablefmt, width, columns),
        tables.operator_table(report, tablefmt, width),
        pairs(coverage(report), tablefmt, width),
    )
    return "\n\n".join(parts)


def formulas(report: GenerationCosts) -> str:
    """Return prefill, a decode step and the whole as factored expressions."""
    prefill = report.symbolic_prefill
    rows = [("prefill", factored(prefill.macs), factored(prefill.flops))]
    for graph in report.decode_graphs:
        label = f"step, as with {graph.cached:,} cached"
        rows.append((label, factored(graph.report.macs), factored(graph.report.flops)))
    if len(report.decode_graphs) == 1:
        macs, flops = (factored(value) for value in _closed_form(report))
        rows.append(("all N tokens", macs, flops))
    return aligned(["", "MACs", "FLOPs"], rows, "simple")


def _closed_form(report: GenerationCosts) -> tuple[Dim, Dim]:
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


def to_dict(report: GenerationCosts, *, ops: bool = False) -> dict[str, Any]:
    """Return the report as plain data: totals, prefill and decode, and each module's share."""
    result = {
        **data.common_dict(report, "generation", report.prefill, report.all_notes),
        "sizes": dict(report.sizes),
        "cache": report.cache,
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
        "kv_cache_bytes": data.number(report.kv_cache_bytes),
        "kv_cache_bytes_per_token": data.number(report.kv_cache_bytes_per_token),
    }
    if ops:
        result["ops"] = [data.call_dict(record) for record in report.records]
    return result


def _work(cost: OpCost) -> str:
    return f"{quantity(cost.macs, 'MACs')}, {quantity(cost.flops, 'FLOPs')}"
