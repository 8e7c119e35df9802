"""A training step as text and as data."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from graphflops.core.cost import OpCost
from graphflops.core.module_tree import ModuleNode
from graphflops.render import data, tables
from graphflops.render.tables import TRAINING_HEADERS, aligned, labelled, pairs
from graphflops.render.tree import not_called, render_tree
from graphflops.render.units import exact, parameters, percent, quantity

if TYPE_CHECKING:
    from graphflops.reports.training import ModuleTraining, TrainingReport


def summary(report: TrainingReport) -> list[tuple[str, str]]:
    """The totals as ``(label, text)`` lines, units spelt out."""
    forward, backward, recompute = (part.total for part in report.parts)
    whole = report.by_module()[""]
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
        ("Backward", f"{_work(backward)}, {_ratio(whole)}"),
        ("  input gradient", _work(whole.input_gradient)),
        ("  weight gradient", _work(whole.weight_gradient)),
        ("Recomputed", _work(recompute) if recompute.flops != 0 else "nothing"),
    ]
    if (backward.flops_masked + forward.flops_masked) != 0:
        masked = forward.flops_masked + backward.flops_masked
        lines.append(("Masked", f"{exact(masked)}, which a kernel that knows the mask skips"))
    lines += _optimizer(report)
    if report.passes > 1:
        passes = f"{report.steps:,} x {report.gradient_accumulation_steps:,} passes"
        lines.append(("Steps", f"{passes}: of them all are the totals below"))
    lines += [
        ("Model FLOPs", f"{bound}{_flops(report.model_flops)}: forward and backward"),
        ("Hardware FLOPs", f"{bound}{_flops(report.hardware_flops)}: with what is recomputed"),
        ("  contractions", f"{exact(2 * report.macs)} = 2 x MACs, of the model FLOPs"),
    ]
    return lines + _utilization(report)


def _utilization(report: TrainingReport) -> list[tuple[str, str]]:
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


def _optimizer(report: TrainingReport) -> list[tuple[str, str]]:
    if report.optimizer is None:
        return []
    step, cost = report.optimizer, report.optimizer_cost
    flops, state = quantity(cost.flops, "FLOPs"), quantity(step.state_bytes, "B")
    said = f"{step.optimizer.name}: {flops} apart from these, {state} of state"
    return [("Optimizer", said)]


def footer(report: TrainingReport) -> list[tuple[str, str]]:
    """What the totals cover, as ``(label, text)`` lines."""
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


def tree(report: TrainingReport, depth: int | None) -> str:
    """The module tree."""
    costs = report.by_module()

    def figures(node: ModuleNode) -> str:
        if not_called(node):
            return f"{parameters(node.params_total)} Params, not called"
        cost = costs[node.path]
        params = f"{parameters(node.params_total)} Params"
        frozen = node.params_total - node.params_trainable
        if node.params_total and frozen == node.params_total:
            params += " frozen"
        elif frozen:
            params += f" ({parameters(frozen)} frozen)"
        gradients = (
            f"input {quantity(cost.input_gradient.flops)}, "
            f"weights {quantity(cost.weight_gradient.flops)}"
        )
        said = [
            params,
            f"forward {quantity(cost.forward.flops, 'FLOPs')}",
            f"backward {quantity(cost.backward.flops, 'FLOPs')} ({gradients})",
        ]
        if cost.ratio:
            said.append(_ratio(cost))
        if cost.recompute.flops != 0:
            said.append(f"recomputed {quantity(cost.recompute.flops, 'FLOPs')}")
        return ", ".join(said)

    return render_tree(report.forward.root, depth, figures)


def full_tree(report: TrainingReport, depth: int | None) -> str:
    """Totals, the module tree, and what the totals cover."""
    return "\n\n".join((labelled(summary(report)), tree(report, depth), labelled(footer(report))))


def table(report: TrainingReport, depth: int | None, tablefmt: str = "simple") -> str:
    """Summary, modules down to a depth, coverage."""
    costs = report.by_module()
    rows = []
    for node in report.forward.root.walk(depth):
        cost = costs[node.path]
        flops = (
            *(cost.forward, cost.backward, cost.input_gradient),
            *(cost.weight_gradient, cost.recompute),
        )
        rows.append(
            (
                node.path or "(model)",
                node.module_class,
                parameters(node.params_total),
                parameters(node.params_trainable),
                *(quantity(part.flops) for part in flops),
                "" if cost.ratio is None else f"{cost.ratio:.2f}",
            )
        )
    parts = (
        pairs(summary(report), tablefmt),
        aligned(["module", "class", "params", *TRAINING_HEADERS], rows, tablefmt),
        pairs(footer(report), tablefmt),
    )
    return ("\n" if tablefmt == "html" else "\n\n").join(parts)


def to_dict(report: TrainingReport, *, ops: bool = False) -> dict[str, Any]:
    """The report as plain data: totals, each phase, and each module's share of them."""
    step = report.optimizer
    result: dict[str, Any] = {
        "schema_version": data.SCHEMA_VERSION,
        "model": report.model,
        "environment": data.environment(),
        "convention": report.convention,
        "loss": report.loss,
        "gradient_accumulation_steps": report.gradient_accumulation_steps,
        "steps": report.steps,
        "complete": report.complete,
        "unknown_ops": report.unsupported_ops(),
        "totals": {
            "model_flops": data.number(report.model_flops),
            "hardware_flops": data.number(report.hardware_flops),
            "macs": data.number(report.macs),
            "params": report.params,
            "params_trainable": report.params_trainable,
        },
        "pass": {part.phase.value: data.cost_dict(part.total) for part in report.parts},
        "unattributed": data.cost_dict(report.unattributed),
        "optimizer": None
        if step is None
        else {
            "name": step.optimizer.name,
            **data.cost_dict(report.optimizer_cost),
            "state_bytes": step.state_bytes,
        },
        "capture": {
            "method": report.forward.capture.method,
            "seconds": round(report.forward.capture.seconds, 3),
            "layer_reuse": asdict(report.forward.capture.layer_reuse),
            "notes": list(report.notes),
            "data_sizes": list(map(data.data_size_dict, report.forward.capture.data_sizes)),
        },
        "utilization": _utilization_dict(report),
        "modules": _module_dicts(report, None),
    }
    if ops:
        result["ops"] = [
            {
                "phase": part.phase.value,
                "is_weight_gradient": record.call.is_weight_gradient,
                **data.call_dict(record),
            }
            for part in report.parts
            for record in part.records
        ]
    return result


