"""Flags of a count for its thread: what the patches of torch go by."""

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
"""Rest of the sentence on a forward that computes in a thread of its own."""


class NeedsAutogradError(BaseException):
    """A forward computes derivatives, or on tensors that autograd takes apart.

    Not an ``Exception``: no model is to take it for a failure of its own.
    """


class _CountFlags(threading.local):
    """Flags of the count in a thread.

    Attributes:
        model_runs: True while the model runs, not the count itself.
        exporting: True if the model is told that it is exported.
        below_autograd: True if there is no autograd graph that a backward pass could run.
        checkpoint: Function from a checkpoint's function to the one that runs in its place.
        stack: Modes of the PreDispatch key: torch has one stack for all threads.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Set every flag to its default."""
        self.model_runs = self.exporting = self.below_autograd = False
        self.checkpoint: Callable[[Callable[..., Any]], Callable[..., Any]] | None = None
        self.stack: Any = _PreDispatchStack()


COUNT_FLAGS = _CountFlags()


def need_autograd() -> None:
    """Require that what comes next does not run below autograd.

    Raises:
        NeedsAutogradError: It would.
    """
    if COUNT_FLAGS.below_autograd:
        raise NeedsAutogradError


@contextmanager
def model_running(*, exporting: bool = False) -> Iterator[None]:
    """Mark a block in which the model runs.

    Args:
        exporting: True if the model is told that it is exported: it does not branch on values.
    """
    before = COUNT_FLAGS.model_runs, COUNT_FLAGS.exporting
    COUNT_FLAGS.model_runs, COUNT_FLAGS.exporting = True, exporting
    try:
        yield
    finally:
        COUNT_FLAGS.model_runs, COUNT_FLAGS.exporting = before


@contextmanager
def below_autograd() -> Iterator[None]:
    """Run a model with the gradient mode as it stands, without the graph of a backward pass.

    That takes less time than with the graph, and the operators are the same.

    Raises:
        NeedsAutogradError: The model cannot be run so.
    """
    before, COUNT_FLAGS.below_autograd = COUNT_FLAGS.below_autograd, True
    try:
        with AutoDispatchBelowAutograd():
            yield
    finally:
        COUNT_FLAGS.below_autograd = before
