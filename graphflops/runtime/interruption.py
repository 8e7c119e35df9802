"""Interruptions: exceptions that a signal handler or another thread raises during a count.

They end a count at once. If one were taken for a failure of the model, the count would go on to
the next capture method, for minutes.
"""

from __future__ import annotations

import contextlib
import dis
import inspect
import signal
import sys
import threading
import traceback
from types import FrameType, TracebackType
from typing import Any

_LIBRARIES = {"builtins", "torch", "numpy", "sympy", "graphflops", "transformers"}
_NUMBERS = tuple(signal.valid_signals())


class _SignalHandlers:
    """Signal handlers of the process, deferred where an exception would do harm.

    Python calls a handler between any two instructions of the main thread. An exception while
    torch queries the device of a fake tensor would end the process: that C++ function is
    noexcept. An exception during the cleanup of a count would leave the process changed.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._pending: list[int] = []
        self._deferring = False

    def install(self) -> None:
        """Install a handler before each of them, in the thread in which Python calls handlers."""
        if not _in_main_thread():
            return
        for number in _NUMBERS:
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._on_signal)

    def restore(self) -> None:
        """Restore the handlers, and call those that were deferred."""
        if not _in_main_thread():
            return
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._on_signal:  # unless the model has set another
                signal.signal(number, handler)
        pending, self._pending = self._pending, []
        handlers, self._handlers = self._handlers, {}
        self._deferring = False
        for number in pending:
            handlers[number](number, sys._getframe())

    def defer(self) -> None:
        """Defer all signals until :meth:`restore`."""
        self._deferring = self._deferring or _in_main_thread()

    def deliver(self) -> None:
        """Call the deferred handlers, at the end of an operator, in the main thread."""
        if self._pending and _in_main_thread():
            pending, self._pending = self._pending, []
            for number in pending:
                self._call(number, sys._getframe())

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        # A signal that is sent twice is delivered at once.
        if self._deferring or (number not in self._pending and _in_operator(frame)):
            self._pending.append(number)
        else:
            self._call(number, frame)

    def _call(self, number: int, frame: FrameType | None) -> None:
        self._handlers[number](number, frame)


SIGNALS = _SignalHandlers()


def _in_main_thread() -> bool:
    """Return True in the main thread, in which Python calls signal handlers."""
    return threading.current_thread() is threading.main_thread()


_DISPATCH = {"__torch_dispatch__", "find_torch_dispatch_rule"}
"""Names of the Python functions that the dispatcher of operators calls: modes, and their rules."""


def _in_operator(frame: FrameType | None) -> bool:
    """Return True if a frame runs within the dispatch of an operator."""
    while frame is not None:
        if frame.f_code.co_name in _DISPATCH:
            return True
        frame = frame.f_back
    return False


def raise_interruption(error: BaseException) -> None:
    """Reraise an exception if it, or one in its context, is an interruption of a count.

    An interruption is raised by a signal handler, or injected by another thread: then no
    ``raise`` of this thread raised it, and its class belongs to no library. If the cleanup
    failed in turn, the interruption is the ``__context__`` of that error.

    Args:
        error: Exception that was caught.
    """
    current: BaseException | None = error
    while current is not None:
        if _is_interruption(current):
            raise current
        current = current.__context__


def _is_interruption(error: BaseException) -> bool:
    if isinstance(error, KeyboardInterrupt):
        return True
    code = _SignalHandlers._call.__code__
    if any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__)):
        return True
    package = type(error).__module__.partition(".")[0]
    return package not in _LIBRARIES and not _was_raised(error.__traceback__)


def close_suspended_generators(error: BaseException, handled: BaseException | None) -> None:
    """Close context managers that an interruption has left suspended.

    An interruption within ``contextlib`` itself leaves the generator of a context manager
    suspended for as long as the traceback refers to it. Closed only then, it would restore a
    mode or a flag long after the count.

    Args:
        error: Exception that ends the count.
        handled: Exception that was being handled when the count began; it is left alone.
    """
    current: BaseException | None = error
    while current is not None and current is not handled:
        for frame, _ in reversed([*traceback.walk_tb(current.__traceback__)]):
            manager = frame.f_locals.get("self")
            if isinstance(manager, contextlib._GeneratorContextManager):
                _close(getattr(manager, "gen", None))
        current = current.__context__


def _close(generator: Any) -> None:
    # The objects that it cleans up may be gone already.
    with contextlib.suppress(Exception):
        if inspect.getgeneratorstate(generator) == inspect.GEN_SUSPENDED:
            generator.close()


def _was_raised(trace: TracebackType | None) -> bool:
    """Return True if the innermost instruction of a traceback is one that raises."""
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame: FrameType = trace.tb_frame
    opcode = frame.f_code.co_code[trace.tb_lasti]
    return dis.opname[opcode] in {"RAISE_VARARGS", "RERAISE", "CALL", "CALL_FUNCTION_EX"}
