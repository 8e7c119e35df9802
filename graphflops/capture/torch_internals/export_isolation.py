"""Export in one thread while other threads run models.

``torch.export`` and ``make_fx`` patch methods of ``nn.Module`` and set flags for the whole process
while they trace. One thread exports at a time, and the patched methods act in that thread alone.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.fx.experimental.proxy_tensor
from torch import nn
from torch.fx import _symbolic_trace

from graphflops.capture.torch_internals.count_flags import model_running
from graphflops.runtime.patches import AttributePatch, Patches, patch_function

_TRACE = "torch.export._trace"
"""Module of the export, which imports Dynamo: it is imported by the first export."""
_ONE_AT_A_TIME = threading.RLock()


class _TracingFlag:
    """Torch flag that is true in one thread; compiled functions refuse to run if it is true."""

    def __init__(self, thread: int) -> None:
        self._thread = thread

    def __bool__(self) -> bool:
        return threading.get_ident() == self._thread


def _patch_method(
    original: Callable[..., None],
    patcher: Any,
    cls: type,
    name: str,
    new: Any,
    *args: Any,
    **kwargs: Any,
) -> None:
    """Patch a method for the exporting thread alone, and limit the tracing flag to it too."""
    unpatched, thread = getattr(cls, name), threading.get_ident()
    _symbolic_trace._is_fx_tracing_flag = _TracingFlag(thread)  # type: ignore[assignment]  # read as a condition

    @functools.wraps(new)
    def method(*method_args: Any, **method_kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            return unpatched(*method_args, **method_kwargs)
        function = new if threading.get_ident() == thread else unpatched
        return function(*method_args, **method_kwargs)

    original(patcher, cls, name, method, *args, **kwargs)


class _ModuleMethods:
    """Methods of ``nn.Module`` that tracing patches, restored even after an interruption."""

    _NAMES = ("__call__", "__getattr__")

    def __init__(self) -> None:
        self._originals: dict[str, Any] = {}

    def install(self, _: Patches) -> None:
        """Record the methods."""
        self._originals = self._originals or {name: vars(nn.Module)[name] for name in self._NAMES}

    def remove(self) -> None:
        """Restore the methods."""
        for name, method in self._originals.items():
            if vars(nn.Module)[name] is not method:
                setattr(nn.Module, name, method)
        if self._originals:
            _symbolic_trace._is_fx_tracing_flag = False
        self._originals = {}


def _snapshot(original: Callable[..., Any], tensor: torch.Tensor, **kwargs: Any) -> Any:
    """Copy the known values of a tensor to the snapshot that a node of the graph keeps of it."""
    snapshot = original(tensor, **kwargs)
    tracker = getattr(getattr(tensor, "fake_mode", None), "value_tracker", None)
    if tracker is not None:
        tracker.restore(snapshot, tracker.state(tensor))
    return snapshot


_EXPORT = Patches(
    patch_function(torch.fx.experimental.proxy_tensor, "snapshot_fake", _snapshot),
    _ModuleMethods(),
    patch_function(_symbolic_trace._Patcher, "patch_method", _patch_method),
    # Sets the flags of an export for this thread, not for the process.
    patch_function(_TRACE, "_compiling_state_context", lambda _: model_running(exporting=True)),
    patch_function(_TRACE, "_override_builtin_ops", lambda _: contextlib.nullcontext()),
    # When an export fails, it prints its graph, tens of kilobytes long.
    AttributePatch(
        _TRACE,
        "print",
        lambda _, is_held: lambda *args, **kw: None if is_held() else print(*args, **kw),  # noqa: T201
        allow_missing=True,
    ),
)


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Trace a graph in the block, while no other thread does."""
    with _ONE_AT_A_TIME, _EXPORT.holding():
        yield
