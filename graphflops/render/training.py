"""A training step as text and as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphflops.core.cost import Dim, OpCost
from graphflops.core.module_tree import ModuleNode
from graphflops.render import data, tables
from graphflops.render.layout import aligned, pairs
from graphflops.render.protocols import ModulePhases, TrainingCosts
from graphflops.render.tree import not_called, render_tree
from graphflops.render.units import exact, parameters, percent, quantity

_HEADERS = (
    *("module", "class", "params", "trainable", "forward", "backward", "input gradient"),
    *("weight gradient", "recomputed", "backward / forward"),
)


def totals(report: TrainingCosts) -> list[tuple[str, str]]:
    """Return the totals as ``(label, text)`` lines, units spelt out."""
    forward, backward, recompute = (part.total for part in report.parts)
    step = report.by_module_and_phase()[""]
    bound = "" if report.complete else "at least "
    frozen = report.params - report.params_trainable
    lines = [
        ("Model", f"{report.model}, training, {report.convention} convention"),
        ("Inputs", tables.inputs_line(report.forward)),
        ("Loss", report.loss),
        (
            "Parameters",
            f"{parameters(report.params)} ({exact(report.params)}), "
            + (f"{exact(frozen)} of them frozen" if frozen else "all trainable"),
        ),
        ("Forward", _work(forward)),
        ("Backward", f"{_work(backward)}, {_ratio(step)}"),
        ("  input gradient", _work(step.input_gradient)),
        ("  weight gradient", _work(step.weight_gradient)),
        ("Recomputed", _work(recompute) if recompute.flops != 0 else "nothing"),
    ]
    if (masked := forward.flops_masked + backward.flops_masked) != 0:
        lines.append(("Masked", f"{exact(masked)}, which a kernel that knows the mask skips"))
    lines += _optimizer(report)
    if report.passes > 1:
        micro = report.gradient_accumulation_steps
        steps = (
            f"{report.steps:,} x {micro:,} passes; the totals below are of all {report.passes:,}"
        )
        lines.append(("Steps", steps))
    lines += [
        ("Model FLOPs", f"{bound}{_flops(report.model_flops)}: forward and backward"),
        ("Hardware FLOPs", f"{bound}{_flops(report.hardware_flops)}: with what is recomputed"),
        ("  contractions", f"{exact(2 * report.macs)} = 2 x MACs, of the model FLOPs"),
    ]
    return lines + _utilization(report)


def _utilization(report: TrainingCosts) -> list[tuple[str, str]]:
    measured = report.measured
    if measured is None:
        return []
    peak_rate = quantity(round(measured.peak_flops), "FLOP/s")
    of = f"of {peak_rate} {measured.accelerator} ({report.dtype})"
    seconds, peak = measured.step_time, measured.peak_flops
    return [
        ("MFU", f"{report.mfu(seconds, peak):.2%} {of}, attention in full"),
        ("  causal", f"{report.mfu(seconds, peak, causal=True):.2%}, without what masks hide"),
        ("HFU", f"{report.hfu(seconds, peak):.2%}, with what is recomputed"),
    ]


def _optimizer(report: TrainingCosts) -> list[tuple[str, str]]:
    if report.optimizer is None:
        return []
    step, cost = report.optimizer, report.optimizer_cost
    flops, state = quantity(cost.flops, "FLOPs"), quantity(step.state_bytes, "B")
    text = f"{step.optimizer.name}: {flops} apart from these, {state} of state"
    return [("Optimizer", text)]


def coverage(report: TrainingCosts) -> list[tuple[str, str]]:
    """Return what the totals cover, as ``(label, text)`` lines."""
    lines = [
        (part.phase.value.capitalize(), tables.coverage_line(part))
        for part in report.parts
        if part.records
    ]
    if report.unattributed != OpCost():
        share = percent(report.unattributed.flops, report.backward.flops)
        lines.append(("Unattributed", f"{share or 'some'} of the backward FLOPs"))
    lines.append(("Captured by", tables.captured_by(report.forward.capture)))
    return lines + [("Note", note) for note in report.notes]


def tree(report: TrainingCosts, depth: int | None, width: int | None = None) -> str:
    """Return the module tree."""
    phases = report.by_module_and_phase()

    def figures(node: ModuleNode) -> Sequence[str]:
        params = f"{parameters(node.params_total)} Params"
        if not_called(node):
            return (f"{params}, not called",)
        return _figures(params + _frozen(node), phases[node.path])

    return render_tree(report.forward.root, depth, figures, width)


def _figures(params: str, cost: ModulePhases) -> Sequence[str]:
    forward = f"forward {quantity(cost.forward.flops, 'FLOPs')}"
    backward = f"backward {quantity(cost.backward.flops, 'FLOPs')}"
    gradients = (
        f"input {quantity(cost.input_gradient.flops)}, "
        f"weights {quantity(cost.weight_gradient.flops)}"
    )
    ratio = [_ratio(cost)] if cost.ratio else []
    recomputed = (
        [f"recomputed {quantity(cost.recompute.flops, 'FLOPs')}"] if cost.recompute.flops else []
    )
    return (
        ", ".join([params, forward, f"{backward} ({gradients})", *ratio, *recomputed]),
        ", ".join([params, forward, backward, *ratio, *recomputed]),
        ", ".join([forward, backward, *recomputed]),
        f"{forward}, {backward}",
    )


def _frozen(node: ModuleNode) -> str:
    frozen = node.params_total - node.params_trainable
    if node.params_total and frozen == node.params_total:
        return " frozen"
    return f" ({parameters(frozen)} frozen)" if frozen else ""


def table(
    report: TrainingCosts,
    depth: int | None,
    tablefmt: str = "simple",
    width: int | None = None,
    columns: Sequence[str] | None = None,
) -> str:
    """Return summary, modules down to a depth, and what is covered, as tables."""
    phases = report.by_module_and_phase()
    rows = [_row(node, phases[node.path]) for node in report.forward.root.walk(depth)]
    parts = (
        pairs(totals(report), tablefmt, width),
        aligned(_HEADERS, rows, tablefmt, width, columns),
        pairs(coverage(report), tablefmt, width),
    )
    return "\n\n".join(parts)


def _row(node: ModuleNode, cost: ModulePhases) -> tuple[str, ...]:
    phases = (
        *(cost.forward, cost.backward, cost.input_gradient),
        *(cost.weight_gradient, cost.recompute),
    )
    return (
        node.path or "(model)",
        node.module_class,
        parameters(node.params_total),
        parameters(node.params_trainable),
        *(quantity(phase.flops) for phase in phases),
        "" if cost.ratio is None else f"{cost.ratio:.2f}",
    )


def formulas(report: TrainingCosts) -> str:
    """Return MACs and FLOPs of each phase of a pass, and of all passes, factored."""
    rows = [
        (part.phase.value, tables.factored(part.macs), tables.factored(part.flops))
        for part in report.parts
    ]
    rows.append(("model FLOPs", tables.factored(report.macs), tables.factored(report.flops)))
    return aligned(["", "MACs", "FLOPs"], rows, "simple")


def to_dict(report: TrainingCosts, *, ops: bool = False) -> dict[str, Any]:
    """Return the report as plain data: totals, each phase, and each module's share of them."""
    step = report.optimizer
    phases = report.by_module_and_phase()
    result = {
        **data.common_dict(report, "training", report.forward, report.notes),
        "loss": report.loss,
        "gradient_accumulation_steps": report.gradient_accumulation_steps,
        "steps": report.steps,
        "model_flops": data.number(report.model_flops),
        "hardware_flops": data.number(report.hardware_flops),
        "phases": {part.phase.value: data.cost_dict(part.total) for part in report.parts},
        "unattributed": data.cost_dict(report.unattributed),
        "optimizer": None
        if step is None
        else {
            "name": step.optimizer.name,
            **data.cost_dict(report.optimizer_cost),
            "state_bytes": step.state_bytes,
        },
        "utilization": _utilization_dict(report),
        "modules": [
            {**data.module_dict(node), "phases": _phases_dict(phases[node.path])}
            for node in report.root.walk()
        ],
    }
    if ops:
        records = [record for part in report.parts for record in part.records]
        result["ops"] = data.call_dicts(records, report.graph)
    return result


