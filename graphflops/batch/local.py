"""Executor of this machine: some processes at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, TypeVar

from graphflops.batch.executor import Limits, Outcome, value_of
from graphflops.batch.isolation import PRELOAD, Isolation
from graphflops.errors import BatchError

T = TypeVar("T")


class LocalProcesses:
    """Processes of this machine, forked for each call.

    Args:
        workers: Number of processes at a time.
        limits: Limits of each.
        preload: Modules that the server of the processes imports.

    Raises:
        BatchError: pebble is not installed.
    """

    def __init__(self, workers: int, limits: Limits, preload: tuple[str, ...] = (PRELOAD,)) -> None:
        self._workers = workers
        self._isolation = Isolation(limits, preload)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function in a process.

        Raises:
            BatchError: The process was lost or stopped.
        """
        outcome = self._isolation.call(function, *args) or Outcome(error=BatchError("stopped."))
        value: T = value_of(outcome)
        return value

    def run(
        self, function: Callable[[T], Any], arguments: Mapping[str, T]
    ) -> Iterator[tuple[str, Outcome]]:
        """Call a function with each argument, and yield key and outcome as they are done."""
        with ThreadPoolExecutor(self._workers) as threads:
            try:
                keys = {
                    threads.submit(self._isolation.call, function, argument): key
                    for key, argument in arguments.items()
                }
                for future in as_completed(keys):
                    outcome = future.result()
                    if outcome is not None:
                        yield keys[future], outcome
            except BaseException:
                self.stop()
                raise

    def stop(self) -> None:
        """End the calls that run, and make no more."""
        self._isolation.stop()
