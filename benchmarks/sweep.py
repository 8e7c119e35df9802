"""Sweeps: many cases by name, on the engine of ``graphflops batch``, results kept as they come.

A sweep can be cut short and gone on with, run for some names alone, and leaves one JSON object a
line: where it ran, then what came of each case.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks.failures import reason
from benchmarks.results import rows_of
from graphflops.batch.executor import Limits, Outcome
from graphflops.batch.failures import LostProcessError, TimeLimitError, out_of_memory
from graphflops.batch.local import LocalProcesses

MEMORY_GIB = 8
"""Memory that a worker may write to, with what the server has imported."""
Row = dict[str, Any]


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


def pool(options: argparse.Namespace, preload: str) -> LocalProcesses:
    """Return the engine of `graphflops batch`, with a module that its server imports.

    All processes have one hash seed, so that what models do does not change from run to run.

    Args:
        options: Of :func:`arguments`.
        preload: The module.
    """
    os.environ["PYTHONHASHSEED"] = "0"
    limits = Limits(seconds=options.seconds, memory=MEMORY_GIB << 30)
    return LocalProcesses(options.workers, limits, (preload,))


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Cases to run.

    Attributes:
        job: Function of a module, called in a worker.
        cases: Its arguments for each case, by name.
        results: Where rows are kept: those of cases that are not run anew stay.
        where: Where and with what it runs: the first line of the results.
        facts: What is known of a case beforehand, by its name: part of its row however it ends.
        partial: Whether cases that are not among these have results too.
    """

    job: Callable[..., Row]
    cases: Mapping[str, Sequence[Any]]
    results: Path
    where: Row
    facts: Mapping[str, Row] = field(default_factory=dict)
    partial: bool = False

    def run(self, workers: LocalProcesses, options: argparse.Namespace) -> None:
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
        self, workers: LocalProcesses, names: list[str], options: argparse.Namespace
    ) -> Iterator[Row]:
        """What comes of each case, in the order they are done, until time is up."""
        with _stopped_after(workers, options.minutes):
            outcomes = workers.run(_apply, {name: (self.job, self.cases[name]) for name in names})
            for done, (name, outcome) in enumerate(outcomes, start=1):
                row = {"name": name} | self.facts.get(name, {}) | _result(outcome)
                print(f"{done}/{len(names)} {name}: {row['outcome']}", file=sys.stderr)
                yield row


@contextlib.contextmanager
def _stopped_after(workers: LocalProcesses, minutes: float | None) -> Iterator[None]:
    def stop() -> None:
        print(f"{minutes} minutes are over; --resume goes on", file=sys.stderr)
        workers.stop()

    timer = threading.Timer(60 * minutes, stop) if minutes is not None else None
    if timer is not None:
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def _apply(case: tuple[Callable[..., Row], Sequence[Any]]) -> Row:
    job, arguments = case
    return job(*arguments)


def _result(outcome: Outcome) -> Row:
    """What a worker found, or how it ended."""
    error = outcome.error
    if error is None:
        row: Row = outcome.value
        return row
    if out_of_memory(error):
        return {"outcome": "out of memory", "reason": f"more than {MEMORY_GIB} GiB"}
    if isinstance(error, TimeLimitError | LostProcessError):
        end = "too slow" if isinstance(error, TimeLimitError) else "crashed"
        return {"outcome": end, "reason": str(error)}
    return {"outcome": "failed", "reason": reason(error)}
