"""Plain-text, Markdown and HTML tables of a report, through tabulate."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import sympy
from tabulate import tabulate

from graphflops.core.cost import FLOPS_PER_MAC, Dim, OpCost
from graphflops.core.ir import Capture, OpRecord, Phase, Status, TensorMeta
from graphflops.render.escape import escape_for, visible
from graphflops.render.uncalled import uncalled_lines
from graphflops.render.units import exact, parameters, percent, quantity, shape

if TYPE_CHECKING:
    from graphflops.reports.report import Report


def totals(report: Report) -> list[tuple[str, str]]:
    """The totals as ``(label, text)`` lines, units spelt out."""
    cost = report.total
    per_mac = report.registry.flops_per_mac
    contraction = cost.macs * per_mac
    bound = "" if report.complete else "at least "
    lines = [
        ("Model", f"{report.model}, {report.phase.value}, {report.convention} convention"),
        ("Inputs", inputs_line(report)),
        (
            "Parameters",
            ", ".join(
                (
                    f"{parameters(report.params)} ({exact(report.params)})",
                    f"{exact(report.params_trainable)} trainable",
                    quantity(report.root.param_bytes, "B"),
                )
            ),
        ),
        ("MACs", f"{bound}{quantity(cost.macs, 'MACs')} (1 MAC = {_flops(per_mac)})"),
        ("FLOPs", f"{bound}{quantity(cost.flops, 'FLOPs')} ({exact(cost.flops)})"),
        ("  contractions", f"{exact(contraction)} = {per_mac} x MACs"),
        ("  the rest", f"{exact(cost.flops - contraction)}"),
        ("  transcendental", f"{exact(cost.transcendentals)} of the rest"),
    ]
    if cost.flops_masked != 0:
        lines.append(
            ("  masked", f"{exact(cost.flops_masked)}, which a kernel that knows the mask skips")
        )
    if {report.phase, *(record.call.phase for record in report.records)} == {Phase.FORWARD}:
        lines += _estimates(cost, bound)
    lines += [
        (
            "Memory traffic",
            bound
            + f"{quantity(cost.bytes_read, 'B')} read, "
            + f"{quantity(cost.bytes_written, 'B')} written (unfused)",
        ),
    ]
    return lines


def inputs_line(report: Report) -> str:
    """The inputs by name, with dtypes and shapes."""
    shown = (
        f"{name} {meta.dtype}[{', '.join(map(str, meta.shape))}]"
        for name, meta in report.capture.inputs
    )
    return ", ".join(shown) or "none"


def _estimates(cost: OpCost, bound: str) -> list[tuple[str, str]]:
    """Backward as other counters guess it; ``graphflops train`` counts it."""
    both = f"{quantity(3 * cost.macs, 'MACs')}, {quantity(3 * cost.flops, 'FLOPs')}"
    return [
        ("Backward", f"{bound}{quantity(2 * cost.flops, 'FLOPs')} (estimate: 2 x forward)"),
        ("With backward", f"{bound}{both} (3 x forward)"),
    ]


def _flops(per_mac: int) -> str:
    # Loud where a unit is not what the reader takes it for.
    return f"{per_mac} FLOPs" if per_mac == FLOPS_PER_MAC else f"{per_mac} FLOP in this convention"


def coverage(report: Report) -> list[tuple[str, str]]:
    """What the totals cover, as ``(label, text)`` lines."""
    lines = [
        ("Coverage", coverage_line(report)),
        ("Captured by", captured_by(report.capture)),
    ]
    lines += uncalled_lines(report)
    lines += [("Note", note) for note in report.capture.notes]
    return lines


def captured_by(capture: Capture) -> str:
    """The way a graph was obtained, how long it took, and what was not traced again."""
    text = f"{capture.method} in {capture.seconds:.2f} s"
    reused = capture.layer_reuse
    if not reused.layers:
        return text
    kinds = "1 kind" if reused.distinct == 1 else f"{reused.distinct} kinds"
    return f"{text}, {reused.layers} repeated layers of {kinds} not traced again"


def coverage_line(report: Report) -> str:
    """How many calls are priced, free and unknown; unknown operators by name."""
    found = report.coverage
    text = (
        f"{len(report.records)} calls: {found[Status.COUNTED]} counted, {found[Status.FREE]} free, "
        f"{found[Status.DECOMPOSED]} decomposed, {found[Status.UNKNOWN]} unknown"
    )
    names = ", ".join(f"{op} x {calls}" for op, calls in report.unsupported_ops().items())
    return f"{text} ({names})" if names else text


def report_tree(report: Report, depth: int | None) -> str:
    """Totals, the module tree, and below it what the totals cover."""
    return "\n\n".join((labelled(totals(report)), report.tree(depth), labelled(coverage(report))))


def formula_report(report: Report, depth: int | None) -> str:
    """Totals, formulas by module down to a depth, and what the totals cover."""
    parts = (labelled(totals(report)), report.formula(depth), labelled(coverage(report)))
    return "\n\n".join(parts)


def report_table(report: Report, depth: int | None, tablefmt: str = "simple") -> str:
    """Totals, modules to a depth, operators, coverage: one below the other."""
    parts = (
        pairs(totals(report), tablefmt),
        module_table(report, depth, tablefmt),
        operator_table(report, tablefmt),
        pairs(coverage(report), tablefmt),
    )
    return ("\n" if tablefmt == "html" else "\n\n").join(parts)


def labelled(lines: Iterable[tuple[str, str]]) -> str:
    """Labels and texts, one below the other."""
    return "\n".join(visible(f"{label:<17} {text}") for label, text in lines)


def pairs(lines: Sequence[tuple[str, str]], tablefmt: str) -> str:
    """Labels and texts in a table's format: in plain text without a header or rules."""
    return labelled(lines) if tablefmt == "simple" else aligned(["", ""], lines, tablefmt)


