"""Memory of a pass as text and as data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from graphflops.core.module_tree import path_depth
from graphflops.core.storage_events import BEFORE
from graphflops.render import units
from graphflops.render.layout import aligned, pairs
from graphflops.render.units import exact, quantity

if TYPE_CHECKING:
    from graphflops.render.protocols import PeakMemory

_LARGEST = 20
"""Number of tensors in the table."""
_TENSOR_COLUMNS = (
    *("tensor", "category", "memory", "shape", "dtype", "operator", "module", "source"),
)


def table(report: PeakMemory, depth: int | None, tablefmt: str, width: int | None = None) -> str:
    """Return summary, modules down to a depth, operators and the largest tensors."""
    peak = sum(report.by_category().values())
    modules = {
        path or "(model)": nbytes
        for path, nbytes in report.by_module().items()
        if depth is None or path_depth(path) <= depth
    }
    parts = [
        pairs(_totals(report, peak), tablefmt, width),
        _shares("module", modules, peak, tablefmt, width),
    ]
    if operators := report.by_operator():
        parts.append(_shares("operator", operators, peak, tablefmt, width))
    if report.at_peak:
        parts.append(aligned(_TENSOR_COLUMNS, [*_tensor_rows(report)], tablefmt, width))
    return "\n\n".join(parts)


def _totals(report: PeakMemory, peak: int) -> list[tuple[str, str]]:
    categories = report.by_category().items()
    return [
        ("Model", f"{report.model}, {report.kind}"),
        ("Device", report.device),
        ("Peak", f"{quantity(peak, 'B')} ({exact(peak)} bytes)"),
        ("  reached", place(report)),
        *(
            (f"  {name.replace('_', ' ')}", f"{quantity(nbytes, 'B')}, {nbytes / peak:.1%}")
            for name, nbytes in categories
            if nbytes
        ),
        (
            "Freed at last use",
            f"{quantity(report.last_use_peak, 'B')}: the peak if no variable kept a result longer",
        ),
        *(_savings(report, peak) if report.is_training else ()),
    ]


def _savings(report: PeakMemory, peak: int) -> Iterable[tuple[str, str]]:
    """Yield the peaks that FSDP and checkpoints would lead to, where they save anything."""
    found = report.savings()
    for label, saved, where in (
        (f"With FSDP over {found.ranks}", found.sharding, "on each of them"),
        ("With checkpoints", found.checkpointing, f"within {found.layers} layers"),
    ):
        if saved:
            yield label, f"{quantity(peak - saved, 'B')}: saves {quantity(saved, 'B')} {where}"


def place(report: PeakMemory) -> str:
    """Return where the peak is, in words."""
    if report.call == BEFORE:
        return "before the first call"
    call = report.peak_call
    if call is None:
        return "in the step of the optimizer" if report.after.state else "after the last call"
    text = f"in call {call.index} of {len(report.calls)}, {call.phase.value}: {call.op}"
    text += f" in {call.module_path}" if call.module_path else ""
    return text + (f" ({call.source_line})" if call.source_line else "")


def _shares(
    header: str, nbytes: Mapping[str, int], peak: int, tablefmt: str, width: int | None
) -> str:
    rows = [
        (name, quantity(size, "B"), f"{size / peak:.1%}") for name, size in nbytes.items() if size
    ]
    return aligned((header, "memory", "%"), rows, tablefmt, width)


def _tensor_rows(report: PeakMemory) -> Iterable[tuple[str, ...]]:
    for tensor, shape in zip(report.at_peak[:_LARGEST], report.shapes, strict=False):
        yield (
            tensor.name,
            tensor.category.value.replace("_", " "),
            quantity(tensor.nbytes, "B"),
            "" if shape is None else units.shape(shape),
            tensor.dtype,
            tensor.operator,
            tensor.module_path if tensor.operator else "",
            tensor.source_line,
        )


def to_dict(report: PeakMemory) -> dict[str, Any]:
    """Return the memory as plain data, in bytes."""
    categories, call = report.by_category(), report.peak_call
    return {
        "model": report.model,
        "kind": report.kind,
        "device": report.device,
        "peak": sum(categories.values()),
        "last_use_peak": report.last_use_peak,
        "reached": {
            "call": report.call,
            "operator": call.op if call else None,
            "phase": call.phase.value if call else None,
            "module": call.module_path if call else None,
            "source_line": call.source_line if call else None,
        },
        "savings": asdict(report.savings()) if report.is_training else None,
        "categories": categories,
        "modules": report.by_module(),
        "operators": report.by_operator(),
        "tensors": [
            {
                "name": tensor.name,
                "category": tensor.category.value,
                "bytes": tensor.nbytes,
                "shape": None if shape is None else list(shape),
                "dtype": tensor.dtype,
                "operator": tensor.operator,
                "module": tensor.module_path,
                "source_line": tensor.source_line,
            }
            for tensor, shape in zip(report.at_peak, report.shapes, strict=True)
        ],
        "timeline": [point._asdict() for point in report.timeline],
    }
