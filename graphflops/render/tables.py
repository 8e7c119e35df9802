"""Plain-text and Markdown tables of a captured pass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sympy

from graphflops.core.cost import FLOPS_PER_MAC, Dim, OpCost
from graphflops.core.ir import Capture, OpCall, OpRecord, Phase, Status, TensorMeta
from graphflops.core.module_tree import ModuleNode
from graphflops.render.layout import aligned, labelled, pairs
from graphflops.render.protocols import Costs, PassCosts
from graphflops.render.uncalled import uncalled_lines
from graphflops.render.units import exact, parameters, percent, quantity, shape


def totals(report: PassCosts) -> list[tuple[str, str]]:
    """Return the totals as ``(label, text)`` lines, units spelt out."""
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
        ("  other operators", f"{exact(cost.flops - contraction)}"),
        ("  transcendental", f"{exact(cost.transcendentals)} of these"),
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


def inputs_line(report: PassCosts) -> str:
    """Return the inputs by name, with dtypes and shapes."""
    shown = (
        f"{name} {meta.dtype}[{', '.join(map(str, meta.shape))}]"
        for name, meta in report.capture.inputs
    )
    return ", ".join(shown) or "none"


def _estimates(cost: OpCost, bound: str) -> list[tuple[str, str]]:
    """Backward as other counters estimate it; ``graphflops train`` counts it."""
    both = f"{quantity(3 * cost.macs, 'MACs')}, {quantity(3 * cost.flops, 'FLOPs')}"
    return [
        ("Backward", f"{bound}{quantity(2 * cost.flops, 'FLOPs')} (estimate: 2 x forward)"),
        ("With backward", f"{bound}{both} (3 x forward)"),
    ]


def _flops(per_mac: int) -> str:
    # Loud where a unit is not what the reader takes it for.
    return f"{per_mac} FLOPs" if per_mac == FLOPS_PER_MAC else f"{per_mac} FLOP in this convention"


def coverage(report: PassCosts) -> list[tuple[str, str]]:
    """Return what the totals cover, as ``(label, text)`` lines."""
    lines = [
        ("Coverage", coverage_line(report)),
        ("Captured by", captured_by(report.capture)),
    ]
    lines += uncalled_lines(report)
    lines += [("Note", note) for note in report.capture.notes]
    return lines


def captured_by(capture: Capture) -> str:
    """Return how a graph was obtained, how long it took, and how many layers were replayed."""
    text = f"{capture.method} in {capture.seconds:.2f} s"
    reused = capture.layer_reuse
    if not reused.layers:
        return text
    kinds = "1 kind" if reused.distinct == 1 else f"{reused.distinct} kinds"
    return f"{text}, {reused.layers} repeated layers of {kinds} not traced again"


def coverage_line(report: Costs) -> str:
    """Return the number of calls by status, unsupported operators by name."""
    by_status = report.coverage
    statuses = (
        f"{by_status[status]} {'unsupported' if status is Status.UNKNOWN else status.value}"
        for status in (Status.COUNTED, Status.FREE, Status.DECOMPOSED, Status.UNKNOWN)
    )
    text = f"{len(report.records)} calls: {', '.join(statuses)}"
    names = ", ".join(f"{op} x {calls}" for op, calls in report.unsupported_ops().items())
    return f"{text} ({names})" if names else text


def formula_report(report: PassCosts, depth: int | None, width: int | None = None) -> str:
    """Return totals, formulas by module down to a depth, and what the totals cover."""
    formulas = formula_table(report.root, depth)
    lines = (labelled(totals(report), width), formulas, labelled(coverage(report), width))
    return "\n\n".join(lines)


def report_table(
    report: PassCosts,
    depth: int | None,
    tablefmt: str = "simple",
    width: int | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """Return totals, modules to a depth, operators, coverage: one below the other."""
    parts = (
        pairs(totals(report), tablefmt, width),
        module_table(report.root, depth, tablefmt, width, columns),
        operator_table(report, tablefmt, width),
        pairs(coverage(report), tablefmt, width),
    )
    return "\n\n".join(parts)


def module_table(
    root: ModuleNode,
    depth: int | None,
    tablefmt: str = "simple",
    width: int | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """Return one row per module down to a depth, in registration order."""
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
    headers = ["module", "class", "calls", "params", *_COST_HEADERS]
    return aligned(headers, rows, tablefmt, width, columns)


def formula_table(root: ModuleNode, depth: int | None) -> str:
    """Return factored MACs and FLOPs of each module to a depth; free ones are left out."""
    rows = [
        (node.path or "(model)", factored(node.total.macs), factored(node.total.flops))
        for node in root.walk(depth)
        if node.total.flops != 0
    ]
    return aligned(["module", "MACs", "FLOPs"], rows, "simple")


def operator_table(report: Costs, tablefmt: str = "simple", width: int | None = None) -> str:
    """Return one row per operator, the most FLOPs first, unsupported ones at the end."""
    calls = _calls_by_operator(report.records)
    costs = list(report.by_operator().items())
    if all(isinstance(cost.flops, int) for _, cost in costs):
        costs.sort(key=lambda item: int(item[1].flops), reverse=True)
    rows = [(op, str(calls[op]), *_cost_cells(cost, report.total)) for op, cost in costs]
    rows += [
        (op, str(number), *("unsupported",) * len(_COST_HEADERS))
        for op, number in report.unsupported_ops().items()
    ]
    return aligned(["operator", "calls", *_COST_HEADERS], rows, tablefmt, width)


def call_table(
    records: Iterable[OpRecord],
    tablefmt: str = "simple",
    width: int | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """Return one row per call."""
    headers = ["#", "module", "operator", "shapes", "MACs", "FLOPs", "bytes", "source"]
    return aligned(headers, [call_row(record) for record in records], tablefmt, width, columns)


def call_row(record: OpRecord) -> tuple[str, ...]:
    """Return the cells of a call: number, module, operator, shapes, cost, source line."""
    call, cost = record.call, record.cost
    cells = (
        ("unsupported",) * 3
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
        shapes_line(call),
        *cells,
        call.source_line,
    )


def shapes_line(call: OpCall) -> str:
    """Return the shapes of the tensors that go into a call and come out of it."""
    return f"{_shapes(t for _, t in call.tensors())} -> {_shapes(call.outputs)}"


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
    """Return an expression in factored form."""
    return str(sympy.factor(value))


def _calls_by_operator(records: Iterable[OpRecord]) -> dict[str, int]:
    calls: dict[str, int] = {}
    for record in records:
        calls[record.call.op] = calls.get(record.call.op, 0) + 1
    return calls


def _shapes(tensors: Iterable[TensorMeta]) -> str:
    return ", ".join(shape(tensor.shape) for tensor in tensors)
