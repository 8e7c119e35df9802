"""Dynamo, which most models never need: its classes where it is loaded, and its import in a count.

To import it takes almost as long as to import torch.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any, cast

from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.runtime.patches import Patch, Patches

DYNAMO = "torch._dynamo"


def is_loaded() -> bool:
    """Return True if the process has imported Dynamo."""
    return DYNAMO in sys.modules


def original_module(model: object) -> Any:
    """Return the module that ``torch.compile`` wrapped, or the model itself."""
    wrapper: Any = getattr(sys.modules.get(f"{DYNAMO}.eval_frame"), "OptimizedModule", None)
    if wrapper is not None and isinstance(model, wrapper):
        return cast("Any", model)._orig_mod
    return model


def dynamo_errors() -> tuple[type[Exception], ...]:
    """Return the base class of Dynamo's errors, if it is loaded."""
    error = getattr(sys.modules.get(f"{DYNAMO}.exc"), "TorchDynamoException", None)
    return () if error is None else (error,)


class UnpatchedDynamo(importlib.abc.MetaPathFinder):
    """Patch by which Dynamo knows torch's own functions, whenever it is imported.

    Dynamo keys its rules by function: some when it is imported, others in tables that it fills
    when it first compiles. Where it is loaded before a count, the tables are filled then. A model
    may import it during a count: that happens without the patches of functions.

    Args:
        *patches: Patches of functions.
    """

    def __init__(self, *patches: Patch) -> None:
        self._patches, self._held = patches, Patches()

    def install(self, patches: Patches) -> None:
        """Fill the tables, or wait for the import.

        In another thread than the main one Dynamo is imported at once: two threads may count,
        and neither may see the other's patches disappear.
        """
        self._held = patches
        if threading.current_thread() is not threading.main_thread():
            importlib.import_module(DYNAMO)
        if is_loaded():
            _fill_tables()
        elif self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Wait no longer; leave the tables as they are."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return a spec by which Dynamo is imported without the patches."""
        if name != DYNAMO:
            return None
        self.remove()
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self)
        return spec

    def load(self, loader: importlib.abc.Loader, module: ModuleType) -> None:
        """Run a module's code and fill the tables, without the patches and outside of modes."""
        for patch in reversed(self._patches):
            patch.remove()
        try:
            with no_modes():
                loader.exec_module(module)
                _fill_tables()
        finally:
            for patch in self._patches:
                patch.install(self._held)


class _Loader(importlib.abc.Loader):
    """Loader that runs Dynamo's code without the patches of a count."""

    def __init__(self, loader: importlib.abc.Loader, finder: UnpatchedDynamo) -> None:
        self._loader, self._finder = loader, finder

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """Create the module as its own loader does."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code."""
        module.__loader__ = self._loader
        self._finder.load(self._loader, module)


def _fill_tables() -> None:
    # Starting a process group clears them.
    from torch._dynamo import trace_rules
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    TorchInGraphFunctionVariable._get_handlers()
    trace_rules.get_torch_obj_rule_map()


__all__ = ["DYNAMO", "UnpatchedDynamo", "dynamo_errors", "is_loaded", "original_module"]

PIECES = {
    "original_module": "Return the module that ``torch.compile`` wrapped, or the model itself.",
    "dynamo_errors": "Return the base class of Dynamo's errors, if it is loaded.",
}
"""What each name is, as the test of it says when torch has changed it."""
