"""The thread that counts: what it sees of the process, and what it leaves of it.

Models run eagerly under fake tensors. That takes flags, exchanged functions and modes, most of
which torch keeps once for the whole process; other threads run and train models meanwhile.
"""

from __future__ import annotations

import builtins
import concurrent.futures
import functools
import inspect
import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
import torch.utils.checkpoint
from torch._dynamo import trace_rules
from torch._dynamo.variables.torch import TorchInGraphFunctionVariable
from torch._export.non_strict_utils import _tensor_min_max
from torch.autograd import forward_ad
from torch.distributions import Distribution
from torch.nested._internal import nested_tensor
from torch.utils import _python_dispatch as dispatch

from graphflops.capture.fake.class_attributes import CLASS_ATTRIBUTES
from graphflops.capture.fake.constant_propagation import THREAD_NOT_COUNTED
from graphflops.capture.torch_internals.dispatch import AutoDispatchBelowAutograd
from graphflops.capture.torch_internals.random_numbers import GENERATORS, OwnGenerators, RandomState
from graphflops.capture.torch_internals.thread_state import ThreadState
from graphflops.capture.transformers_compat import RegisteredClasses
from graphflops.errors import CaptureError
from graphflops.runtime import patches
from graphflops.runtime.interruption import SIGNALS, close_suspended_generators
from graphflops.runtime.patches import (
    AttributePatch,
    NoGarbageCollection,
    Patches,
    hold_counts,
    patch_function,
)
from graphflops.runtime.versions import translate_version_errors

_P = ParamSpec("_P")
_R = TypeVar("_R")


_Stack: Any = torch._ops._ModeStackStateForPreDispatch
_largest_or_smallest: Any = _tensor_min_max


class NeedsAutogradError(BaseException):
    """A forward computes derivatives, or on tensors that autograd takes apart.

    No model is to take it for a failure of what it does.
    """


class _Told(threading.local):
    """What a count tells the changes below, for its thread.

    Attributes:
        model_runs: Whether it is a model that runs, not the count.
        exporting: Whether the model is told that it is exported.
        below_autograd: Whether there is no autograd graph that a backward pass could run.
        checkpoint: From a function that a checkpoint is to run to the one that it runs.
        stack: Modes that see operators before autograd does.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Tell nothing."""
        self.model_runs = self.exporting = self.below_autograd = False
        self.checkpoint: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
        self.stack: Any = _Stack()


TOLD = _Told()


class _PreDispatchStacks:
    """Stacks of modes above autograd: torch has one for all threads."""

    def __init__(self, shared: Any, held: Callable[[], bool]) -> None:
        self._shared, self._held = shared, held

    def _stack(self) -> Any:
        return TOLD.stack if self._held() else self._shared

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
    held = vars(mode)
    dispatch._pop_mode(held.get("_dispatch_key", held.get("_mode_key")))


def _convert(original: Callable[..., None], old: torch.Tensor, new: torch.Tensor) -> None:
    # Converting a module to what it is already: fake parameters cannot be exchanged.
    if (old.dtype, old.device) != (new.dtype, new.device):
        original(old, new)


def _distribution(original: Callable[..., None], *args: Any, **kwargs: Any) -> None:
    # Checks of parameters read values that are not there.
    original(*args, **{**kwargs, "validate_args": False})


