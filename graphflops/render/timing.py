"""Times on a device as text and as data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import sympy

from graphflops.core.module_tree import path_depth
from graphflops.render.layout import aligned, pairs
from graphflops.render.units import quantity

if TYPE_CHECKING:
    from graphflops.analysis.call_time import CallTime, Seconds
    from graphflops.render.protocols import TimedPasses

_COLUMNS = ("bound", "expected", "% time", "bound by", "FLOPs/B", "FLOP/s")
_MAIN_SHARE = 0.9
_UNITS = ((1, "s"), (1e-3, "ms"), (1e-6, "us"))


def seconds_text(seconds: Seconds) -> str:
    """Return a time with a fitting unit.

    Example:
        >>> seconds_text(0.0123), seconds_text(2.5), seconds_text(0.0)
        ('12.3 ms', '2.5 s', '0 s')
    """
    if isinstance(seconds, sympy.Expr):
        return f"{seconds.evalf(4)} s"
    for scale, unit in _UNITS:
        if seconds >= scale:
            return f"{seconds / scale:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns" if seconds else "0 s"


def table(report: TimedPasses, depth: int | None, tablefmt: str, width: int | None = None) -> str:
    """Return summary, passes, modules down to a depth and operators."""
    modules = report.by_module()
    shown = [path for path in modules if depth is None or path_depth(path) <= depth]
    parts = [pairs(totals(report), tablefmt, width)]
    if len(report.passes) > 1:
        passes = ((name, part.total) for name, part in report.passes.items())
        parts.append(_times("pass", passes, report.total, tablefmt, width))
    by_module = ((path or "(model)", modules[path]) for path in shown if modules[path].kernels)
    parts.append(_times("module", by_module, report.total, tablefmt, width))
    operators = sorted(report.by_operator().items(), key=_longest_first)
    by_operator = ((name, time) for name, time in operators if time.kernels)
    parts.append(_times("operator", by_operator, report.total, tablefmt, width))
    return "\n\n".join(parts)


def _longest_first(item: tuple[str, CallTime]) -> Any:
    expected = item[1].expected
    return -expected if isinstance(expected, float) else 0


def totals(report: TimedPasses) -> list[tuple[str, str]]:
    """Return the times of the whole as ``(label, text)`` lines."""
    device, efficiency = report.roofline.device, report.roofline.efficiency
    dtype = report.roofline.dtype
    lines = [
        ("Model", f"{report.model}, {report.kind}"),
        ("Device", f"{device.title} ({device.name})" + (f", {dtype}" if dtype else "")),
        ("Bound", f"{seconds_text(report.bound)}: at the peak rates, {_kernels(report)}"),
        ("Expected", f"{seconds_text(report.expected)}: {_reached(efficiency)}"),
        ("  compute-bound", seconds_text(report.compute_bound)),
        ("  memory-bound", seconds_text(report.memory_bound)),
    ]
    slow_host = [name for name, part in report.passes.items() if _is_host_bound(part)]
    if slow_host:
        lines.append(
            (
                "  host-bound",
                f"{', '.join(slow_host)}: its kernels take longer to start than to run",
            )
        )
    return [*lines, *_figures(report.figures)]


def _figures(figures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        label = name.replace("_", " ").capitalize() if "_" in name else name.upper()
        if isinstance(value, sympy.Expr):
            yield label, str(value)
        elif "time" in name:
            yield label, seconds_text(value)
        else:
            yield label, f"{value:,.1f}" if "_" in name else f"{value:.1%} expected"


def _kernels(report: TimedPasses) -> str:
    return "operators fused" if report.fused else "operator after operator"


def _is_host_bound(part: Any) -> bool:
    kernels = part.total.expected
    return isinstance(kernels, float) and isinstance(part.host, float) and part.host > kernels


def _reached(efficiency: Any) -> str:
    return f"{efficiency.compute:.0%} of the peak rate, {efficiency.memory:.0%} of the bandwidth"


def _times(
    header: str,
    rows: Iterable[tuple[str, CallTime]],
    whole: CallTime,
    tablefmt: str,
    width: int | None,
) -> str:
    cells = [(name, *_cells(time, whole)) for name, time in rows]
    return aligned((header, *_COLUMNS), cells, tablefmt, width)


def _cells(time: CallTime, whole: CallTime) -> tuple[str, ...]:
    if not isinstance(time.expected, float):
        return seconds_text(time.bound), seconds_text(time.expected), "", "", "", ""
    rate = time.flops / time.expected if time.expected else 0
    return (
        seconds_text(time.bound),
        seconds_text(time.expected),
        _share(time.expected, whole.expected),
        _bound_by(time),
        f"{float(time.intensity):.3g}",
        quantity(round(rate), "FLOP/s"),
    )


def _share(part: Seconds, whole: Seconds) -> str:
    return f"{part / whole:.1%}" if isinstance(whole, float) and whole else ""


def _bound_by(time: CallTime) -> str:
    if not time.expected:
        return ""
    share = time.compute_bound / time.expected
    if share > _MAIN_SHARE:
        return "compute"
    return "memory" if share < 1 - _MAIN_SHARE else f"both ({share:.0%} compute)"


def to_dict(report: TimedPasses) -> dict[str, Any]:
    """Return the times as plain data: seconds, FLOPs and bytes."""
    device, efficiency = report.roofline.device, report.roofline.efficiency
    return {
        "model": report.model,
        "kind": report.kind,
        "device": device.name,
        "dtype": report.roofline.dtype,
        "efficiency": {
            "compute": efficiency.compute,
            "memory": efficiency.memory,
            "waves": efficiency.waves,
            "dispatch": efficiency.dispatch,
        },
        "bound": _number(report.bound),
        "expected": _number(report.expected),
        "fused": report.fused,
        **{name: _number(value) for name, value in report.figures.items()},
        "passes": {
            name: {"runs": part.runs, "host": _number(part.host), **_time(part.total)}
            for name, part in report.passes.items()
        },
        "modules": {path: _time(time) for path, time in report.by_module().items()},
        "operators": {name: _time(time) for name, time in report.by_operator().items()},
    }


def _time(time: CallTime) -> dict[str, Any]:
    return {
        "bound": _number(time.bound),
        "expected": _number(time.expected),
        "compute_bound": _number(time.compute_bound),
        "memory_bound": _number(time.memory_bound),
        "flops": _number(time.flops),
        "bytes": _number(time.nbytes),
        "kernels": _number(time.kernels),
    }


def _number(value: Any) -> float | int | str:
    return value if isinstance(value, int | float) else str(value)
