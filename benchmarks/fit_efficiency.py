"""Fit of the constants of ``efficiency.toml``: ``python -m benchmarks.fit_efficiency [--write]``.

float32: on the rows of P4, P100, V100, T4 and A100-40 of ``measured/latency.csv``, the squared
error of logarithms, each GPU counting alike. The share of the peak rate that arithmetic reaches is
a product of three factors:

- a common one;
- ``wide`` for multiprocessors with 128 float32 lanes (P4, L4, H100) instead of 64: a scheduler then
  issues a multiply-add every cycle, and each load or address takes the place of one;
- ``low_power`` for boards of at most 75 W (P4, T4, L4), which cannot hold the clock of their peak.

H100, L4 and A100-80 are predicted, not fitted on, and so are the GPUs of AMD, which get the
constants of one class of all five GPUs. Factors and tiles were chosen when the errors on H100 and
A100-80 were known; their values were not. bfloat16: on our own rows of H100 and H200.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from benchmarks.gpu.cases import CASES
from benchmarks.gpu.results import CARDS
from benchmarks.gpu.results import measured as measured_on
from benchmarks.latency import Pass, Row, kernels, our_rows, report, rows
from benchmarks.results import environment
from graphflops.analysis.devices import device
from graphflops.analysis.efficiency import Efficiency

RESULTS = Path(__file__).parent / "results" / "latency.json"
TOML = Path(__file__).parents[1] / "graphflops" / "analysis" / "efficiency.toml"
FITTED = ("a100-pcie-40gb", "p100-pcie-16gb", "p4", "t4", "v100-pcie-32gb")
PREDICTED = ("h100-sxm", "l4", "a100-pcie-80gb")
WIDE, LOW_POWER = ("p4", "l4", "h100-sxm", "h200"), ("p4", "t4", "l4")
DISPATCH = 25e-6
"""Seconds of the host for an operator: :func:`dispatch` of our own rows. No row of the table is
so small that it matters."""
_WAVES = 1.0
_BUSY, _IDLE = 0.4, 0.2
_PRODUCT = "matmul bf16 8192"


class Fit(NamedTuple):
    """Constants of float32: three factors of ``compute``, and ``memory``."""

    compute: float
    wide: float
    low_power: float
    memory: float

    def efficiency(self, *, wide: bool, low_power: bool) -> Efficiency:
        """Return the constants of a class of GPUs."""
        compute = self.compute * self.wide**wide * self.low_power**low_power
        return _efficiency(compute, self.memory)

    def of(self, name: str) -> Efficiency:
        """Return the constants of a GPU."""
        return self.efficiency(wide=name in WIDE, low_power=name in LOW_POWER)


def _efficiency(compute: float, memory: float) -> Efficiency:
    compute = min(round(compute, 3), 1.0)
    return Efficiency(compute=compute, memory=round(memory, 3), waves=_WAVES, dispatch=DISPATCH)


@cache
def _passes(row: Row) -> tuple[Pass, ...]:
    return tuple(Pass(part, device(row.device)) for part in kernels(row) if part)


def expected(row: Row, constants: Efficiency) -> float:
    """Return the seconds that are expected of a row."""
    return sum(part.expected(constants) for part in _passes(row))


def bound(row: Row) -> float:
    """Return the seconds that no execution can beat."""
    return sum(part.bound for part in _passes(row))


def _squared_error(measured: Iterable[Row], of: Callable[[str], Efficiency]) -> float:
    by_device: defaultdict[str, list[float]] = defaultdict(list)
    for row in measured:
        ratio = expected(row, of(row.device)) / row.seconds
        by_device[row.device].append(float(np.log(ratio)) ** 2)
    return mean(map(mean, by_device.values()))


def _minimum(error: Callable[[Sequence[float]], float], start: Sequence[float]) -> list[float]:
    from scipy.optimize import minimize  # type: ignore[import-untyped]  # has none

    def valid(values: Sequence[float]) -> float:
        inside = all(0.02 < value <= 1 for value in values)  # noqa: PLR2004 - a share
        return error(values) if inside else float("inf")

    options = {"xatol": 1e-3, "fatol": 1e-6, "maxiter": 600}
    return [float(x) for x in minimize(valid, start, method="Nelder-Mead", options=options).x]


def fit(measured: Sequence[Row]) -> Fit:
    """Return the constants of float32 of the classes of GPUs; a factor without rows is 1."""
    names = {row.device for row in measured}
    has_wide = any(name in WIDE for name in names) and any(name not in WIDE for name in names)

    def constants(values: Sequence[float]) -> Fit:
        compute, wide, low_power, memory = values
        return Fit(compute, wide if has_wide else 1.0, low_power, memory)

    found = _minimum(
        lambda values: _squared_error(measured, constants(values).of), (0.87, 0.85, 0.6, 0.7)
    )
    return Fit(*(round(value, 3) for value in constants(found)))


def fit_one_class(measured: Sequence[Row], memory: float) -> Efficiency:
    """Return the constants of all GPUs as one class."""
    (compute,) = _minimum(
        lambda values: _squared_error(measured, lambda _: _efficiency(values[0], memory)), (0.7,)
    )
    return _efficiency(compute, memory)


def fit_half(measured: Sequence[Row]) -> Efficiency:
    """Return the constants of bfloat16: ``memory`` by the absolute error of logarithms.

    ``compute`` is what a product of 8,192 x 8,192 matrices reaches; fitted together, each of the
    two makes up for the other. The rows are transformers, as of float32, whose bound is above 40%
    of what was measured: of the others most wait for the host.
    """
    busy, compute = busy_transformers(measured), _product_share()

    def error(values: Sequence[float]) -> float:
        half = _efficiency(compute, values[0])
        return mean(abs(float(np.log(expected(row, half) / row.seconds))) for row in busy)

    return _efficiency(compute, *_minimum(error, (0.7,)))


def _product_share() -> float:
    """Return the mean share of the peak rate that a large product in bfloat16 reaches."""
    shares = [
        record["value"] * 1e12 / device(name).rate("bfloat16", matrix=True)
        for card, name in CARDS.items()
        for record in measured_on(card)
        if record.get("name") == _PRODUCT
    ]
    return float(mean(shares))


def busy_transformers(measured: Iterable[Row]) -> list[Row]:
    """Return the rows of transformers that keep the GPU busy."""
    transformers = (row for row in measured if CASES[row.model].family != "images")
    return [row for row in transformers if bound(row) > _BUSY * row.seconds]


def dispatch(measured: Iterable[Row]) -> float:
    """Return the host's seconds for an operator: the first quartile over rows that wait for it."""
    waiting = (row for row in measured if bound(row) < _IDLE * row.seconds)
    each = [row.seconds / sum(float(p.times.sum()) for p in _passes(row)) for row in waiting]
    return float(np.percentile(each, 25))


