"""One call in a process of its own, forked from a server that has the imports."""

from __future__ import annotations

import math
import multiprocessing
import resource
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as PoolTimeoutError  # pebble raises this one
from typing import Any

from graphflops.batch.executor import Limits, Outcome
from graphflops.batch.failures import LostProcessError, TimeLimitError, lost_process
from graphflops.errors import BatchError

PRELOAD = "graphflops.batch.preload"
"""Module that the server imports before it forks."""
_ATTEMPTS = 2
_GRACE = 60
"""Seconds after the limit at which a process ends by itself, if nobody is left to end it."""


class Isolation:
    """Calls in processes of their own, with limits on time and memory.

    A process is forked for each call, so that a call finds the imports done and nothing of the
    calls before it.

    Args:
        limits: Limits of each call.
        preload: Modules that the server of the processes imports.

    Raises:
        BatchError: pebble is not installed.
    """

    def __init__(self, limits: Limits, preload: tuple[str, ...] = (PRELOAD,)) -> None:
        try:
            from pebble import concurrent
        except ModuleNotFoundError as error:
            msg = "a batch needs pebble. Run: pip install 'graphflops[batch]'"
            raise BatchError(msg) from error
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([*preload])
        self._limits = limits
        self._fork = concurrent.process(timeout=limits.seconds, context=context)(_limited)
        self._waiting: set[threading.Event] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def call(self, function: Callable[..., Any], *args: Any) -> Outcome | None:
        """Return the outcome of a call; ``None`` if it was stopped.

        Raises:
            BatchError: No process can be started.
        """
        outcome: Outcome | None = None
        for _ in range(_ATTEMPTS):
            outcome = self._attempt(function, args)
            if outcome is None or not isinstance(outcome.error, LostProcessError):
                break
        return outcome

    def stop(self) -> None:
        """Wait for no process any longer, and start no more; those that run end with this one."""
        with self._lock:
            self._stopped = True
            for event in self._waiting:
                event.set()

    def _attempt(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Outcome | None:
        done = threading.Event()
        with self._lock:
            if self._stopped:
                return None
            self._waiting.add(done)
        try:
            # Not cancelled when it is stopped: pebble may set its result all the same, and fail.
            future = self._start(function, args)
            future.add_done_callback(lambda _: done.set())
            done.wait()
        finally:
            with self._lock:
                self._waiting.discard(done)
        return self._outcome(future) if future.done() else None

    def _outcome(self, future: Future[Any]) -> Outcome:
        from pebble import ProcessExpired

        error, seconds = future.exception(), self._limits.seconds
        if error is None:
            return Outcome(value=future.result())
        exit_code = error.exitcode if isinstance(error, ProcessExpired) else None
        # A function's own TimeoutError has no limit among its arguments.
        took_too_long = isinstance(error, PoolTimeoutError) and error.args[1:] == (seconds,)
        if took_too_long or exit_code == -signal.SIGALRM:
            msg = f"no result after {seconds:g} seconds. Raise --timeout."
            return Outcome(error=TimeLimitError(msg))
        is_lost = isinstance(error, ProcessExpired)
        return Outcome(error=lost_process(exit_code) if is_lost else error)

    def _start(self, function: Callable[..., Any], args: tuple[Any, ...]) -> Future[Any]:
        try:
            future: Future[Any] = self._fork(self._limits, function, args)
        except (OSError, EOFError) as error:
            msg = (
                "no process can be started to count in: the server that they are forked from "
                f"ended. See why: python -c 'import {PRELOAD}'"
            )
            raise BatchError(msg) from error
        return future


def _limited(limits: Limits, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """Call a function with limits on this process."""
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    # There is nothing to clean up, and code in C would not let a handler run.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The process that enforces the limit on time may be killed.
    signal.alarm(math.ceil(limits.seconds) + _GRACE)
    return function(*args)
