"""Sweeps: many cases by name, each in a worker with limits, results kept as they come.

A sweep can be cut short and gone on with, run for some names alone, and leaves one JSON object a
line: where it ran, then what came of each case.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, as_completed
from concurrent.futures import TimeoutError as Late  # a class of its own until Python 3.11
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from pebble import ProcessExpired, ProcessPool

from benchmarks.failures import reason
from benchmarks.results import rows_of

MEMORY_GIB = 8
"""Memory that a worker may write to, with what the server has imported."""
Row = dict[str, Any]


def limit_memory() -> None:
    """Let allocations fail beyond the limit, in this process."""
    size = MEMORY_GIB << 30
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def arguments(description: str | None, *, seconds: float = 300) -> argparse.ArgumentParser:
    """Flags that all sweeps have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("names", nargs="*", help="only these; the others' results are kept")
    parser.add_argument("--resume", action="store_true", help="keep results, try what has none")
    parser.add_argument("--minutes", type=float, help="stop after so long; --resume goes on")
    parser.add_argument(
        "--seconds", type=float, default=seconds, help=f"for each (default: {seconds:.0f})"
    )
    parser.add_argument("--workers", type=int, default=2, help="at a time (default: 2)")
    parser.add_argument("--limit", type=int, help="only so many")
    parser.add_argument(
        "--render-only", action="store_true", help="write the page from the last results"
    )
    return parser


def pool(workers: int, preload: str) -> ProcessPool:
    """Workers, forked from a server that has imported a module and has no threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([preload])
    return ProcessPool(workers, 1, limit_memory, context=context)


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Cases to run.

    Attributes:
        job: Function of a module, called in a worker.
        cases: Its arguments for each case, by name.
        results: Where rows are kept: those of cases that are not run anew stay.
        where: Where and with what it runs: the first line of the results.
        partial: Whether cases that are not among these have results too.
    """

    job: Callable[..., Row]
    cases: Mapping[str, Sequence[Any]]
    results: Path
    where: Row
    partial: bool = False

    def run(self, workers: ProcessPool, options: argparse.Namespace) -> None:
        """Write a row for each case as soon as it is there, and stop the workers.

        Args:
            workers: Of :func:`pool`.
            options: Of :func:`arguments`.
        """
        partial = self.partial or options.resume or options.names or options.limit
        rows = rows_of(self.results)[1] if partial and self.results.exists() else []
        done = {row["name"] for row in rows} if options.resume else set()
        names = [name for name in self.cases if name not in done][: options.limit]
        kept = [row for row in rows if row["name"] not in set(names)]
        self.results.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.results.open("w", encoding="utf-8") as file:
                for line in chain([self.where], kept, self._fresh(workers, names, options)):
                    print(json.dumps(line), file=file, flush=True)
        finally:
            workers.stop()

    def _fresh(
        self, workers: ProcessPool, names: list[str], options: argparse.Namespace
    ) -> Iterator[Row]:
        """What comes of each case, in the order they are done, until time is up."""
        futures: dict[Future[Row], str] = {
            workers.schedule(self.job, [*self.cases[name]], timeout=options.seconds): name
            for name in names
        }
        patience = None if options.minutes is None else 60 * options.minutes
        try:
            for done, future in enumerate(as_completed(futures, timeout=patience), start=1):
                row = {"name": futures[future]} | _result(future)
                print(f"{done}/{len(names)} {row['name']}: {row['outcome']}", file=sys.stderr)
                yield row
        except Late:
            print(f"{options.minutes} minutes are over; --resume goes on", file=sys.stderr)


def _result(future: Future[Row]) -> Row:
    """What a worker found, or how it ended."""
    try:
        return future.result()
    except Late as error:
        return {"outcome": "too slow", "reason": f"no answer within {error.args[1]:.0f} seconds"}
    except ProcessExpired as error:
        return {"outcome": "crashed", "reason": f"exit code {error.exitcode}"}
    except MemoryError:
        return {"outcome": "out of memory", "reason": f"more than {MEMORY_GIB} GiB"}
    except BrokenExecutor:  # of the pool itself; --resume goes on
        raise
    except Exception as error:  # noqa: BLE001 - one case takes nothing with it
        return {"outcome": "failed", "reason": reason(error)}
