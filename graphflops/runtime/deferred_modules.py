"""Modules of libraries whose code runs when something asks for it, not when it is imported."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.util
import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_LOCK = threading.RLock()


class DeferredModule(ModuleType):
    """Module that runs its code when it is asked for a name that it has not been given."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(load_module(self.__name__), name)


def load_module(name: str) -> ModuleType:
    """Import a module, and run its code if that was put off."""
    module = importlib.import_module(name)
    with _LOCK:
        loader = getattr(module.__spec__, "loader", None)
        if type(module) is DeferredModule and loader is not None:
            module.__class__ = ModuleType  # type: ignore[assignment]  # mypy's gap
            loader.exec_module(module)
    return module


def defer_module(name: str, **given: Any) -> None:
    """Put off the code of a module, unless it has run already.

    Args:
        name: Name of the module, whose package must be importable.
        **given: Names that the module has from now on; its own code may set them anew.
    """
    with _LOCK:
        spec = None if name in sys.modules else importlib.util.find_spec(name)
        if spec is not None:
            module = importlib.util.module_from_spec(spec)
            module.__class__ = DeferredModule
            vars(module).update(given)
            sys.modules[name] = module
            package, _, child = name.rpartition(".")
            if package:
                setattr(sys.modules[package], child, module)


def imported_spec(name: str) -> ModuleSpec | None:
    """Return a spec by which a finder gives a module that it has imported itself, if it has."""
    return ModuleSpec(name, _Imported(sys.modules[name])) if name in sys.modules else None


class _Imported(importlib.abc.Loader):
    """Loader of a module that is imported already."""

    def __init__(self, module: ModuleType) -> None:
        self._module, self._spec = module, module.__spec__

    def create_module(self, _: ModuleSpec) -> ModuleType:
        """Return the module."""
        return self._module

    def exec_module(self, module: ModuleType) -> None:
        """Restore the module's own spec."""
        module.__spec__ = self._spec
