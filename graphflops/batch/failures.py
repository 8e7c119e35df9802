"""Classes of failures: why an item of a batch has no result, or none that is complete."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from graphflops.errors import ForwardError, InputError, ModelNameError, ModelSpecError
from graphflops.render.escape import one_line


class FailureClass(StrEnum):
    """Class of a failure."""

    NAME = "name"
    BUILD = "build"
    INPUTS = "inputs"
    CAPTURE = "capture"
    UNSUPPORTED = "unsupported operators"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    CRASH = "crash"


class Stage(StrEnum):
    """Part of the work in which an item fails."""

    BUILD = "build"
    COUNT = "count"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Failure of an item.

    Attributes:
        failure_class: Its class.
        message: What went wrong and what to do, on one line; equal in every run.
    """

    failure_class: FailureClass
    message: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"class": self.failure_class.value, "message": self.message}


class TimeLimitError(Exception):
    """Item that took longer than its limit."""


class LostProcessError(Exception):
    """Process that ended before its item was done."""


_LIMITS = {
    TimeLimitError: FailureClass.TIMEOUT,
    LostProcessError: FailureClass.CRASH,
}
_NAMED = {
    ModelNameError: FailureClass.NAME,
    InputError: FailureClass.INPUTS,
    ForwardError: FailureClass.INPUTS,
}
_ADDRESS = re.compile(r"\b0x[0-9a-f]{6,}\b")
_MAX_MESSAGE = 1000
"""Characters of a message: some quote whole configs."""


def failure_of(error: BaseException, stage: Stage) -> Failure:
    """Return the failure that an exception stands for.

    Args:
        error: The exception.
        stage: Part of the work that raised it.

    Example:
        >>> failure_of(InputError("--seq-len 9 is too long."), Stage.BUILD).failure_class.value
        'inputs'
    """
    return Failure(failure_class=_classify(error, stage), message=_message(error))


def lost_process(exit_code: int | None) -> LostProcessError:
    """Return the error of a process that ended before its item was done.

    Args:
        exit_code: Its exit status, negative for a signal.
    """
    if exit_code is None or exit_code >= 0:
        how = "ended" if exit_code is None else f"ended with exit status {exit_code}"
    else:
        how = f"was killed by {signal.Signals(-exit_code).name}"
        if exit_code == -signal.SIGKILL:
            how += ", as the system does when memory runs out"
    return LostProcessError(f"the process {how}, twice. Count the model by itself to see why.")


def out_of_memory(error: BaseException) -> bool:
    """Return True if an exception follows from an allocation that was refused."""
    current: BaseException | None = error
    seen: set[int] = set()
    while current is not None and id(current) not in seen:
        # torch has no class for it: its allocator of the CPU raises a RuntimeError.
        if isinstance(current, MemoryError) or "DefaultCPUAllocator" in str(current):
            return True
        seen.add(id(current))
        current = current.__cause__ or current.__context__
    return False


def _classify(error: BaseException, stage: Stage) -> FailureClass:
    for kind, limit in _LIMITS.items():
        if isinstance(error, kind):
            return limit
    if out_of_memory(error):
        return FailureClass.MEMORY
    for named, failure_class in _NAMED.items():
        if isinstance(error, named):
            return failure_class
    if stage is Stage.BUILD:
        return FailureClass.BUILD
    # What was asked does not suit the model: a dtype that the device lacks, a prompt.
    return FailureClass.INPUTS if isinstance(error, ModelSpecError) else FailureClass.CAPTURE


def _message(error: BaseException) -> str:
    text = one_line(str(error)) or type(error).__name__
    if type(error).__module__.partition(".")[0] != "graphflops":
        text = f"{type(error).__name__}: {text}"
    # Where an object lies differs from run to run.
    text = _ADDRESS.sub("0x...", text)
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]} ..."