def _utilization_dict(report: TrainingReport) -> dict[str, Any] | None:
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


def to_json(report: TrainingReport, *, ops: bool = False) -> str:
    """:func:`to_dict` as indented JSON."""
    return json.dumps(to_dict(report, ops=ops), indent=2)


def to_csv(report: TrainingReport, depth: int | None = None) -> str:
    """One line per module down to a depth; totals include the children."""
    rows = [
        {
            **{key: value for key, value in row.items() if not isinstance(value, dict)},
            **{
                f"{part}_{name}": value
                for part, costs in row.items()
                if isinstance(costs, dict)
                for name, value in costs.items()
            },
        }
        for row in _module_dicts(report, depth)
    ]
    return data.csv_text(rows)


def _module_dicts(report: TrainingReport, depth: int | None) -> list[dict[str, Any]]:
    costs = report.by_module()
    return [
        {
            "path": node.path,
            "class": node.module_class,
            "calls": node.calls,
            "params": node.params_total,
            "params_trainable": node.params_trainable,
            "forward": data.cost_dict(costs[node.path].forward),
            "input_gradient": data.cost_dict(costs[node.path].input_gradient),
            "weight_gradient": data.cost_dict(costs[node.path].weight_gradient),
            "recompute": data.cost_dict(costs[node.path].recompute),
        }
        for node in report.forward.root.walk(depth)
    ]


def _ratio(cost: ModuleTraining) -> str:
    return "" if cost.ratio is None else f"{cost.ratio:.2f} x forward"


def _work(cost: OpCost) -> str:
    return f"{quantity(cost.macs, 'MACs')}, {quantity(cost.flops, 'FLOPs')}"


def _flops(value: Any) -> str:
    return f"{quantity(value, 'FLOPs')} ({exact(value)})"