def _checkpointed(original: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
    """Run a checkpoint's function as the count wants it, the random state left alone."""
    if TOLD.checkpoint is not None:
        function = TOLD.checkpoint(function)
    given = inspect.signature(original).bind(function, *args, **kwargs)
    given.arguments["preserve_rng_state"] = False
    return original(*given.args, **given.kwargs)


def _without_reentrant() -> str:
    """Return the name of what runs checkpoints without reentrant autograd."""
    name = "_checkpoint_without_reentrant_generator"
    # Since torch 2.14 the one of this name is a door to the other, which all of torch calls.
    inner = f"{name}_impl"
    return inner if hasattr(torch.utils.checkpoint, inner) else name


def _reentrant(original: Any, held: Callable[[], bool]) -> Any:
    """Make what stands for the autograd function of reentrant checkpoints."""

    class CheckpointFunction(original):  # type: ignore[misc]  # made where its base is known
        @classmethod
        def apply(cls, function: Any, preserve: bool, *args: Any) -> Any:
            if not held():
                return original.apply(function, preserve, *args)
            wanted = TOLD.checkpoint
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
    if TOLD.model_runs and getattr(target, "__module__", "") != "asyncio.base_events":
        raise CaptureError(
            f"the forward starts a thread of its own ({thread.name}), {THREAD_NOT_COUNTED}"
        )
    original(thread)


class _DeviceOfNewTensors:
    """A flag of torch's that every fake mode raises, of which only one at a time puts it back."""

    def __init__(self) -> None:
        self._before: bool | None = None

    def install(self, _: Patches) -> None:
        if self._before is None:
            self._before = torch._C._only_lift_cpu_tensors()

    def remove(self) -> None:
        if self._before is not None:
            torch._C._set_only_lift_cpu_tensors(self._before)
        self._before = None


class _DynamoTables:
    """The tables in which Dynamo looks functions up, of what torch has when they are made.

    Made before a count, they have torch's own functions and none of those that stand in for
    them. A process group that is started lets them be made again.
    """

    def install(self, _: Patches) -> None:
        TorchInGraphFunctionVariable._get_handlers()
        trace_rules.get_torch_obj_rule_map()

    def remove(self) -> None:
        pass


patches.is_traced_by_dynamo = torch.compiler.is_dynamo_compiling


def _is_exporting(original: Callable[[], bool]) -> bool:
    return TOLD.exporting or original()


def need_autograd() -> None:
    """Note that what comes next is not to be run below autograd.

    Raises:
        NeedsAutogradError: It is.
    """
    if TOLD.below_autograd:
        raise NeedsAutogradError


def _differentiate(original: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    need_autograd()
    return original(*args, **kwargs)


def _extreme(tensor_callable: Any) -> Callable[..., Any]:
    # As in an export, sizes that nobody knows may be compared.
    def call(original: Any, *args: Any, **kwargs: Any) -> Any:
        if not TOLD.exporting:
            return original(*args, **kwargs)
        own = {"real_callable": original, "tensor_callable": tensor_callable}
        return _largest_or_smallest(*args, **own, **kwargs)

    return call


def _power(original: Any, base: Any, exponent: Any) -> Any:
    return base**exponent if TOLD.exporting else original(base, exponent)


def _formatting(_: object, held: Callable[[], bool]) -> Callable[[Any, str], str]:
    def text(number: Any, spec: str) -> str:
        # A log's: no cost follows from what stands in it.
        is_written = spec and held()
        return (
            format(number.node.pytype(1), spec) if is_written else object.__format__(number, spec)
        )

    return text


def _nested_dummy(original: Callable[[], torch.Tensor]) -> torch.Tensor:
    # torch makes it once for the process: not of fake tensors.
    with dispatch._disable_current_modes():
        return original()


COUNTING = Patches(
    _DynamoTables(),
    NoGarbageCollection(),
    _DeviceOfNewTensors(),
    OwnGenerators(),
    RegisteredClasses(),
    CLASS_ATTRIBUTES,
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
"""What a thread that counts sees of the process."""


def in_counting_thread(function: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let a function count in the thread that calls it, and leave thread and process as found.

    Not a ``with`` statement: its end could be interrupted as everything else can.
    """

    @functools.wraps(function)
    def count(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        if COUNTING.is_held():
            return function(*args, **kwargs)
        before, handled = (ThreadState.now(), RandomState(), hold_counts()), sys.exc_info()[1]
        try:
            SIGNALS.install()
            with translate_version_errors():
                COUNTING.hold()
            return function(*args, **kwargs)
        except BaseException as error:
            SIGNALS.defer()
            close_suspended_generators(error, handled)
            raise
        finally:
            try:
                _leave(*before)
            except BaseException:
                _leave(*before)
                raise

    return count


def _leave(thread: ThreadState, numbers: RandomState, holds: dict[Patches, int]) -> None:
    """Put everything back; may be called again when it was interrupted."""
    SIGNALS.defer()
    thread.restore()
    for held, number in holds.items():
        held.release(number)
    numbers.restore()
    TOLD.begin()
    GENERATORS.begin()
    SIGNALS.restore()


@contextmanager
def model_running(*, exporting: bool = False) -> Iterator[None]:
    """Mark a block in which the model runs.

    Args:
        exporting: Whether it is told that it is exported: it does not choose its way by values.
    """
    before = TOLD.model_runs, TOLD.exporting
    TOLD.model_runs, TOLD.exporting = True, exporting
    try:
        yield
    finally:
        TOLD.model_runs, TOLD.exporting = before


@contextmanager
def below_autograd() -> Iterator[None]:
    """Run a model with the gradient mode as it stands, without the graph of a backward pass.

    That takes less time than with the graph, and the same operators.

    Raises:
        NeedsAutogradError: The model cannot be run so.
    """
    before, TOLD.below_autograd = TOLD.below_autograd, True
    try:
        with AutoDispatchBelowAutograd():
            yield
    finally:
        TOLD.below_autograd = before
