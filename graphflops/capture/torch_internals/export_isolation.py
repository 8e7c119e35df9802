"""Export in one thread while others run models.

``torch.export`` and ``make_fx`` exchange methods of ``nn.Module`` and raise flags for the whole
process while they trace. One thread at a time may, and the exchanged methods act in it alone.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.export._trace
import torch.fx.experimental.proxy_tensor
from torch import nn
from torch.fx import _symbolic_trace

from graphflops.capture.torch_internals.count_flags import model_running
from graphflops.runtime.patches import AttributePatch, Patches, patch_function

_ONE_AT_A_TIME = threading.RLock()


class _TracingFlag:
    """A flag of torch's that is up in one thread: compiled functions refuse to run where it is."""

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
    *rest: Any,
    **how: Any,
) -> None:
    """Let a method be exchanged in the exporting thread alone, whose flag is up since a moment."""
    kept, thread = getattr(cls, name), threading.get_ident()
    _symbolic_trace._is_fx_tracing_flag = _TracingFlag(thread)  # type: ignore[assignment]  # read as a condition

    @functools.wraps(new)
    def method(*args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_dynamo_compiling():
            return kept(*args, **kwargs)
        return (new if threading.get_ident() == thread else kept)(*args, **kwargs)

    original(patcher, cls, name, method, *rest, **how)


class _Methods:
    """The methods that tracing exchanges: put back even where tracing was interrupted."""

    _NAMES = ("__call__", "__getattr__")

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def install(self, _: Patches) -> None:
        """Note what they are."""
        self._kept = self._kept or {name: vars(nn.Module)[name] for name in self._NAMES}

    def remove(self) -> None:
        """Put them back."""
        for name, method in self._kept.items():
            if vars(nn.Module)[name] is not method:
                setattr(nn.Module, name, method)
        if self._kept:
            _symbolic_trace._is_fx_tracing_flag = False
        self._kept = {}


def _snapshot(original: Callable[..., Any], tensor: torch.Tensor, **how: Any) -> Any:
    """Know of what a node of the graph keeps what is known of the tensor it is of."""
    kept = original(tensor, **how)
    values = getattr(getattr(tensor, "fake_mode", None), "value_tracker", None)
    if values is not None:
        values.restore(kept, values.state(tensor))
    return kept


_EXPORT = Patches(
    patch_function(torch.fx.experimental.proxy_tensor, "snapshot_fake", _snapshot),
    _Methods(),
    patch_function(_symbolic_trace._Patcher, "patch_method", _patch_method),
    # The flags of an export are those of the thread already.
    patch_function(
        torch.export._trace, "_compiling_state_context", lambda _: model_running(exporting=True)
    ),
    patch_function(
        torch.export._trace, "_override_builtin_ops", lambda _: contextlib.nullcontext()
    ),
    # Prints the graph it had when it fails, tens of kilobytes long.
    AttributePatch(
        torch.export._trace,
        "print",
        lambda _, held: lambda *args, **how: None if held() else print(*args, **how),  # noqa: T201
        allow_missing=True,
    ),
)


@contextlib.contextmanager
def exporting() -> Iterator[None]:
    """Trace a graph in the block: no other count does meanwhile."""
    with _ONE_AT_A_TIME, _EXPORT.holding():
        yield
