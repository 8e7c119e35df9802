"""Classes of Dynamo that a model or an error may be of, and its tables of torch's functions."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, cast

from graphflops.capture.torch_internals.deferred_dynamo import DEFERRED, DYNAMO
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.runtime.patches import Patch, Patches


def original_module(model: object) -> Any:
    """Return the module that ``torch.compile`` wrapped, or the model itself."""
    wrapper: Any = getattr(sys.modules.get(f"{DYNAMO}.eval_frame"), "OptimizedModule", None)
    if wrapper is not None and isinstance(model, wrapper):
        return cast("Any", model)._orig_mod
    return model


def dynamo_errors() -> tuple[type[Exception], ...]:
    """Return the base class of Dynamo's errors, if it is loaded."""
    error: Any = getattr(sys.modules.get(f"{DYNAMO}.exc"), "TorchDynamoException", None)
    return () if error is None else (error,)


class UnpatchedDynamo:
    """Patch by which Dynamo knows torch's own functions, whenever it is imported.

    Dynamo keys its rules by function: some when it is imported, others in tables that it fills
    when it first compiles. Where it is loaded before a count, the tables are filled then. A model
    may load it during a count: that happens without the patches of functions.

    Args:
        *patches: Patches of functions.
    """

    def __init__(self, *patches: Patch) -> None:
        self._patches = patches

    def install(self, held: Patches) -> None:
        """Fill the tables, or let Dynamo be imported without the patches.

        In another thread than the main one it is imported at once: two threads may count, and
        neither may see the other's patches disappear.
        """
        DEFERRED.defer()
        if threading.current_thread() is not threading.main_thread():
            DEFERRED.load()
        if DEFERRED.is_loaded():
            _fill_tables()
        else:
            DEFERRED.around = lambda: self._unpatched(held)

    def remove(self) -> None:
        """Leave the tables as they are."""
        DEFERRED.around = nullcontext

    @contextmanager
    def _unpatched(self, held: Patches) -> Iterator[None]:
        for patch in reversed(self._patches):
            patch.remove()
        try:
            with no_modes():
                yield
                _fill_tables()
        finally:
            for patch in self._patches:
                patch.install(held)


def _fill_tables() -> None:
    # Starting a process group clears them.
    from torch._dynamo import trace_rules
    from torch._dynamo.variables.torch import TorchInGraphFunctionVariable

    TorchInGraphFunctionVariable._get_handlers()
    trace_rules.get_torch_obj_rule_map()


__all__ = [
    "UnpatchedDynamo",
    "dynamo_errors",
    "original_module",
]

PIECES = {
    "original_module": "Return the module that ``torch.compile`` wrapped, or the model itself.",
    "dynamo_errors": "Return the base class of Dynamo's errors, if it is loaded.",
}
"""What each name is, as the test of it says when torch has changed it."""
