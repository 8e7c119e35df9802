"""Patches of torch, Python and their functions under which arbitrary models run on fake tensors.

Each acts in the threads that hold it; other threads are not affected.
"""

from __future__ import annotations

import builtins
import concurrent.futures
import functools
import inspect
import math
import threading
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch.autograd import forward_ad
from torch.distributions import Distribution
from torch.fx.experimental import symbolic_shapes
from torch.fx.graph_module import _WrappedCall
from torch.nested._internal import nested_tensor
from torch.utils import _python_dispatch as dispatch

from graphflops.capture.torch_internals.count_flags import (
    COUNT_FLAGS,
    THREAD_NOT_COUNTED,
    model_running,
    need_autograd,
)
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.capture.torch_internals.operators import DispatchKey, OpOverload
from graphflops.errors import CaptureError
from graphflops.runtime.patches import AttributePatch, Patches, patch_function

_PRE_DISPATCH = DispatchKey.PreDispatch
_include_key = torch._C._dispatch_tls_set_dispatch_key_included
_FLAT = frozenset(
    {FakeTensor, torch.Tensor, int, float, bool, str, type(None)}
    | {torch.dtype, torch.device, torch.layout, torch.memory_format}
)


class _PreDispatchStacks:
    """Mode stacks of the PreDispatch key by thread; torch has one for all threads."""

    def __init__(self, shared: Any, is_held: Callable[[], bool]) -> None:
        self._shared, self._is_held = shared, is_held

    def _stack(self) -> Any:
        return COUNT_FLAGS.stack if self._is_held() else self._shared

    def set(self, index: int, mode: Any) -> None:
        self._stack().set(index, mode)

    def get(self, index: int) -> Any:
        return self._stack().get(index)

    def count(self) -> int:
        depth: int = self._stack().count()
        return depth

    @property
    def _schema_check_mode(self) -> Any:
        return self._stack()._schema_check_mode

    @_schema_check_mode.setter
    def _schema_check_mode(self, mode: Any) -> None:
        self._stack()._schema_check_mode = mode


def _get_dispatch(original: Callable[..., Any], operator: Any, key: DispatchKey) -> Any:
    """Return the function that the dispatcher runs for an operator, at the key of a tape its own.

    torch's takes several looks at the stack of modes, of which a tape is the only one.
    """
    stack = COUNT_FLAGS.stack
    is_on_tape = (
        stack._schema_check_mode is not None
        and key == _PRE_DISPATCH
        and stack.count() == 1
        and not torch._C._dispatch_tls_is_dispatch_key_excluded(DispatchKey.Python)
    )
    return partial(_run_on_tape, stack, operator) if is_on_tape else original(operator, key)


