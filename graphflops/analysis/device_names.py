"""Names that drivers report for devices: ``torch.cuda.get_device_name()``."""

from __future__ import annotations

from graphflops.analysis.devices import Device, device, known_devices

_REPORTED = {
    "Tesla P4": "p4",
    "Tesla P40": "p40",
    "Tesla P100-PCIE-16GB": "p100-pcie-16gb",
    "Tesla P100-SXM2-16GB": "p100-sxm2",
    "Tesla V100-SXM2-32GB": "v100-sxm2",
    "Tesla V100-SXM2-16GB": "v100-sxm2-16gb",
    "Tesla V100-PCIE-32GB": "v100-pcie-32gb",
    "Tesla T4": "t4",
    "A100-PCIE-40GB": "a100-pcie-40gb",
    "A100-SXM4-40GB": "a100-sxm-40gb",
    "A100 80GB PCIe": "a100-pcie-80gb",
    "A100-SXM4-80GB": "a100-sxm-80gb",
    "A30": "a30",
    "A10": "a10",
    "A10G": "a10g",
    "A40": "a40",
    "RTX A6000": "a6000",
    "GeForce RTX 3090": "rtx-3090",
    "L4": "l4",
    "L40": "l40",
    "L40S": "l40s",
    "GeForce RTX 4090": "rtx-4090",
    "RTX 6000 Ada Generation": "rtx-6000-ada",
    "H100 80GB HBM3": "h100-sxm",
    "H100 PCIe": "h100-pcie",
    "H100 NVL": "h100-nvl",
    "H200": "h200",
    "H20": "h20",
    "GH200 480GB": "gh200",
    "GH200 144G HBM3e": "gh200-144gb",
    "B200": "b200",
    "GB200": "gb200",
    "B300 SXM6 AC": "b300",
    "GB300": "gb300",
    "GeForce RTX 5090": "rtx-5090",
    "RTX PRO 6000 Blackwell Workstation Edition": "rtx-pro-6000-blackwell",
    "Instinct MI100": "mi100",
    "Instinct MI210": "mi210",
    "Instinct MI250": "mi250",
    "Instinct MI250X": "mi250x",
    "Instinct MI300X": "mi300x",
    "Instinct MI325X": "mi325x",
    "Instinct MI350X": "mi350x",
    "Instinct MI355X": "mi355x",
}
"""Devices by what drivers call them, without the maker."""


def device_by_driver_name(name: str) -> Device | None:
    """Return the device that a driver calls by a name; ``None`` if it is not known.

    A title in the user's own file of devices is such a name too. A part of a device (MIG) has
    another name, and is none.

    Example:
        >>> device_by_driver_name("NVIDIA H100 80GB HBM3").name
        'h100-sxm'
    """
    for known in known_devices().values():
        if known.title == name:
            return known
    reported = _REPORTED.get(name.removeprefix("NVIDIA ").removeprefix("AMD "))
    return None if reported is None else device(reported)
