"""graphflops: the cost of a PyTorch model, operator by operator, without running it.

Importing this package does not import torch; a public name imports its module on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphflops.analysis.devices import Device, device, load_devices
    from graphflops.analysis.efficiency import Efficiency
    from graphflops.analysis.utilization import peak_flops
    from graphflops.batch.table import read_batch
    from graphflops.compiler.annotation import annotate
    from graphflops.compiler.counting_backend import backend
    from graphflops.compiler.pipeline_split import split_policy
    from graphflops.compiler.torch_hooks import install, uninstall
    from graphflops.compiler.watching import watch
    from graphflops.core.cost import Dim, OpCost
    from graphflops.core.ir import OpCall, OpRecord, Phase, Status, TensorMeta
    from graphflops.core.module_tree import ModuleNode
    from graphflops.counting.forward import count
    from graphflops.counting.generation import count_generation
    from graphflops.counting.training import count_training
    from graphflops.errors import (
        BatchError,
        CaptureError,
        DeviceOutOfMemoryError,
        DuplicateHandlerError,
        ForwardError,
        GraphFlopsError,
        HandlerError,
        InputError,
        ModelNameError,
        ModelSpecError,
        OutputError,
        PluginWarning,
        ReportFileError,
        UnboundSymbolError,
        UnknownOpError,
        UnknownOpWarning,
        VersionError,
    )
    from graphflops.pricing.registry import Registry, register
    from graphflops.reports.budget import BudgetCheck, check
    from graphflops.reports.diff import CostDiff
    from graphflops.reports.generation import GenerationReport
    from graphflops.reports.module_training import ModuleTraining
    from graphflops.reports.report import Report
    from graphflops.reports.timing import TimeReport
    from graphflops.reports.training import TrainingReport
    from graphflops.saving.files import load, save

_NAMES_BY_MODULE = {
    "analysis.devices": ("Device", "device", "load_devices"),
    "analysis.efficiency": ("Efficiency",),
    "analysis.utilization": ("peak_flops",),
    "batch.table": ("read_batch",),
    "compiler.annotation": ("annotate",),
    "compiler.counting_backend": ("backend",),
    "compiler.pipeline_split": ("split_policy",),
    "compiler.torch_hooks": ("install", "uninstall"),
    "compiler.watching": ("watch",),
    "core.cost": ("Dim", "OpCost"),
    "core.ir": ("OpCall", "OpRecord", "Phase", "Status", "TensorMeta"),
    "core.module_tree": ("ModuleNode",),
    "counting.forward": ("count",),
    "counting.generation": ("count_generation",),
    "counting.training": ("count_training",),
    "errors": (
        "BatchError",
        "CaptureError",
        "DeviceOutOfMemoryError",
        "DuplicateHandlerError",
        "ForwardError",
        "GraphFlopsError",
        "HandlerError",
        "InputError",
        "ModelNameError",
        "ModelSpecError",
        "OutputError",
        "PluginWarning",
        "ReportFileError",
        "UnboundSymbolError",
        "UnknownOpError",
        "UnknownOpWarning",
        "VersionError",
    ),
    "pricing.registry": ("Registry", "register"),
    "reports.budget": ("BudgetCheck", "check"),
    "reports.diff": ("CostDiff",),
    "reports.generation": ("GenerationReport",),
    "reports.report": ("Report",),
    "reports.module_training": ("ModuleTraining",),
    "reports.timing": ("TimeReport",),
    "reports.training": ("TrainingReport",),
    "saving.files": ("load", "save"),
}
_MODULE_OF = {name: module for module, names in _NAMES_BY_MODULE.items() for name in names}

__all__ = [
    "BatchError",
    "BudgetCheck",
    "CaptureError",
    "CostDiff",
    "Device",
    "DeviceOutOfMemoryError",
    "Dim",
    "DuplicateHandlerError",
    "Efficiency",
    "ForwardError",
    "GenerationReport",
    "GraphFlopsError",
    "HandlerError",
    "InputError",
    "ModelNameError",
    "ModelSpecError",
    "ModuleNode",
    "ModuleTraining",
    "OpCall",
    "OpCost",
    "OpRecord",
    "OutputError",
    "Phase",
    "PluginWarning",
    "Registry",
    "Report",
    "ReportFileError",
    "Status",
    "TensorMeta",
    "TimeReport",
    "TrainingReport",
    "UnboundSymbolError",
    "UnknownOpError",
    "UnknownOpWarning",
    "VersionError",
    "__version__",
    "annotate",
    "backend",
    "check",
    "count",
    "count_generation",
    "count_training",
    "device",
    "install",
    "load",
    "load_devices",
    "peak_flops",
    "read_batch",
    "register",
    "save",
    "split_policy",
    "uninstall",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("graphflops")
    if name not in _MODULE_OF:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    with importlib.import_module(f"{__name__}.runtime.versions").translate_version_errors():
        return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
