"""Model names: each resolves to a model with inputs.

In: a model name and ``Options``. Out: a ``Workload``: a model on the meta device, or the path
of an exported program, with inputs and notes. May import ``capture``, ``render``, ``core`` and
what is below them.

====================  ================================================================
``hf:TYPE``           a transformers model type with its default config: ``hf:bert``
``hf:PATH``           a transformers ``config.json`` or a folder with one
``hf:ORG/NAME``       the config of a model on the hub, or in its local cache
``hf:...@CLASS``      another class for any of these: ``hf:bert@BertForMaskedLM``
``timm:NAME``         a timm model: ``timm:resnet50``
``torchvision:NAME``  a torchvision model: ``torchvision:resnet50``
``FILE.py:NAME``      a module, module class or factory in a Python file
``PACKAGE:NAME``      the same in an importable module
``FILE.pt2``          an exported program
====================  ================================================================

Installed packages add schemes through the entry-point group ``graphflops.models``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from graphflops.models.dynamic_axes import resolve_symbolic
    from graphflops.models.schemes import known, prepare, resolve, search
    from graphflops.models.workload import Options, Resolver, Workload

_MODULE_OF = {
    **dict.fromkeys(("Options", "Resolver", "Workload"), "workload"),
    **dict.fromkeys(("known", "prepare", "resolve", "search"), "schemes"),
    "resolve_symbolic": "dynamic_axes",
}
"""Modules of the names: options alone need no torch, which the others import."""

__all__ = [
    "Options",
    "Resolver",
    "Workload",
    "known",
    "prepare",
    "resolve",
    "resolve_symbolic",
    "search",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
