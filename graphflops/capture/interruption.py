"""Exceptions that come from neither the model nor torch: they end a count at once.

A caller's alarm raises in the midst of whatever runs. Taken for a failure of the model, the
count would go on with the next way to capture it, for minutes.
"""

from __future__ import annotations

import dis
import signal
import traceback
from types import CodeType, FrameType, TracebackType
from typing import Any

_LIBRARIES = {"builtins", "torch", "numpy", "sympy", "graphflops", "transformers"}


def raise_interruption(error: BaseException) -> None:
    """Raise an exception again that interrupted a count.

    That is one that a signal handler raised, and one that another thread has thrown into this
    one: nothing that runs here raised it, and no library has its class.

    Args:
        error: What was caught.
    """
    if _is_interruption(error):
        raise error


def _is_interruption(error: BaseException) -> bool:
    handlers = _handlers()
    frames = list(traceback.walk_tb(error.__traceback__))
    if any(frame.f_code in handlers for frame, _ in frames):
        return True
    package = type(error).__module__.partition(".")[0]
    return package not in _LIBRARIES and not _was_raised(error.__traceback__)


def _handlers() -> set[CodeType]:
    """Return the code of the caller's signal handlers."""
    found: set[CodeType] = set()
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        handler = getattr(handler, "func", handler)  # a partial
        call = getattr(type(handler), "__call__", None)  # noqa: B004 - its code is what is asked for
        code = getattr(handler, "__code__", getattr(call, "__code__", None))
        if isinstance(code, CodeType):
            found.add(code)
    return found


def _was_raised(trace: TracebackType | None) -> bool:
    """Return True if the innermost line of a traceback is one that raises."""
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    frame: FrameType = trace.tb_frame
    at = frame.f_code.co_code[trace.tb_lasti]
    return dis.opname[at] in {"RAISE_VARARGS", "RERAISE", "CALL", "CALL_FUNCTION_EX"}
