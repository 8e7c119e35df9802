"""Executor of a cluster: Dask hands out calls, its workers make each in a process of its own."""

from __future__ import annotations

import contextlib
import functools
import logging
import multiprocessing
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from graphflops.batch.executor import Limits, Outcome, value_of
from graphflops.batch.failures import LostProcessError
from graphflops.batch.isolation import PRELOAD, Isolation
from graphflops.errors import BatchError, GraphFlopsError

T = TypeVar("T")
_PATIENCE = 10
"""Seconds to wait for the scheduler, and for its first worker."""


class DaskCluster:
    """Workers of a Dask cluster.

    A call goes to another worker if its own is lost, as often as the scheduler allows
    (``distributed.scheduler.allowed-failures``).

    Args:
        address: Address of the scheduler, e.g. ``tcp://127.0.0.1:8786``.
        limits: Limits of each call.

    Raises:
        BatchError: Dask is not installed, there is no scheduler, or it has no worker.
    """

    def __init__(self, address: str, limits: Limits) -> None:
        try:
            import distributed
        except ModuleNotFoundError as error:
            msg = "--executor dask needs Dask. Run: pip install 'graphflops[dask]'"
            raise BatchError(msg) from error
        _check_address(address)
        _silence_logs()
        self._address, self._limits = address, limits
        self._stopped = False
        self._distributed: Any = distributed
        try:
            self._client = self._distributed.Client(
                address, timeout=_PATIENCE, set_as_default=False
            )
        except (OSError, ValueError) as error:
            msg = (
                f"no Dask scheduler answers at {address}. Start one with `dask scheduler`, and "
                "give its address."
            )
            raise BatchError(msg) from error
        try:
            self._client.wait_for_workers(1, timeout=_PATIENCE)
        except TimeoutError as error:
            msg = (
                f"the Dask scheduler at {address} has no worker. Start some with `dask worker "
                f"{address}`."
            )
            raise BatchError(msg) from error

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function on a worker.

        Raises:
            BatchError: The worker lacks graphflops, or the cluster is lost.
        """
        value: T = value_of(self._outcome(self._submit(function, *args)))
        return value

    def run(
        self, function: Callable[[T], Any], arguments: Mapping[str, T]
    ) -> Iterator[tuple[str, Outcome]]:
        """Call a function with each argument, and yield key and outcome as they are done.

        Raises:
            BatchError: The scheduler is lost, or its workers cannot count.
        """
        futures = {self._submit(function, value): key for key, value in arguments.items()}
        keys = {future.key: key for future, key in futures.items()}
        done = self._distributed.as_completed(futures, loop=self._client.loop)
        # What nobody refers to is not computed again when the worker that has it is lost.
        futures.clear()
        for future in done:
            if future.cancelled():
                break
            outcome = self._outcome(future)
            future.release()
            yield keys.pop(future.key), outcome
        if keys and not self._stopped:
            raise self._lost()

    def stop(self) -> None:
        """Hand out no more calls, and leave the cluster; calls that run end by themselves."""
        self._stopped = True
        with contextlib.suppress(Exception):
            self._client.close(timeout=1)

    def _submit(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._client.submit(_isolated, self._limits, function, args, pure=False)

    def _outcome(self, future: Any) -> Outcome:
        """Return the outcome of a call; an error of the call itself is part of it.

        Raises:
            BatchError: The cluster is lost, or its workers cannot count.
        """
        try:
            outcome: Outcome = future.result()
        except self._distributed.KilledWorker:
            msg = "the workers that it ran on were lost, one after the other. See their logs."
            return Outcome(error=LostProcessError(msg))
        except CancelledError as error:
            raise self._lost() from error
        except Exception as error:
            msg = (
                f"the workers of {self._address} cannot count: {type(error).__name__}: {error}. "
                "Install this version of 'graphflops[batch]' where they run."
            )
            raise BatchError(msg) from error
        return outcome

    def _lost(self) -> BatchError:
        msg = (
            f"the Dask scheduler at {self._address} is gone. What is done is written: start it "
            "again, and go on with --resume."
        )
        return BatchError(msg)


def _check_address(address: str) -> None:
    """Check the form of an address; a client that cannot connect to it says more than a sentence.

    Raises:
        BatchError: It is no address.
    """
    from distributed import comm

    try:
        comm.resolve_address(address)
        comm.parse_host_port(comm.parse_address(address)[1])
    except (OSError, ValueError) as error:
        msg = f"{address!r} is no address of a Dask scheduler: {error}. Give e.g. tcp://HOST:8786."
        raise BatchError(msg) from error


def _silence_logs() -> None:
    """Let what is lost be told once, in a sentence."""
    for name in [*logging.root.manager.loggerDict]:
        if name.partition(".")[0] in {"distributed", "tornado"}:
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _isolated(limits: Limits, function: Callable[..., Any], args: tuple[Any, ...]) -> Outcome:
    """Call a function in a process of its own, on a worker.

    Raises:
        GraphFlopsError: No process can be started there.
    """
    # A worker is daemonic, so that it ends with its nanny. So are its own processes, in turn.
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # no public way
    outcome = _isolation(limits).call(function, *args)
    if outcome is None:
        raise GraphFlopsError("the worker was stopped.")
    return outcome


@functools.cache
def _isolation(limits: Limits) -> Isolation:
    # A process runs the main module of the one that starts it, which imports Dask.
    return Isolation(limits, ("distributed", PRELOAD))