def _phases_dict(cost: ModulePhases) -> dict[str, Any]:
    return {
        "forward": data.cost_dict(cost.forward),
        "input_gradient": data.cost_dict(cost.input_gradient),
        "weight_gradient": data.cost_dict(cost.weight_gradient),
        "recompute": data.cost_dict(cost.recompute),
    }


def _utilization_dict(report: TrainingCosts) -> dict[str, Any] | None:
    measured = report.measured
    if measured is None:
        return None
    seconds, peak = measured.step_time, measured.peak_flops
    return {
        "step_time": seconds,
        "peak_flops": peak,
        "accelerator": measured.accelerator,
        "mfu": report.mfu(seconds, peak),
        "mfu_causal": report.mfu(seconds, peak, causal=True),
        "hfu": report.hfu(seconds, peak),
    }


def to_csv(report: TrainingCosts, depth: int | None = None) -> str:
    """Return one line per module down to a depth, with its cost in each phase of a pass."""
    phases = report.by_module_and_phase()
    rows = []
    for node in report.root.walk(depth):
        row = data.module_dict(node)
        for phase, cost in _phases_dict(phases[node.path]).items():
            row |= {f"{phase}_{name}": value for name, value in cost.items()}
        rows.append(row)
    return data.csv_text(rows)


def _ratio(cost: ModulePhases) -> str:
    return "" if cost.ratio is None else f"{cost.ratio:.2f} x forward"


def _work(cost: OpCost) -> str:
    return f"{quantity(cost.macs, 'MACs')}, {quantity(cost.flops, 'FLOPs')}"


def _flops(value: Dim) -> str:
    return f"{quantity(value, 'FLOPs')} ({exact(value)})"
