"""Tape of a forward pass that runs eagerly under fake tensors.

It records above autograd and above the decomposition of composite operators, so that
``aten::linear`` and ``aten::scaled_dot_product_attention`` stay whole, as in a graph that
``torch.export`` traces. An export takes several times as long, most of it for parameters and for
the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch.autograd import forward_ad
from torch.overrides import TorchFunctionMode

from graphflops.capture.fake import nested_tensors
from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.quantization import run_quantized
from graphflops.capture.fake.torch_function_overrides import TorchFunctionOverrides
from graphflops.capture.record.module_stack import ModuleStack
from graphflops.capture.record.tape import Tape
from graphflops.capture.record.vmap_instances import instances_mapped
from graphflops.capture.torch_internals.count_flags import COUNT_FLAGS, model_running, need_autograd
from graphflops.capture.torch_internals.dispatch import (
    DisableTorchFunction,
    SchemaCheckMode,
    TorchDispatchMode,
    is_any_autocast_enabled,
    num_function_modes,
    set_pre_dispatch_mode,
    unset_pre_dispatch_mode,
)
from graphflops.capture.torch_internals.fake_mode import NonStrictTorchFunctionHandler
from graphflops.capture.torch_internals.jagged import NestedTensor
from graphflops.capture.torch_internals.operators import (
    DispatchKey,
    DispatchKeySet,
    HigherOrderOperator,
    OpOverload,
    has_kernel_for_key,
)
from graphflops.runtime.interruption import SIGNALS


class HigherOrderError(Exception):
    """A higher-order operator was called, whose graph only an export shows."""


class ForwardTape(Tape, SchemaCheckMode):
    """Recorder of the calls of a forward pass with the modules that make them.

    torch has three kinds of modes before autograd. This is one of the kind that no code of torch
    looks for.

    Args:
        module_stack: Stack of the modules that run.
        values: Tracker of the fake tensors.
        exporting: True if the model is told that it is exported: it does not branch on values
            then, and unknown sizes may be compared and be indices.
    """

    def __init__(self, module_stack: ModuleStack, values: ValueTracker, *, exporting: bool) -> None:
        Tape.__init__(self, values)
        TorchDispatchMode.__init__(self, _dispatch_key=DispatchKey.PreDispatch)  # type: ignore[no-untyped-call]  # torch's gap
        self._module_stack, self._exporting = module_stack, exporting
        self._torch_functions = _TorchFunctionLog(values.function_overrides)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record the operators called in the block."""
        with (
            model_running(exporting=self._exporting),
            self._torch_functions,
            self,
        ):
            yield

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload) or func.namespace == "prim":
            return func(*args, **kwargs)
        if NestedTensor in types:
            # The operators on its values come here.
            need_autograd()
            with self._recording_inner_calls():
                return nested_tensors.dispatch_jagged(func, types, args, kwargs)
        if (keys := _autocast_keys(func, args)) is not None:
            # The autocast kernel casts, and calls the operator again, which comes here.
            with self._recording_inner_calls():
                return func.redispatch(keys, *args, **kwargs)
        if func in _DATA_DEPENDENT:
            with self._recording_inner_calls():
                return func.decompose(*args, **kwargs)
        if forward_ad._current_level >= 0:
            # Autograd calls the operators on tangents with it.
            with _BelowAutograd(self.record):
                return func(*args, **kwargs)
        return self.record(func, args, kwargs)

    def record(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator and record the call."""
        is_below = COUNT_FLAGS.below_autograd
        execution = self.templates.run(func, args, kwargs, _execute, is_below_autograd=is_below)
        out = execution.invocation.result
        if execution.results or func._schema.is_mutable:
            trip_count, torch_function = instances_mapped(out), self._torch_functions.last
            call_site = self._module_stack.current_call_site()
            call = self.make_call(
                execution, call_site, trip_count=trip_count, torch_function=torch_function
            )
            self.add(call, execution)
        SIGNALS.deliver()
        return out

    @contextmanager
    def _recording_inner_calls(self) -> Iterator[None]:
        """Record the operators that an operator calls in the block."""
        set_pre_dispatch_mode(self)  # type: ignore[no-untyped-call]  # torch's gap
        try:
            yield
        finally:
            unset_pre_dispatch_mode(None, schema_check=True)  # type: ignore[no-untyped-call]  # likewise


def _execute(func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
    if func.namespace == "quantized":
        return run_quantized(func, args, kwargs)
    return func(*args, **kwargs)


class _BelowAutograd(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Mode that lets a function run the operators that autograd calls."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's gap
        self._run = run

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self._run(func, args, kwargs or {})


def _autocast_keys(func: Any, args: Any) -> DispatchKeySet | None:
    """Return the key of the autocast kernel that comes before an operator, if one does."""
    if not is_any_autocast_enabled():
        return None
    devices = {tensor.device.type for tensor in tensors_in(args)}
    for device in devices & _AUTOCAST_KEYS.keys():
        if torch.is_autocast_enabled(device) and _has_kernel(func.name(), _AUTOCAST_KEYS[device]):
            return DispatchKeySet(getattr(DispatchKey, _AUTOCAST_KEYS[device]))
    return None


_DATA_DEPENDENT = {torch.ops.aten.ctc_loss.Tensor, torch.ops.aten.ctc_loss.IntList}
"""Composites with data-dependent sizes inside: their parts are recorded."""
_AUTOCAST_KEYS = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


@cache
def _has_kernel(name: str, key: str) -> bool:
    return has_kernel_for_key(name, key)


class _Function(NamedTuple):
    """Properties of a torch function.

    Attributes:
        label: Kind and name.
        is_builtin: True if it is written in C++, so that it calls no other torch function, and
            takes no symbols.
    """

    label: str
    is_builtin: bool


@cache
def _about(func: Any) -> _Function:
    kind, name = type(func).__name__, func.__name__
    takes_symbols = func is torch.tensor or name == "__getitem__"
    return _Function(f"{kind}.{name}", kind in _BUILTIN_KINDS and not takes_symbols)


_BUILTIN_KINDS = {
    *("builtin_function_or_method", "method_descriptor", "wrapper_descriptor"),
    "method-wrapper",
}


class _TorchFunctionLog(TorchFunctionMode):
    """Log of the torch function called last: one operator has several.

    It also runs the functions of numbers that accept symbols: each mode costs every function a
    look.

    Args:
        overrides: Overrides of the tracker, which is the next mode for what a function calls.

    Attributes:
        last: Kind and name of the function.
    """

    def __init__(self, overrides: TorchFunctionOverrides) -> None:
        super().__init__()
        self.last = ""
        self._numbers, self._overrides = NonStrictTorchFunctionHandler(), overrides

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if isinstance(func, HigherOrderOperator):
            raise HigherOrderError(func.__name__)
        self.last, is_builtin = _about(func)
        if is_builtin and not types and num_function_modes() == 1:
            with DisableTorchFunction():  # of the one mode below, which are the overrides
                return self._overrides.call(func, args, kwargs or {})
        return self._numbers.__torch_function__(func, types, args, kwargs)
