"""Progress of a batch on stderr: done, failed by class, rate, time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeRemainingColumn,
)

from graphflops.render.escape import one_line

_MINUTE = 60


class BatchProgress:
    """Progress of a batch, live where stderr is a terminal.

    Attributes:
        failures: Number of items that failed or are incomplete, by class.
    """

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self._ok = 0
        self._kept = 0
        self._start = time.monotonic()
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[facts]}", markup=False),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("loading PyTorch ...", total=None, facts="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def warn(self, message: str) -> None:
        """Print a warning."""
        self._progress.console.print(f"graphflops: {one_line(message)}", markup=False)

    def begin(self, *, total: int, done: int) -> None:
        """Begin to count.

        Args:
            total: Number of items.
            done: Number of them that have a record.
        """
        self._kept = done
        self._start = time.monotonic()
        self._progress.update(
            self._task, description="counting", total=total, completed=done, facts=""
        )

    def add(self, record: Mapping[str, Any]) -> None:
        """Show a record that was written."""
        if record["failure"] is None:
            self._ok += 1
        else:
            self.failures[record["failure"]["class"]] += 1
        self._progress.update(self._task, advance=1, facts=f"{self._failed()}, {self._rate()}")

    def conclude(self) -> None:
        """Print what came of the batch."""
        total = self._ok + self.failures.total()
        kept = f"{self._kept:,} were done before; " if self._kept else ""
        typer.echo(
            f"{kept}{total:,} items: {self._ok:,} ok, {self._failed()}; {self._rate()}", err=True
        )

    def _failed(self) -> str:
        classes = ", ".join(f"{name} {count:,}" for name, count in self.failures.most_common())
        return f"{self.failures.total():,} failed" + (f" ({classes})" if classes else "")

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._start, 1e-3)
        return f"{_MINUTE * (self._ok + self.failures.total()) / seconds:.0f} a minute"
