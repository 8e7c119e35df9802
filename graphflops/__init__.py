"""graphflops: what a PyTorch model costs, operator by operator, without running it.

Importing this package imports nothing heavy; a name loads what it needs on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphflops.analysis.accelerators import peak_flops
    from graphflops.cost import Dim, OpCost
    from graphflops.counting import count
    from graphflops.errors import (
        CaptureError,
        DuplicateHandlerError,
        GraphFlopsError,
        HandlerError,
        ModelSpecError,
        OutputError,
        PluginWarning,
        UnboundSymbolError,
        UnknownOpError,
        UnknownOpWarning,
        VersionError,
    )
    from graphflops.generation import count_generation
    from graphflops.generation_report import GenerationReport
    from graphflops.ir import OpCall, OpRecord, Phase, Status, TensorMeta
    from graphflops.registry import Registry, register
    from graphflops.report import Report
    from graphflops.training import count_training
    from graphflops.training_report import ModuleTraining, TrainingReport
    from graphflops.tree import ModuleNode

_HOMES = {
    "analysis.accelerators": ("peak_flops",),
    "cost": ("Dim", "OpCost"),
    "counting": ("count",),
    "errors": (
        "CaptureError",
        "DuplicateHandlerError",
        "GraphFlopsError",
        "HandlerError",
        "ModelSpecError",
        "OutputError",
        "PluginWarning",
        "UnboundSymbolError",
        "UnknownOpError",
        "UnknownOpWarning",
        "VersionError",
    ),
    "generation": ("count_generation",),
    "generation_report": ("GenerationReport",),
    "ir": ("OpCall", "OpRecord", "Phase", "Status", "TensorMeta"),
    "registry": ("Registry", "register"),
    "report": ("Report",),
    "training": ("count_training",),
    "training_report": ("ModuleTraining", "TrainingReport"),
    "tree": ("ModuleNode",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CaptureError",
    "Dim",
    "DuplicateHandlerError",
    "GenerationReport",
    "GraphFlopsError",
    "HandlerError",
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
    "Status",
    "TensorMeta",
    "TrainingReport",
    "UnboundSymbolError",
    "UnknownOpError",
    "UnknownOpWarning",
    "VersionError",
    "__version__",
    "count",
    "count_generation",
    "count_training",
    "peak_flops",
    "register",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("graphflops")
    if name not in _HOME_OF:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    with importlib.import_module(f"{__name__}.versions").explained_changes():
        return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
