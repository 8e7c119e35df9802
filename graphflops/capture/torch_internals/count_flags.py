"""Flags of a count in its thread, which the patches of torch and of modules read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from graphflops.capture.torch_internals.dispatch import AutoDispatchBelowAutograd

_PreDispatchStack: Any = torch._ops._ModeStackStateForPreDispatch
THREAD_NOT_COUNTED = (
    "and what that computes would not be counted. Let it use a "
    "concurrent.futures.ThreadPoolExecutor, whose work is counted, or call the parts in turn."
)
"""End of the error message on a forward that starts a thread."""


class NeedsAutogradError(BaseException):
    """Forward that computes derivatives, or calls operators that autograd decomposes.

    Not an ``Exception``, so that no model handles it as an error of its own.
    """


class _CountFlags(threading.local):
    """Flags of the count in a thread.

    Attributes:
        model_runs: True while the model runs, not the count itself.
        exporting: True if ``is_exporting()`` is true for the model.
        on_gpu: True if composite operators choose kernels as on a GPU.
        below_autograd: True if there is no autograd graph that a backward pass could run.
        checkpoint: Function that wraps the function of a checkpoint.
        stack: Mode stack of the PreDispatch key; torch has one for all threads.
        attribute_logs: Logs of the attributes that layers read and write, the outermost first.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set every flag to its default."""
        self.model_runs = self.exporting = self.below_autograd = self.on_gpu = False
        self.checkpoint: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
        self.stack: Any = _PreDispatchStack()
        self.attribute_logs: tuple[Any, ...] = ()


COUNT_FLAGS = _CountFlags()


def need_autograd() -> None:
    """Require that the model does not run below autograd.

    Raises:
        NeedsAutogradError: It does.
    """
    if COUNT_FLAGS.below_autograd:
        raise NeedsAutogradError


@contextmanager
def model_running(*, exporting: bool = False) -> Iterator[None]:
    """Mark a block in which the model runs.

    Args:
        exporting: True to make ``is_exporting()`` true for the model, so that it does not branch
            on values.
    """
    before = COUNT_FLAGS.model_runs, COUNT_FLAGS.exporting
    COUNT_FLAGS.model_runs, COUNT_FLAGS.exporting = True, exporting
    try:
        yield
    finally:
        COUNT_FLAGS.model_runs, COUNT_FLAGS.exporting = before


@contextmanager
def below_autograd() -> Iterator[None]:
    """Run a model in the current gradient mode, without an autograd graph.

    The operators are the same as with the graph, in less time.

    Raises:
        NeedsAutogradError: The model needs the graph.
    """
    before, COUNT_FLAGS.below_autograd = COUNT_FLAGS.below_autograd, True
    try:
        with AutoDispatchBelowAutograd():
            yield
    finally:
        COUNT_FLAGS.below_autograd = before


@contextmanager
def on_gpu(is_on_gpu: bool) -> Iterator[None]:
    """Let composite operators choose kernels as on a GPU, if a model is counted for one."""
    before, COUNT_FLAGS.on_gpu = COUNT_FLAGS.on_gpu, is_on_gpu
    try:
        yield
    finally:
        COUNT_FLAGS.on_gpu = before
