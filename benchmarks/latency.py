"""Predicted against measured latencies: ``python -m benchmarks.latency [--fit]``.

`measured/latency.csv` has the milliseconds of transformers on GPUs in float32 and eager mode, as
the NeuSight project measured them (ASPLOS 2025, MIT licence); `measured/latency_models.json` has
the configs. Constants are fitted on the rows of five GPUs, each GPU counting alike; the errors of
the others, and of each model left out of the fit, are told.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from tabulate import tabulate

import graphflops as gf
from graphflops.analysis.call_time import Roofline
from graphflops.analysis.devices import device
from graphflops.analysis.efficiency import Efficiency
from graphflops.models.optional_dependencies import repair_torchvision
from graphflops.reports.timing import pass_time

MEASURED = Path(__file__).parent / "measured"
RESULTS = Path(__file__).parent / "results" / "latency.json"
DEVICES = {
    "AMD_Instinct_MI100": "mi100",
    "AMD_Instinct_MI210": "mi210",
    "AMD_Instinct_MI250": "mi250",
    "NVIDIA_A100-PCIE-40GB": "a100-pcie-40gb",
    "NVIDIA_A100-SXM4-40GB": "a100-sxm-40gb",
    "NVIDIA_A100_80GB_PCIe": "a100-pcie-80gb",
    "NVIDIA_H100_80GB_HBM3": "h100-sxm",
    "NVIDIA_L4": "l4",
    "Tesla_P100-PCIE-16GB": "p100-pcie-16gb",
    "Tesla_P4": "p4",
    "Tesla_T4": "t4",
    "Tesla_V100-PCIE-32GB": "v100-pcie-32gb",
}
"""Devices by the names in the table."""
FITTED = ("a100-pcie-40gb", "p100-pcie-16gb", "p4", "t4", "v100-pcie-32gb")
START = (0.7, 0.7, 0.3)
DISPATCH = 18e-6


class Workload(NamedTuple):
    """Model and inputs of a row."""

    model: str
    mode: str
    sequence: int
    batch: int


class Row(NamedTuple):
    """A latency as it was measured."""

    device: str
    workload: Workload
    seconds: float


def rows() -> list[Row]:
    """Return the rows of eager mode on one device."""
    with (MEASURED / "latency.csv").open(encoding="utf-8") as file:
        return [
            Row(
                DEVICES[row["device"]],
                Workload(row["model"], row["mode"], int(row["sequence"]), int(row["batch"])),
                float(row["milliseconds"]) / 1e3,
            )
            for row in csv.DictReader(file)
            if not row["variant"]
        ]


@cache
def report(workload: Workload) -> gf.Report | gf.TrainingReport:
    """Return the count of a workload."""
    repair_torchvision()
    import transformers

    configs = json.loads((MEASURED / "latency_models.json").read_text("utf-8"))
    # What the rows were measured in.
    settings: dict[str, Any] = {**configs[workload.model], "dtype": "float32"}
    (architecture,) = settings.pop("architectures")
    settings.pop("torch_dtype", None)
    config = transformers.AutoConfig.for_model(**settings)
    config.use_cache = False
    with torch.device("meta"):
        model = getattr(transformers, architecture)._from_config(
            config, attn_implementation="eager"
        )
        ids = torch.zeros(workload.batch, workload.sequence, dtype=torch.int64)
    kwargs = {"input_ids": ids}
    if config.is_encoder_decoder:
        kwargs["decoder_input_ids"] = ids
    if workload.mode == "inf":
        return gf.count(model.eval(), kwargs=kwargs)
    return gf.count_training(model.train(), kwargs=kwargs)


def expected(row: Row, efficiency: Efficiency) -> float:
    """Return the seconds that are expected of a row."""
    roofline = Roofline(device(row.device), efficiency)
    runs = report(row.workload).timed_runs.values()
    return float(sum(pass_time(part, roofline).expected for part in runs))


def bound(row: Row) -> float:
    """Return the seconds that no execution can beat."""
    return float(report(row.workload).time(row.device).bound)


def fit(measured: Sequence[Row]) -> Efficiency:
    """Return the constants with the least squared error of logarithms, a mean over devices."""
    from scipy.optimize import minimize  # type: ignore[import-untyped]  # has none

    by_device: defaultdict[str, list[Row]] = defaultdict(list)
    for row in measured:
        by_device[row.device].append(row)

    def error(constants: Sequence[float]) -> float:
        compute, memory, waves = constants
        if not (0 < compute <= 1 and 0 < memory <= 1 and 0 <= waves <= 1):
            return float("inf")
        efficiency = _efficiency(constants)
        return mean(
            mean(float(np.log(expected(row, efficiency) / row.seconds)) ** 2 for row in group)
            for group in by_device.values()
        )

    found = minimize(error, START, method="Nelder-Mead", options={"xatol": 2e-3, "fatol": 1e-5})
    return _efficiency([round(float(value), 3) for value in found.x])


def _efficiency(constants: Sequence[float]) -> Efficiency:
    compute, memory, waves = constants
    return Efficiency(compute=compute, memory=memory, waves=waves, dispatch=DISPATCH)


def errors(measured: Iterable[Row], efficiency: Efficiency) -> list[float]:
    """Return the relative errors of predictions."""
    return [expected(row, efficiency) / row.seconds - 1 for row in measured]


def main() -> None:
    """Fit, compare, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fit", action="store_true", help="fit the constants again")
    options = parser.parse_args()
    measured = rows()
    train = [row for row in measured if row.device in FITTED]
    efficiency = fit(train) if options.fit else _efficiency(START)
    print(efficiency)
    table = [
        (
            row.device,
            *row.workload,
            f"{row.seconds * 1e3:.1f}",
            f"{bound(row) / row.seconds:.2f}",
            f"{expected(row, efficiency) / row.seconds - 1:+.1%}",
        )
        for row in sorted(measured)
    ]
    headers = ("device", "model", "mode", "sequence", "batch", "ms", "bound", "expected")
    print(tabulate(table, headers, tablefmt="github", disable_numparse=True))
    groups: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in measured:
        groups[row.device, row.workload.mode].append(row)
    for (name, mode), group in groups.items():
        found = errors(group, efficiency)
        print(name, mode, len(group), f"{mean(map(abs, found)):.1%} {mean(found):+.1%}")
    held_out = [r for r in measured if r.device not in FITTED and not r.device.startswith("mi")]
    print("not fitted on", f"{mean(map(abs, errors(held_out, efficiency))):.1%}", len(held_out))


if __name__ == "__main__":
    main()
