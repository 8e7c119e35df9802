"""Patches of torch, Python and their functions under which arbitrary models run on fake tensors.

Each acts in the threads that hold it; all others see what they always saw.
"""

from __future__ import annotations

import builtins
import concurrent.futures
import inspect
import math
import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.utils.checkpoint
from torch._dynamo import trace_rules
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable
from torch._export.non_strict_utils import _tensor_min_max
from torch.autograd import forward_ad
from torch.distributions import Distribution
from torch.nested._internal import nested_tensor
from torch.utils import _python_dispatch as dispatch

from graphflops.capture.torch_internals.count_flags import (
    COUNT_FLAGS,
    THREAD_NOT_COUNTED,
    need_autograd,
)
from graphflops.errors import CaptureError
from graphflops.runtime.patches import AttributePatch, Patches, patch_function

_largest_or_smallest: Any = _tensor_min_max


class _PreDispatchStacks:
    """Stacks of modes above autograd: torch has one for all threads."""

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


def _enter_mode(_: object, mode: Any) -> Any:
    # Without the flags that torch keeps of modes, for all threads: they decide what is compiled.
    dispatch._push_mode(mode)
    return mode


def _exit_mode(_: object, mode: Any, *__: object) -> None:
    attributes = vars(mode)
    dispatch._pop_mode(attributes.get("_dispatch_key", attributes.get("_mode_key")))


def _convert(original: Callable[..., None], old: torch.Tensor, new: torch.Tensor) -> None:
    # Converting a module to what it is already: fake parameters cannot be exchanged.
    if (old.dtype, old.device) != (new.dtype, new.device):
        original(old, new)


def _distribution(original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    # Checks of parameters read values that are not there.
    original(*args, **{**kwargs, "validate_args": False})


def _checkpointed(original: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a checkpoint's function as the count wants it, the random state left alone."""
    if COUNT_FLAGS.checkpoint is not None:
        function = COUNT_FLAGS.checkpoint(function)
    given = inspect.signature(original).bind(function, *args, **kwargs)
    given.arguments["preserve_rng_state"] = False
    return original(*given.args, **given.kwargs)


def _without_reentrant() -> str:
    """Return the name of what runs checkpoints without reentrant autograd."""
    name = "_checkpoint_without_reentrant_generator"
    # Since torch 2.14 the one of this name is a door to the other, which all of torch calls.
    inner = f"{name}_impl"
    return inner if hasattr(torch.utils.checkpoint, inner) else name


def _reentrant(original: Any, is_held: Callable[[], bool]) -> Any:
    """Make what stands for the autograd function of reentrant checkpoints."""

    class CheckpointFunction(original):  # type: ignore[misc]  # made where its base is known
        @classmethod
        def apply(cls, function: Any, preserve: bool, *args: Any) -> Any:
            if not is_held():
                return original.apply(function, preserve, *args)
            wanted = COUNT_FLAGS.checkpoint
            return original.apply(function if wanted is None else wanted(function), False, *args)

    return CheckpointFunction


def _submit(_: object, __: object, function: Any, /, *args: Any, **kwargs: Any) -> Any:
    """Run at once what a forward hands to other threads: it is counted in this one."""
    future: concurrent.futures.Future[Any] = concurrent.futures.Future()
    try:
        future.set_result(function(*args, **kwargs))
    except Exception as error:  # noqa: BLE001 - as an executor does, for whoever asks for the result
        future.set_exception(error)
    return future


def _start(original: Callable[..., None], thread: threading.Thread) -> None:
    target: Any = getattr(thread, "_target", None)
    # asyncio ends its pool in a thread; that runs nothing of the model's.
    if COUNT_FLAGS.model_runs and getattr(target, "__module__", "") != "asyncio.base_events":
        raise CaptureError(
            f"the forward starts a thread of its own ({thread.name}), {THREAD_NOT_COUNTED}"
        )
    original(thread)


class LiftFlag:
    """Flag by which new tensors are lifted to a device: every fake mode raises it.

    Where several do, the last to end leaves it raised.
    """

    def __init__(self) -> None:
        self._before: bool | None = None

    def install(self, _: Patches) -> None:
        """Note the flag."""
        if self._before is None:
            self._before = torch._C._only_lift_cpu_tensors()

    def remove(self) -> None:
        """Restore it."""
        if self._before is not None:
            torch._C._set_only_lift_cpu_tensors(self._before)
        self._before = None


class DynamoTables:
    """Tables in which Dynamo looks functions up, filled with what torch has at the time.

    Filled before a count, they hold torch's own functions and none of the patches. Starting a
    process group clears them.
    """

    def install(self, _: Patches) -> None:
        """Fill the tables."""
        TorchInGraphFunctionVariable._get_handlers()
        trace_rules.get_torch_obj_rule_map()

    def remove(self) -> None:
        """Leave them as they are."""


def _is_exporting(original: Callable[[], bool]) -> bool:
    return COUNT_FLAGS.exporting or original()


def _differentiate(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    need_autograd()
    return original(*args, **kwargs)


def _extreme(tensor_callable: Any) -> Callable[..., Any]:
    # As in an export, sizes that nobody knows may be compared.
    def call(original: Any, *args: Any, **kwargs: Any) -> Any:
        if not COUNT_FLAGS.exporting:
            return original(*args, **kwargs)
        own = {"real_callable": original, "tensor_callable": tensor_callable}
        return _largest_or_smallest(*args, **own, **kwargs)

    return call


def _power(original: Any, base: Any, exponent: Any) -> Any:
    return base**exponent if COUNT_FLAGS.exporting else original(base, exponent)


def _formatting(_: object, is_held: Callable[[], bool]) -> Callable[[Any, str], str]:
    def text(number: Any, spec: str) -> str:
        # A log's: no cost follows from what stands in it.
        is_written = spec and is_held()
        return (
            format(number.node.pytype(1), spec) if is_written else object.__format__(number, spec)
        )

    return text


def _nested_dummy(original: Callable[[], torch.Tensor]) -> torch.Tensor:
    # torch makes it once for the process: not of fake tensors.
    with dispatch._disable_current_modes():
        return original()


TORCH_PATCHES = (
    AttributePatch(torch._ops, "_mode_stack_state_for_pre_dispatch", _PreDispatchStacks),
    patch_function(dispatch.TorchDispatchMode, "__enter__", _enter_mode),
    patch_function(dispatch.TorchDispatchMode, "__exit__", _exit_mode),
    patch_function(torch.compiler, "is_compiling", _is_exporting),
    patch_function(torch.compiler, "is_exporting", _is_exporting),
    patch_function(builtins, "max", _extreme(torch.maximum)),
    patch_function(builtins, "min", _extreme(torch.minimum)),
    patch_function(math, "pow", _power),
    AttributePatch(torch.SymInt, "__format__", _formatting),
    AttributePatch(torch.SymFloat, "__format__", _formatting),
    patch_function(torch.autograd, "_engine_run_backward", _differentiate),
    patch_function(forward_ad, "enter_dual_level", _differentiate),
    patch_function(torch.utils, "swap_tensors", _convert),
    patch_function(nested_tensor, "_nt_view_dummy", _nested_dummy),
    patch_function(Distribution, "__init__", _distribution),
    patch_function(torch.utils.checkpoint, _without_reentrant(), _checkpointed),
    AttributePatch(torch.utils.checkpoint, "CheckpointFunction", _reentrant),
    patch_function(concurrent.futures.ThreadPoolExecutor, "submit", _submit),
    patch_function(threading.Thread, "start", _start),
)
"""Patches of a counting thread, in the order in which they are installed."""