def module_table(report: Report, depth: int | None, tablefmt: str = "simple") -> str:
    """One row per module down to a depth, in registration order."""
    root = report.root
    rows = [
        (
            node.path or "(model)",
            node.module_class,
            "" if node.calls is None else str(node.calls),
            parameters(node.params_total),
            *_cost_cells(node.total, root.total),
        )
        for node in root.walk(depth)
    ]
    return aligned(["module", "class", "calls", "params", *_COST_HEADERS], rows, tablefmt)


def formula_table(report: Report, depth: int | None) -> str:
    """MACs and FLOPs of each module down to a depth, factored; those that cost nothing left out."""
    rows = [
        (node.path or "(model)", factored(node.total.macs), factored(node.total.flops))
        for node in report.root.walk(depth)
        if node.total.flops != 0
    ]
    return aligned(["module", "MACs", "FLOPs"], rows, "simple")


def operator_table(report: Report, tablefmt: str = "simple") -> str:
    """One row per operator, the most FLOPs first, unknown ones at the end."""
    calls = _calls_by_operator(report.records)
    costs = list(report.by_operator().items())
    if all(isinstance(cost.flops, int) for _, cost in costs):
        costs.sort(key=lambda item: int(item[1].flops), reverse=True)
    rows = [(op, str(calls[op]), *_cost_cells(cost, report.total)) for op, cost in costs]
    rows += [
        (op, str(number), *("unknown",) * len(_COST_HEADERS))
        for op, number in report.unsupported_ops().items()
    ]
    return aligned(["operator", "calls", *_COST_HEADERS], rows, tablefmt)


def call_table(records: Iterable[OpRecord], tablefmt: str = "simple") -> str:
    """One row per call."""
    headers = ["#", "module", "operator", "shapes", "MACs", "FLOPs", "bytes", "source"]
    return aligned(headers, [call_row(record) for record in records], tablefmt)


def call_row(record: OpRecord) -> tuple[str, ...]:
    """A call as cells: where, what, shapes, cost, source line."""
    call, cost = record.call, record.cost
    shapes = f"{_shapes(t for _, t in call.tensors())} -> {_shapes(call.outputs)}"
    cells = (
        ("unknown",) * 3
        if cost is None
        else (
            quantity(cost.macs),
            quantity(cost.flops),
            quantity(cost.bytes_read + cost.bytes_written),
        )
    )
    return (
        str(call.index),
        call.module_path or "(model)",
        f"{call.op}.{call.overload}",
        shapes,
        *cells,
        call.source_line,
    )


TRAINING_HEADERS = (
    *("trainable", "forward", "backward", "input gradient", "weight gradient", "recomputed"),
    "backward / forward",
)
_COST_HEADERS = ("MACs", "FLOPs", "% FLOPs", "read", "written")


def _cost_cells(cost: OpCost, whole: OpCost) -> tuple[str, ...]:
    return (
        quantity(cost.macs),
        quantity(cost.flops),
        percent(cost.flops, whole.flops),
        quantity(cost.bytes_read, "B"),
        quantity(cost.bytes_written, "B"),
    )


def factored(value: Dim) -> str:
    """An expression in as few terms as there are factors."""
    return str(sympy.factor(value))


def _calls_by_operator(records: Iterable[OpRecord]) -> dict[str, int]:
    calls: dict[str, int] = {}
    for record in records:
        calls[record.call.op] = calls.get(record.call.op, 0) + 1
    return calls


def _shapes(tensors: Iterable[TensorMeta]) -> str:
    return ", ".join(shape(tensor.shape) for tensor in tensors)


def aligned(headers: Sequence[str], rows: Sequence[Sequence[str]], tablefmt: str) -> str:
    """Rows as a table; numbers are set flush right."""
    numeric = {"#", "calls", "params", "bytes", *_COST_HEADERS, *TRAINING_HEADERS}
    align = ["right" if header in numeric else "left" for header in headers]
    escape = escape_for(tablefmt)
    cells = [[escape(cell) for cell in row] for row in rows]
    return tabulate(cells, headers, tablefmt=tablefmt, colalign=align, disable_numparse=True)
