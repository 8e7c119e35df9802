"""Executors: what runs the functions of a batch, each call in a process with limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from graphflops.batch.failures import LostProcessError, TimeLimitError
from graphflops.errors import BatchError

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one call.

    Attributes:
        seconds: Wall time.
        memory: Bytes that its process may write to, with what it shares with others.
    """

    seconds: float = 300
    memory: int = 8 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Outcome of a call: a value, or the error that took its place.

    Attributes:
        value: What the function returned.
        error: What it raised; :class:`~graphflops.batch.failures.TimeLimitError` or
            :class:`~graphflops.batch.failures.LostProcessError` if its process was ended.
    """

    value: Any = None
    error: BaseException | None = None


def value_of(outcome: Outcome) -> Any:
    """Return the value of a call that everything depends on.

    Raises:
        BatchError: Its process was lost or took too long; other errors are raised as they are.
    """
    error = outcome.error
    if isinstance(error, TimeLimitError | LostProcessError):
        raise BatchError(f"the names of models cannot be listed: {error}") from error
    if error is not None:
        raise error
    return outcome.value


class Executor(Protocol):
    """Runs calls of functions of a module, each in a process of its own.

    A call whose process is lost is made once more.
    """

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function once, where items are counted.

        Raises:
            BatchError: The executor has no worker, or it cannot be reached.
        """

    def run(
        self, function: Callable[[T], Any], arguments: Mapping[str, T]
    ) -> Iterator[tuple[str, Outcome]]:
        """Call a function with each argument, and yield key and outcome as they are done.

        Raises:
            BatchError: The executor is lost.
        """

    def stop(self) -> None:
        """End the calls that run, and make no more; :meth:`run` ends too. Any thread may call."""
