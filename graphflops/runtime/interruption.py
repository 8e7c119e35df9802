"""Interruptions: what a caller's signal handler, or another thread, raises in the midst of a count.

They end a count at once. Taken for a failure of the model, the count would go on with the next
way to capture it, for minutes.
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


class _Signals:
    """The caller's signal handlers, held back where what they raise would do harm.

    Python calls a handler between any two instructions of the main thread. Where torch asks a
    fake tensor for its device, it would end the process: that C++ function may not raise. And
    at the end of a count, the process would be left changed.
    """

    def __init__(self) -> None:
        self._handlers: dict[int, Any] = {}
        self._waiting: list[int] = []
        self._held_back = False

    def take(self) -> None:
        """Stand before the handlers, if this is the thread that Python runs them in."""
        if not _in_main_thread():
            return
        for number in _NUMBERS:
            handler = signal.getsignal(number)
            if callable(handler):
                self._handlers[number] = handler
                signal.signal(number, self._ring)

    def give_back(self) -> None:
        """Put the handlers back, and call those that were held back."""
        if not _in_main_thread():
            return
        for number, handler in self._handlers.items():
            if signal.getsignal(number) == self._ring:  # or the model has set another
                signal.signal(number, handler)
        waiting, self._waiting = self._waiting, []
        handlers, self._handlers = self._handlers, {}
        self._held_back = False
        for number in waiting:
            handlers[number](number, sys._getframe())

    def hold_back(self) -> None:
        """Call no handler until they are given back."""
        self._held_back = self._held_back or _in_main_thread()

    def let_through(self) -> None:
        """Call the handlers that were held back; where an operator ends, in the main thread."""
        if self._waiting and _in_main_thread():
            waiting, self._waiting = self._waiting, []
            for number in waiting:
                self._call(number, sys._getframe())

    def _ring(self, number: int, frame: FrameType | None) -> None:
        # Who sends a signal twice does not want to wait.
        if self._held_back or (number not in self._waiting and _in_an_operator(frame)):
            self._waiting.append(number)
        else:
            self._call(number, frame)

    def _call(self, number: int, frame: FrameType | None) -> None:
        self._handlers[number](number, frame)


SIGNALS = _Signals()


def _in_main_thread() -> bool:
    """Return True in the thread in which Python calls signal handlers."""
    return threading.current_thread() is threading.main_thread()


def _in_an_operator(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__torch_dispatch__":
            return True
        frame = frame.f_back
    return False


def raise_interruption(error: BaseException) -> None:
    """Raise an exception again that interrupted a count.

    That is one that a signal handler raised, and one that another thread has thrown into this
    one: nothing that runs here raised it, and no library has its class. What was cleaned up
    after it may have failed in turn: the interruption is the ``__context__`` of that error.

    Args:
        error: What was caught.
    """
    seen: BaseException | None = error
    while seen is not None:
        if _is_interruption(seen):
            raise seen
        seen = seen.__context__


def _is_interruption(error: BaseException) -> bool:
    if isinstance(error, KeyboardInterrupt):
        return True
    code = _Signals._call.__code__
    if any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__)):
        return True
    package = type(error).__module__.partition(".")[0]
    return package not in _LIBRARIES and not _was_raised(error.__traceback__)


def end_what_is_suspended(error: BaseException, before: BaseException | None) -> None:
    """End the ``with`` statements that an interruption has left open, which would end later.

    One that interrupts ``contextlib`` itself leaves its generator suspended for as long as the
    traceback holds it. Ended then, it would put back what a count has long left: a mode, a flag.

    Args:
        error: What ends the count.
        before: What was being handled when it began, which is none of its.
    """
    seen: BaseException | None = error
    while seen is not None and seen is not before:
        for frame, _ in reversed([*traceback.walk_tb(seen.__traceback__)]):
            held = frame.f_locals.get("self")
            if isinstance(held, contextlib._GeneratorContextManager):
                _close(getattr(held, "gen", None))
        seen = seen.__context__


def _close(generator: Any) -> None:
    # What it cleans up may be gone already.
    with contextlib.suppress(Exception):
        if inspect.getgeneratorstate(generator) == inspect.GEN_SUSPENDED:
            generator.close()


def _was_raised(trace: TracebackType | None) -> bool:
    """Return True if the innermost line of a traceback is one that raises."""
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame: FrameType = trace.tb_frame
    at = frame.f_code.co_code[trace.tb_lasti]
    return dis.opname[at] in {"RAISE_VARARGS", "RERAISE", "CALL", "CALL_FUNCTION_EX"}