def errors(measured: Iterable[Row], of: Callable[[str], Efficiency]) -> list[float]:
    """Return the relative errors of predictions."""
    return [expected(row, of(row.device)) / row.seconds - 1 for row in measured]


def _fused_error(row: Row) -> float:
    """Return the relative error of a row that was compiled, by the same constants."""
    time = report(row.workload).time(row.device, fused=True)
    if time.bound > row.seconds:
        raise AssertionError(f"{row.name} is faster than its bound on {row.device}")
    return float(time.expected) / row.seconds - 1


def left_out(measured: Sequence[Row], by: str) -> dict[str, float]:
    """Return the mean error on each GPU or model by a fit on all others."""
    found = {}
    for name in sorted({getattr(row, by) for row in measured}):
        kept = [row for row in measured if getattr(row, by) != name]
        held_out = [row for row in measured if getattr(row, by) == name]
        found[name] = _mean(errors(held_out, fit(kept).of))
    return found


def _mean(found: Sequence[float]) -> float:
    return round(mean(map(abs, found)), 4)


_TEXT = """# What kernels of a family of devices reach of the peak rates, by dtype of contractions.
# `python -m benchmarks.fit_efficiency` writes this file.
#   compute   share of the peak rate that arithmetic reaches
#   memory    share of the bandwidth that traffic reaches
#   waves     weight, 0 to 1, of what a contraction loses by tiles and waves that are not full
#   dispatch  seconds that the host takes to start an operator
#
# NVIDIA, float32: fitted on the latencies of P4, P100, V100, T4 and A100-40 in
# benchmarks/measured/latency.csv. compute is {compute}, times {wide} where a multiprocessor has 128
# float32 lanes instead of 64, times {low_power} on boards of at most 75 W. dispatch is from our own
# measurements of small models.
# NVIDIA, bfloat16: compute is what large products reached on an H100 and an H200; memory is fitted
# on our own transformers there, {rows} rows. float16, float8 and tf32 take the same, for they run
# on the same units: they are not fitted.
# All other makers: the constants that five NVIDIA GPUs get as one class. They are not fitted.
"""


