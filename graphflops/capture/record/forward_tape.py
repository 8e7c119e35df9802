"""A forward pass as calls: the model runs eagerly under fake tensors, and a tape is written.

It is written above autograd and above what composite operators are made of, so that
``aten::linear`` and ``aten::scaled_dot_product_attention`` stay whole, as in a graph that
``torch.export`` traces; which takes several times as long, most of it for parameters and for
the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch._C import DispatchKey, DispatchKeySet
from torch._export.non_strict_utils import _NonStrictTorchFunctionHandler
from torch._ops import HigherOrderOperator, _set_mode_pre_dispatch, unset_mode_pre_dispatch
from torch._subclasses.schema_check_mode import SchemaCheckMode
from torch.autograd import forward_ad
from torch.nested._internal.nested_tensor import NestedTensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from graphflops.capture.counting_thread import model_running, need_autograd
from graphflops.capture.fake import nested
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.quantized import run_quantized
from graphflops.capture.record.invocation import Invocation
from graphflops.capture.record.module_stack import ModuleStack
from graphflops.capture.record.op_calls import instances_mapped
from graphflops.capture.record.tape import Tape
from graphflops.runtime.interruption import SIGNALS


class HigherOrderError(Exception):
    """An operator that holds a graph: what is in it only an export shows."""


class ForwardTape(Tape, SchemaCheckMode):
    """Records the calls of a forward pass with the modules that make them.

    torch lets modes of three kinds see operators before autograd does. This is one of the kind
    that nothing in torch looks for.

    Args:
        running: Follows which module runs.
        exporting: Whether the model is told that it is exported: it does not choose its way by
            values then, and sizes that nobody knows may be compared and be indices.
    """

    def __init__(self, running: ModuleStack, *, exporting: bool) -> None:
        Tape.__init__(self)
        TorchDispatchMode.__init__(self, _dispatch_key=DispatchKey.PreDispatch)  # type: ignore[no-untyped-call]  # torch's gap
        self._running, self._exporting = running, exporting
        self._callers = _Callers()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record what is called until the block ends."""
        with (
            model_running(exporting=self._exporting),
            _NonStrictTorchFunctionHandler(),
            self._callers,
            self,
        ):
            yield

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, torch._ops.OpOverload) or func.namespace == "prim":
            return func(*args, **kwargs)
        if NestedTensor in types:
            # It comes apart in operators on its values: these come here.
            need_autograd()
            with self._seeing():
                return nested.on_parts(func, types, args, kwargs)
        if (keys := _casting(func, args)) is not None:
            # It casts, and calls itself again: that comes here.
            with self._seeing():
                return func.redispatch(keys, *args, **kwargs)
        if func in _BY_VALUES:
            with self._seeing():
                return func.decompose(*args, **kwargs)
        if forward_ad._current_level >= 0:
            # Tangents are computed along with it, which autograd calls.
            with _BelowAutograd(self.record):
                return func(*args, **kwargs)
        return self.record(func, args, kwargs)

    def record(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Any:
        """Run an operator and record the call."""
        # Before it runs: an operator may change the shape of what it is given.
        bound = self.bound(func, args, kwargs)
        if func.namespace == "quantized":
            out = run_quantized(func, args, kwargs)
        else:
            out = func(*args, **kwargs)
        if tensors_in(out) or func._schema.is_mutable:
            ran = Invocation(func, args, kwargs, out)
            trip_count, caller = instances_mapped(out), self._callers.last
            owner = self._running.current()
            call = self.described(ran, bound, owner, trip_count=trip_count, torch_function=caller)
            self.add(call, ran)
        SIGNALS.deliver()
        return out

    @contextmanager
    def _seeing(self) -> Iterator[None]:
        """See operators that one calls which is being looked at."""
        _set_mode_pre_dispatch(self)  # type: ignore[no-untyped-call]  # torch's gap
        try:
            yield
        finally:
            unset_mode_pre_dispatch(None, schema_check=True)  # type: ignore[no-untyped-call]  # likewise


class _BelowAutograd(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Lets a function run the operators that autograd calls."""

    def __init__(self, run: Callable[..., Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch's gap
        self._run = run

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return self._run(func, args, kwargs or {})


def _casting(func: Any, args: Any) -> DispatchKeySet | None:
    """Return the key of the autocast kernel that comes before an operator, if one does."""
    if not torch._C._is_any_autocast_enabled():
        return None
    devices = {tensor.device.type for tensor in tensors_in(args)}
    for device in devices & _AUTOCAST.keys():
        if torch.is_autocast_enabled(device) and _casts(func.name(), _AUTOCAST[device]):
            return DispatchKeySet(getattr(DispatchKey, _AUTOCAST[device]))
    return None


_BY_VALUES = {torch.ops.aten.ctc_loss.Tensor, torch.ops.aten.ctc_loss.IntList}
"""Composites with parts whose sizes follow from values: written apart."""
_AUTOCAST = {"cpu": "AutocastCPU", "cuda": "AutocastCUDA"}


@cache
def _casts(name: str, key: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, key)


class _Callers(TorchFunctionMode):
    """Notes which function of torch was called last: one operator has several.

    Attributes:
        last: Its kind and name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.last = ""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Any = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if isinstance(func, HigherOrderOperator):
            raise HigherOrderError(func.__name__)
        self.last = f"{type(func).__name__}.{func.__name__}"
        return func(*args, **(kwargs or {}))