def _run_on_tape(stack: Any, operator: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Hand a call to the tape, which does not see the calls that the operator makes."""
    tape = stack._schema_check_mode
    stack._schema_check_mode = None
    _include_key(_PRE_DISPATCH, False)
    try:
        if not (_is_flat(args) and _is_flat(kwargs.values())):
            # It flattens the arguments for the types of the tensors.
            run: Any = torch._library.utils.handle_dispatch_mode
            return run(tape, operator, *args, **kwargs)
        return tape.__torch_dispatch__(operator, (FakeTensor,), args, kwargs)
    finally:
        if stack.count():
            torch._ops._set_mode_pre_dispatch(tape)  # type: ignore[no-untyped-call]  # torch's gap
        else:
            stack._schema_check_mode = tape
            _include_key(_PRE_DISPATCH, True)


def _is_flat(args: Iterable[Any]) -> bool:
    """Return True for arguments of usual types, and lists of these."""
    for arg in args:
        kind = type(arg)
        if kind not in _FLAT and not (kind is list and _FLAT.issuperset(map(type, arg))):
            return False
    return True


def _enter_mode(_: object, mode: Any) -> Any:
    # Does not set the process-wide flags on modes, by which torch decides what it compiles.
    dispatch._push_mode(mode)
    return mode


def _exit_mode(_: object, mode: Any, *__: object) -> None:
    attributes = vars(mode)
    dispatch._pop_mode(attributes.get("_dispatch_key", attributes.get("_mode_key")))


def _swap_tensors(original: Callable[..., None], old: torch.Tensor, new: torch.Tensor) -> None:
    # Skips the conversion of a module to its present dtype: fake parameters cannot be swapped.
    if (old.dtype, old.device) != (new.dtype, new.device):
        original(old, new)


def _init_distribution(original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    # The validation of parameters would read values, which fake tensors lack.
    original(*args, **{**kwargs, "validate_args": False})


def _checkpoint(original: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a checkpoint with the count's wrapper, without saving the random state."""
    if COUNT_FLAGS.checkpoint is not None:
        function = COUNT_FLAGS.checkpoint(function)
    bound = inspect.signature(original).bind(function, *args, **kwargs)
    bound.arguments["preserve_rng_state"] = False
    return original(*bound.args, **bound.kwargs)


def _non_reentrant_checkpoint() -> str:
    """Return the name of the function that runs checkpoints without reentrant autograd."""
    name = "_checkpoint_without_reentrant_generator"
    # Since torch 2.14 the function of this name wraps the other, which all of torch calls.
    inner = f"{name}_impl"
    return inner if hasattr(torch.utils.checkpoint, inner) else name


def _reentrant_checkpoint(original: Any, is_held: Callable[[], bool]) -> Any:
    """Return a subclass of the autograd function of reentrant checkpoints."""

    class CheckpointFunction(original):  # type: ignore[misc]  # the base is known at run time only
        @classmethod
        def apply(cls, function: Any, preserve: bool, *args: Any) -> Any:
            if not is_held():
                return original.apply(function, preserve, *args)
            wrap = COUNT_FLAGS.checkpoint
            return original.apply(function if wrap is None else wrap(function), False, *args)

    return CheckpointFunction


def _submit(_: object, __: object, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run a function of a thread pool at once, in this thread, so that it is counted."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    try:
        future.set_result(function(*args, **kwargs))
    except Exception as error:  # noqa: BLE001 - raised by ``result()``, as by an executor
        future.set_exception(error)
    return future


def _start_thread(original: Callable[..., None], thread: threading.Thread) -> None:
    target: Any = getattr(thread, "_target", None)
    # asyncio shuts down its pool in a thread, which runs no model code.
    if COUNT_FLAGS.model_runs and getattr(target, "__module__", "") != "asyncio.base_events":
        raise CaptureError(
            f"the forward starts a thread of its own ({thread.name}), {THREAD_NOT_COUNTED}"
        )
    original(thread)


class LiftFlag:
    """Flag by which new tensors are lifted to a device: every fake mode sets it.

    If several modes do, in several threads, the last to end leaves it set.
    """

    def __init__(self) -> None:
        self._original: bool | None = None

    def install(self, _: Patches) -> None:
        """Record the flag."""
        if self._original is None:
            self._original = torch._C._only_lift_cpu_tensors()

    def remove(self) -> None:
        """Restore it."""
        if self._original is not None:
            torch._C._set_only_lift_cpu_tensors(self._original)
        self._original = None


def _is_exporting(original: Callable[[], bool]) -> bool:
    return COUNT_FLAGS.exporting or original()


def _differentiate(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    need_autograd()
    return original(*args, **kwargs)


def _max_or_min(tensor_callable: Any) -> Callable[..., Any]:
    # As in an export, unbacked sizes may be compared.
    def call(original: Any, *args: Any, **kwargs: Any) -> Any:
        if not COUNT_FLAGS.exporting:
            return original(*args, **kwargs)
        callables = {"real_callable": original, "tensor_callable": tensor_callable}
        return _compare()(*args, **callables, **kwargs)

    return call


@functools.cache
def _compare() -> Any:
    with model_running(exporting=False):  # importing a module calls max and min
        from torch._export.non_strict_utils import _tensor_min_max  # imports Dynamo

    return _tensor_min_max


def _power(original: Any, base: Any, exponent: Any) -> Any:
    return base**exponent if COUNT_FLAGS.exporting else original(base, exponent)


def _format(_: object, is_held: Callable[[], bool]) -> Callable[[Any, str], str]:
    def format_number(number: Any, spec: str) -> str:
        # Formats a placeholder: formatted sizes go to logs, and no cost depends on them.
        use_placeholder = spec and is_held()
        return (
            format(number.node.pytype(1), spec)
            if use_placeholder
            else object.__format__(number, spec)
        )

    return format_number


def _nested_dummy(original: Callable[[], torch.Tensor]) -> torch.Tensor:
    # torch creates it once for the process: it must not be a fake tensor.
    with dispatch._disable_current_modes():
        return original()


def _select_conv_backend(
    original: Callable[..., Any], x: torch.Tensor, weight: torch.Tensor, **options: Any
) -> Any:
    # Which kernel computes a convolution is no assumption of its graph: torch asks whether a batch
    # is 16 or more, and the cost is the same.
    env = getattr(getattr(x, "fake_mode", None), "shape_env", None)
    with nullcontext() if env is None else env.suppress_guards():
        return original(x, weight, **options)


def _call_graph_module(_: object, call: Any, module: Any, *args: Any, **kwargs: Any) -> Any:
    # torch's own prints the traceback of an error; the caller gets the error in any case.
    if call.cls_call is not None:
        return call.cls_call(module, *args, **kwargs)
    return super(call.cls, module).__call__(*args, **kwargs)


TORCH_PATCHES = (
    AttributePatch(torch._ops, "_mode_stack_state_for_pre_dispatch", _PreDispatchStacks),
    patch_function(OpOverload, "_get_dispatch", _get_dispatch),
    patch_function(dispatch.TorchDispatchMode, "__enter__", _enter_mode),
    patch_function(dispatch.TorchDispatchMode, "__exit__", _exit_mode),
    patch_function(torch.compiler, "is_compiling", _is_exporting),
    patch_function(torch.compiler, "is_exporting", _is_exporting),
    patch_function(builtins, "max", _max_or_min(torch.maximum)),
    patch_function(builtins, "min", _max_or_min(torch.minimum)),
    patch_function(math, "pow", _power),
    AttributePatch(torch.SymInt, "__format__", _format),
    AttributePatch(torch.SymFloat, "__format__", _format),
    patch_function(torch.autograd, "_engine_run_backward", _differentiate),
    patch_function(forward_ad, "enter_dual_level", _differentiate),
    patch_function(torch.utils, "swap_tensors", _swap_tensors),
    # A record of each symbol in torch's trace log: a stack whose lines torch reads with Inductor.
    patch_function(symbolic_shapes, "trace_structured", lambda *_, **__: None),
    patch_function(torch._C, "_select_conv_backend", _select_conv_backend),
    patch_function(nested_tensor, "_nt_view_dummy", _nested_dummy),
    patch_function(Distribution, "__init__", _init_distribution),
    patch_function(torch.utils.checkpoint, _non_reentrant_checkpoint(), _checkpoint),
    AttributePatch(torch.utils.checkpoint, "CheckpointFunction", _reentrant_checkpoint),
    patch_function(concurrent.futures.ThreadPoolExecutor, "submit", _submit),
    patch_function(threading.Thread, "start", _start_thread),
    patch_function(_WrappedCall, "__call__", _call_graph_module),
)
"""Patches of a counting thread, in the order in which they are installed."""