def _toml(found: Fit, half: Efficiency, other: Efficiency, number: int) -> str:
    text = _TEXT.format(**found._asdict(), rows=number)
    classes = {
        "nvidia": (True, False),
        "nvidia-64": (False, False),
        "nvidia-75w": (True, True),
        "nvidia-64-75w": (False, True),
    }
    for name, (wide, low_power) in classes.items():
        text += _table(f"{name}.any", found.efficiency(wide=wide, low_power=low_power))
        for dtype in ("bfloat16", "float16", "tf32", "float8"):
            if name != "nvidia-64-75w" or dtype == "float16":
                text += _table(f"{name}.{dtype}", half)
    return text + _table("any.any", other)


def _table(name: str, constants: Efficiency) -> str:
    lines = [f"{key} = {getattr(constants, key):.6g}" for key in Efficiency.__slots__]
    return "\n".join(("", f"[{name}]", *lines, ""))


def main() -> None:
    """Fit, write the constants and the results, and print the errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write constants and results")
    options = parser.parse_args()
    measured = rows()
    fitted = [row for row in measured if row.device in FITTED]
    found = fit(fitted)
    other = fit_one_class(fitted, found.memory)
    ours = list(our_rows("bfloat16"))
    single = list(our_rows("float32"))
    half = fit_half(ours)
    print(found, other, half, dispatch(ours), sep="\n")

    def of(name: str) -> Efficiency:
        return other if name.startswith("mi") else found.of(name)

    summary = _summary(measured, of)
    summary["left out GPU"] = left_out(fitted, "device")
    summary["left out model"] = left_out(fitted, "model")
    summary["bound above measured, ours"] = sum(
        bound(row) > row.seconds for row in (*ours, *single)
    )
    summary["float32, ours"] = {"rows": len(single), "error": _mean(errors(single, found.of))}
    for name, group in (("bfloat16, fitted", busy_transformers(ours)), ("bfloat16", ours)):
        error = _mean(errors(group, lambda _: half))
        summary[name] = {"rows": len(group), "error": error}
    compiled = rows("fusion")
    summary["fused"] = {"rows": len(compiled), "error": _mean([*map(_fused_error, compiled)])}
    for name, value in summary.items():
        print(name, value)
    if options.write:
        TOML.write_text(_toml(found, half, other, len(busy_transformers(ours))), "utf-8")
        table = [_saved(row, of(row.device)) for row in sorted(measured)]
        table += [_saved(row, half) for row in ours]
        table += [_saved(row, of(row.device)) for row in single]
        where = environment(("numpy", "scipy", "torch", "transformers"))
        results = {"environment": where, "summary": summary, "rows": table}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")


def _summary(measured: Sequence[Row], of: Callable[[str], Efficiency]) -> dict[str, Any]:
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in measured:
        groups[f"{row.device} {row.mode}"].append(row)
        if row.device in PREDICTED:
            groups["not fitted on"].append(row)
            groups[f"not fitted on {row.mode}"].append(row)
        elif row.device.startswith("mi"):
            groups["AMD"].append(row)
    summary: dict[str, Any] = {
        name: {"rows": len(group), "error": _mean(errors(group, of))}
        for name, group in sorted(groups.items())
    }
    summary["bound above measured"] = sum(bound(row) > row.seconds for row in measured)
    return summary


_GROUPS = {
    "not fitted on": "H100 and A100 80 GB, float32, not fitted on",
    "h100-sxm inf": "of them H100, forward pass",
    "h100-sxm train": "of them H100, forward and backward",
    "a100-pcie-80gb train": "of them A100 80 GB, forward and backward",
    "AMD": "MI100, MI210, MI250, float32, not fitted on",
    "fused": "A100 and H100, float32, compiled, not fitted on",
    "float32, ours": "H100 and H200, our models, float32, not fitted on",
    "bfloat16, fitted": "H100 and H200, our busy transformers, bfloat16, fitted on",
    "bfloat16": "H100 and H200, all our models, bfloat16",
}


def table(summary: dict[str, Any]) -> str:
    """Return the mean errors of predictions as a table."""
    cells = [
        (title, summary[name]["rows"], f"{summary[name]['error']:.1%}")
        for name, title in _GROUPS.items()
    ]
    for kind in ("GPU", "model"):
        found = summary[f"left out {kind}"]
        mean_error = mean(found.values())
        cells.append(
            (f"float32, each {kind} by a fit on all others", len(found), f"{mean_error:.1%}")
        )
    return tabulate(cells, ("rows", "number", "mean error"), tablefmt="github")


def _saved(row: Row, constants: Efficiency) -> dict[str, Any]:
    figures = {"bound": bound(row), "expected": expected(row, constants), "measured": row.seconds}
    milliseconds = {name: round(value * 1e3, 3) for name, value in figures.items()}
    return {"device": row.device, "workload": row.name, **milliseconds}


if __name__ == "__main__":
    main()
