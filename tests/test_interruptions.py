"""A count that is interrupted leaves model and process as they were, and ends at once."""

from __future__ import annotations

import builtins
import contextlib
import gc
import logging
import math
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest
import torch
import torch.utils.checkpoint
from torch import nn, overrides
from torch._guards import TracingContext
from torch.distributions import Distribution
from torch.utils import _python_dispatch as dispatch

import graphflops as gf
from graphflops.capture.layer_reuse.recording import Recording
from graphflops.capture.torch_internals.count_flags import COUNT_FLAGS

torch_c: Any = torch._C
function_modes: Any = overrides._get_current_function_mode_stack


class AlarmError(Exception):
    """What a caller's alarm raises."""


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.steps = nn.Sequential(
            nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)
        )
        self.seen: list[torch.Tensor] = []

    def forward(self, x: Any) -> Any:
        self.seen.append(x)
        inner = torch.utils.checkpoint.checkpoint(self.steps, x, use_reentrant=False)
        with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
            self.steps(x)
        return x + inner * random.random()  # noqa: S311 - no secret


def model() -> nn.Module:
    return nn.Sequential(*[Block() for _ in range(3)], nn.BatchNorm1d(8))


def of_process() -> list[Any]:
    """What of process and thread is to be as before."""
    include, exclude = (
        torch._C._dispatch_tls_local_include_set(),
        torch._C._dispatch_tls_local_exclude_set(),
    )
    return [
        *(torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_default_device()),
        *(torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        *(dispatch._get_current_dispatch_mode_stack(), function_modes()),
        torch_c._get_torch_function_state(),
        *(dispatch._is_in_torch_dispatch_mode, torch._C._only_lift_cpu_tensors()),
        *(include.raw_repr(), exclude.raw_repr(), TracingContext.try_get()),
        *(torch.compiler.is_compiling, torch.compiler.is_exporting(), gc.isenabled()),
        *(list(warnings.filters), logging.Logger.handle, logging.getLogger("torch").level),
        *(nn.Module.__call__, nn.Module._call_impl, vars(nn.Module).get("__getattribute__")),
        *(nn.Module.__setattr__, nn.Module.__init__, nn.Module.__getattr__),
        *(nn.modules.module._global_forward_hooks, nn.modules.module._global_forward_pre_hooks),
        *(Distribution.__init__, Distribution._validate_args, torch.utils.swap_tensors),
        torch.utils.checkpoint._checkpoint_without_reentrant_generator,
        *(torch.utils.checkpoint.CheckpointFunction, torch._ops._mode_stack_state_for_pre_dispatch),
        *(builtins.max, builtins.min, math.pow, random.random, torch.manual_seed),
        *(random.getstate(), torch.get_rng_state().tolist(), threading.Thread.start),
        {name: flag for name, flag in vars(COUNT_FLAGS).items() if name != "stack"},
        *(sys.stdout, sys.stderr, [signal.getsignal(n) for n in signal.valid_signals()]),
    ]


def of_model(model: nn.Module) -> list[Any]:
    """What of a model is to be as before."""
    return [
        [(name, id(p), type(p), p._version, id(p.grad)) for name, p in model.named_parameters()],
        [(name, id(b), type(b), b.tolist()) for name, b in model.named_buffers()],
        [
            {name: list(v) if isinstance(v, dict | list) else id(v) for name, v in vars(m).items()}
            for m in model.modules()
        ],
    ]


@contextmanager
def interrupted(
    at: int, error: type[BaseException], among: Callable[[FrameType], Any] = bool
) -> Iterator[list[int]]:
    """Send a signal, whose handler raises, at some call of a function in the block.

    Calls are counted of those functions that ``among`` picks by their frames.

    In a finalizer Python drops what is raised; here it is raised at the end of the block.
    """
    calls = [0]
    dropped: list[Any] = []

    def ring(_: int, __: FrameType | None) -> None:
        sys.settrace(trace)  # what raises below a profiler ends it
        raise error

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and among(frame):
            calls[0] += 1
            if calls[0] == at:
                signal.raise_signal(signal.SIGUSR1)

    def trace(_: FrameType, __: str, ___: object) -> None:
        calls[0] += 1

    before, hook = signal.signal(signal.SIGUSR1, ring), sys.unraisablehook
    sys.unraisablehook = dropped.append
    sys.setprofile(profile)
    try:
        yield calls
    finally:
        sys.settrace(None)
        sys.setprofile(None)
        sys.unraisablehook = hook
        signal.signal(signal.SIGUSR1, before)
    if dropped:
        raise error


def calls_of(count: Any, subject: nn.Module, x: torch.Tensor) -> int:
    """Return a number of calls that every further count makes, give or take a few."""
    with interrupted(-1, AlarmError) as calls:
        count(subject, (x,))
    return calls[0] * 99 // 100


@pytest.mark.parametrize("count", [gf.count, gf.count_training])
@pytest.mark.parametrize("times", [6, pytest.param(125, marks=pytest.mark.slow, id="many")])
def test_interrupted_at_any_call(count: Any, times: int) -> None:
    subject, x = model(), torch.randn(4, 8)
    report = count(subject, (x,))
    total = calls_of(count, subject, x)
    places = random.Random(times)  # noqa: S311 - no secret
    before, process = of_model(subject), of_process()
    raised = 0
    for error in (AlarmError, KeyboardInterrupt):
        for _ in range(times):
            at = places.randrange(1, total)
            try:
                with interrupted(at, error) as calls:
                    count(subject, (x,))
            except error:
                raised += 1
            assert calls[0] <= total * 1.1, f"went on after call {at}"
            gc.collect()
            assert of_model(subject) == before, f"model, call {at}"
            now = of_process()
            assert now == process, f"process, call {at}"
    assert raised == 2 * times
    again = count(subject, (x,))
    assert str(again).split("Captured")[0] == str(report).split("Captured")[0]


def _in_contextlib(frame: FrameType) -> bool:
    return frame.f_code.co_filename == contextlib.__file__


def _of_recording(frame: FrameType) -> bool:
    caller = frame.f_back
    return _in_contextlib(frame) and caller is not None and caller.f_code is Recording.run.__code__


@pytest.mark.parametrize(("among", "places"), [(_in_contextlib, 60), (_of_recording, 1000)])
def test_interrupted_within_with_statements(
    among: Callable[[FrameType], bool], places: int
) -> None:
    # Their generators stay suspended, for as long as a traceback is held.
    subject, x = nn.Sequential(model(), model()), torch.randn(4, 8)
    with interrupted(-1, AlarmError, among) as calls:
        gf.count(subject, (x,))
    process, held = of_process(), []
    for at in range(1, calls[0], max(calls[0] // places, 1)):
        try:
            with interrupted(at, AlarmError, among):
                gf.count(subject, (x,))
        except AlarmError as error:
            held.append(error)
        assert held, f"call {at} of {calls[0]}"
        assert of_process() == process, f"call {at}"
        held.clear()
        gc.collect()
        assert of_process() == process, f"call {at}, its traceback gone"


class Casting(nn.Module):
    """Lets C++ code of torch ask for the device of a fake tensor, where it may not raise."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        with torch.autocast("cpu", torch.bfloat16):
            y: torch.Tensor = self.layer(x)
        return y


@pytest.mark.parametrize("at", range(1, 4))
@pytest.mark.parametrize("count", [gf.count, gf.count_training])
@pytest.mark.parametrize(
    ("function", "argument"), [("__torch_dispatch__", "func"), ("find_torch_dispatch_rule", "op")]
)
def test_a_signal_waits_until_an_operator_has_run(
    count: Any, function: str, argument: str, at: int
) -> None:
    asked = [0]

    def ring(_: int, __: FrameType | None) -> None:
        raise AlarmError

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_name == function:
            asked[0] += frame.f_locals.get(argument) is torch.ops.prim.device.default
            if asked[0] == at:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, ring)
    sys.setprofile(profile)
    try:
        with pytest.raises(AlarmError):
            count(Casting(), (torch.randn(4, 8),))
        assert signal.getsignal(signal.SIGUSR1) is ring
    finally:
        sys.setprofile(None)
        signal.signal(signal.SIGUSR1, before)
