"""Measured latencies, and the kernels of the passes that they are of.

`measured/latency.csv` has the milliseconds of transformers on GPUs in float32 and eager mode, as
the NeuSight project measured them (ASPLOS 2025, MIT licence); `measured/latency_models.json` has
the configs. `results/gpu` has our own, in float32 and bfloat16. Counts are kept in a cache: a
count takes longer than all that is done with it.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import graphflops as gf
from benchmarks.gpu.compare import report_of
from benchmarks.gpu.plan import INFERENCE, TRAINING
from benchmarks.gpu.plan import Row as Case
from benchmarks.gpu.results import CARDS, measured
from graphflops.analysis.devices import Device
from graphflops.analysis.efficiency import Efficiency
from graphflops.analysis.tiling import Product, product_of, time_of_tiles
from graphflops.models.optional_dependencies import repair_torchvision

MEASURED = Path(__file__).parent / "measured"
CACHE = Path(__file__).parent / ".cache" / "kernels.json"
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


class Workload(NamedTuple):
    """Model and inputs of a row of the table."""

    model: str
    mode: str
    sequence: int
    batch: int

    def __str__(self) -> str:
        return f"{self.model} {self.mode} {self.batch}x{self.sequence}"


class Row(NamedTuple):
    """A latency as it was measured.

    Attributes:
        device: Name of the device.
        workload: What ran.
        model: Model of the workload.
        mode: ``"inf"`` or ``"train"``: forward and backward, without an optimizer.
        seconds: How long it took.
    """

    device: str
    workload: Workload | Case
    model: str
    mode: str
    seconds: float

    @property
    def name(self) -> str:
        """Name of the workload."""
        return self.workload.key if isinstance(self.workload, Case) else str(self.workload)


def rows(variant: str = "") -> list[Row]:
    """Return the rows of the table on one device, in eager mode or another variant."""
    with (MEASURED / "latency.csv").open(encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["variant"] == variant]
    return [
        Row(
            DEVICES[row["device"]],
            Workload(row["model"], row["mode"], int(row["sequence"]), int(row["batch"])),
            row["model"],
            row["mode"],
            float(row["milliseconds"]) / 1e3,
        )
        for row in found
    ]


def our_rows(precision: str) -> Iterator[Row]:
    """Yield our own rows in a precision, in eager mode and with the default attention."""
    for card, device in CARDS.items():
        for record in measured(card):
            if record["kind"] != "measurement" or record["mode"] not in {TRAINING, INFERENCE}:
                continue
            if record["precision"] != precision or record["attention"] != "default":
                continue
            if record.get("compiled"):
                continue
            names = [field.name for field in fields(Case) if field.name in record]
            case = Case(**{name: record[name] for name in names})
            time = record["time"]
            milliseconds = time["step"]["median"] - time.get("optimizer", {}).get("median", 0.0)
            mode = "train" if record["mode"] == TRAINING else "inf"
            yield Row(device, case, record["case"], mode, milliseconds / 1e3)


@cache
def report(workload: Workload | Case) -> gf.Report | gf.TrainingReport:
    """Return the count of a workload."""
    if isinstance(workload, Case):
        return report_of(workload)
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


class Kernel(NamedTuple):
    """A call as the time of it depends on it, and how often it is made."""

    dtype: str
    is_contraction: bool
    flops: int
    nbytes: int
    product: Product | None
    times: int


def kernels(row: Row) -> list[list[Kernel]]:
    """Return the kernels of each pass of a row's workload."""
    cached = _cached()
    if row.name not in cached:
        cached[row.name] = [_distinct(runs) for runs in report(row.workload).timed_runs.values()]
        report.cache_clear()
        CACHE.parent.mkdir(exist_ok=True)
        CACHE.write_text(json.dumps(cached))
    return [
        [
            Kernel(dtype, is_product, flops, nbytes, Product(*sizes) if sizes else None, times)
            for dtype, is_product, flops, nbytes, sizes, times in part
        ]
        for part in cached[row.name]
    ]


@cache
def _cached() -> dict[str, Any]:
    return json.loads(CACHE.read_text()) if CACHE.exists() else {}


def _distinct(runs: Any) -> list[Kernel]:
    found: Counter[tuple[str, bool, int, int, Product | None]] = Counter()
    for record in runs.records(0.0):
        call, cost = record.call, record.cost
        nbytes = cost.bytes_read + cost.bytes_written if cost else 0
        if cost and (cost.flops or nbytes):
            product = product_of(call, cost.macs) if cost.macs else None
            found[call.dtype, bool(cost.macs), int(cost.flops), int(nbytes), product] += 1
    return [Kernel(*key, times=times) for key, times in found.items()]


class Pass:
    """Kernels of a pass on a device, as arrays: one prediction takes microseconds."""

    def __init__(self, found: list[Kernel], device: Device) -> None:
        rates = [_rate(device, kernel) for kernel in found]
        self.arithmetic = np.array([k.flops / r for k, r in zip(found, rates, strict=True)])
        self.traffic = np.array([kernel.nbytes / device.bandwidth for kernel in found])
        self.tiles = np.array(
            [
                time_of_tiles(kernel.product, device.multiprocessors)
                if kernel.product and device.multiprocessors
                else 1.0
                for kernel in found
            ]
        )
        self.times = np.array([kernel.times for kernel in found])
        self.launch = device.launch

    @property
    def bound(self) -> float:
        """Seconds at the peak rates."""
        return float(np.maximum(self.arithmetic, self.traffic) @ self.times)

    def expected(self, constants: Efficiency) -> float:
        """Return the seconds expected."""
        arithmetic = self.arithmetic * (1 + constants.waves * (self.tiles - 1)) / constants.compute
        each = np.maximum(arithmetic, self.traffic / constants.memory) + self.launch
        return max(float(each @ self.times), float(self.times.sum()) * constants.dispatch)


def _rate(device: Device, kernel: Kernel) -> float:
    if kernel.is_contraction:
        return device.rate(kernel.dtype, matrix=True)
    rates = {**device.vector, **device.matrix}
    return device.vector.get(kernel.dtype) or max(rates.values())
