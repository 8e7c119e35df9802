"""Import of ``torch._dynamo`` put off until something asks for more than its configuration.

To import it takes almost as long as to import torch, and most models never need it: torch's own
code asks on the way of a count for its options, its errors and its utilities, and transformers for
one class and for marks. Those come from single modules of the package. Everything else runs
the package's own ``__init__`` first.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.util
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

import torch
from torch import _compile

from graphflops.runtime.deferred_modules import imported_spec

DYNAMO = "torch._dynamo"
_LIGHT = {
    f"{DYNAMO}.{name}"
    for name in (
        *("_trace_wrapped_higher_order_op", "bytecode_analysis", "bytecode_transformation"),
        *("config", "exc", "graph_utils", "metrics_context", "source", "utils"),
    )
}
"""Modules that are complete without the package's ``__init__``."""
_LOCK = threading.RLock()


class _Deferred(ModuleType):
    """Package whose ``__init__`` runs when more is asked of it than a light module."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if f"{DYNAMO}.{name}" in _LIGHT:
            return importlib.import_module(f"{DYNAMO}.{name}")
        if name in _MARKERS and not DEFERRED.is_loading:
            return _MARKERS[name]
        DEFERRED.load()
        if name not in vars(self):
            msg = f"module {DYNAMO!r} has no attribute {name!r}"
            raise AttributeError(msg)
        return vars(self)[name]


class _HeavyModules(importlib.abc.MetaPathFinder):
    """Finder that runs the package's ``__init__`` before any module of it that is not light."""

    def find_spec(
        self, name: str, _: Sequence[str] | None, __: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for a module that the ``__init__`` has imported just now."""
        if not name.startswith(f"{DYNAMO}.") or name in _LIGHT or DEFERRED.is_loading:
            return None
        DEFERRED.load()
        return imported_spec(name)


class DeferredDynamo:
    """Import of Dynamo that is put off until it is needed.

    Attributes:
        is_loading: True while the package's ``__init__`` runs.
        around: Returns the context manager to run it in.
    """

    def __init__(self) -> None:
        self.is_loading = False
        self.around: Callable[[], AbstractContextManager[None]] = nullcontext
        self._allowed: list[FunctionType] = []
        self._disabled: list[FunctionType] = []
        self._finder = _HeavyModules()

    def defer(self) -> None:
        """Put the import off, if nothing has imported Dynamo yet."""
        with _LOCK:
            spec = None if DYNAMO in sys.modules else importlib.util.find_spec(DYNAMO)
            if spec is not None:
                module = importlib.util.module_from_spec(spec)
                module.__class__ = _Deferred
                sys.modules[DYNAMO] = module
                sys.meta_path.insert(0, self._finder)

    def is_loaded(self) -> bool:
        """Return True if the process has imported all of Dynamo."""
        module = sys.modules.get(DYNAMO)
        return module is not None and not isinstance(module, _Deferred)

    def load(self) -> None:
        """Import all of Dynamo; its own imports of the package see it half done."""
        with _LOCK:
            if self.is_loaded() or self.is_loading:
                return
            module = importlib.import_module(DYNAMO)
            loader = getattr(module.__spec__, "loader", None)
            self.is_loading = True
            try:
                with self.around():
                    if isinstance(module, _Deferred) and loader is not None:
                        loader.exec_module(module)
                        module.__class__ = ModuleType  # type: ignore[assignment]  # mypy's gap
            finally:
                self.is_loading = False
            sys.meta_path.remove(self._finder)
            for function in self._allowed:
                torch.compiler.allow_in_graph(function)  # type: ignore[no-untyped-call]  # torch's gap
            for function in self._disabled:
                vars(function).pop("__dynamo_disable", None)
            self._allowed.clear()
            self._disabled.clear()

    def allow_in_graph(self, function: Any) -> Any:
        """Mark a function for Dynamo, once it is loaded."""
        if isinstance(function, FunctionType):
            self._allowed.append(function)
            return function
        return self._decorator("allow_in_graph")(function)

    def disable(self, function: Any = None, recursive: bool = True, **options: Any) -> Any:  # noqa: FBT002 - torch's signature
        """Return a function that Dynamo does not compile."""
        if function is None:
            return functools.partial(self.disable, recursive=recursive, **options)
        if not isinstance(function, FunctionType):
            return self._decorator("disable")(function, recursive, **options)
        if options.get("wrapping", True):
            return _compile._disable_dynamo(function, recursive)
        # Such a function runs for the first time, and would keep the answer: until Dynamo is
        # loaded, it is the function itself.
        self._disabled.append(function)
        return function

    def _decorator(self, name: str) -> Any:
        self.load()
        return getattr(sys.modules[DYNAMO], name)


def _assume_constant_result(function: Any) -> Any:
    function._dynamo_marked_constant = True
    return function


def _mark_static_address(t: Any, guard: bool = False) -> None:  # noqa: FBT002 - torch's signature
    if not isinstance(t, torch.Tensor):
        raise TypeError(f"mark_static_address expects a tensor but received {type(t)}")
    marked: Any = t
    marked._dynamo_static_input_type = "guarded" if guard else "unguarded"


DEFERRED = DeferredDynamo()
"""The process's one import of Dynamo."""
_MARKERS = {
    "allow_in_graph": DEFERRED.allow_in_graph,
    "assume_constant_result": _assume_constant_result,
    "disable": DEFERRED.disable,
    "mark_static_address": _mark_static_address,
}
"""Functions that mark others, and the caches of models, for a compiler: libraries are full of them.
"""

PIECES = {"DEFERRED": "Import of Dynamo that is put off; ``load()`` imports all of it."}
"""What each name is, as the test of it says when torch has changed it."""
