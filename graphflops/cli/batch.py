"""Commands of batches: ``batch SPEC`` counts many models, ``batch summary`` shows the results."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import threading
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

import typer
from typer.core import TyperGroup

from graphflops.cli.batch_progress import BatchProgress
from graphflops.cli.output import writes_output
from graphflops.cli.stdout import reserved_stdout
from graphflops.errors import GraphFlopsError
from graphflops.plots.files import check_folder, write_bytes

if TYPE_CHECKING:
    from graphflops.batch.executor import Executor

_FAILED = 1
"""Exit status with ``--strict`` if an item failed."""
_INTERRUPTED = 128
"""Exit status of a batch that a signal stopped, less the number of the signal."""
_RUN = "run"
_GIB = 1 << 30
_LEAST_MEMORY = 2
"""GiB that a process needs for what it shares with others."""
ExecutorName: TypeAlias = Literal["local", "dask"]


class _RunByDefault(TyperGroup):
    """Group whose first argument may be a spec, instead of the name of a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the command before a spec."""
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            args = [_RUN, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_RunByDefault,
    help="Count many models: `batch SPEC --output FILE`, then `batch summary FILE`.",
    no_args_is_help=True,
)


@app.command(_RUN)
def run(
    *,
    spec: Annotated[
        Path, typer.Argument(metavar="SPEC", help="Axes of the batch, in TOML or YAML.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FILE.jsonl", help="Append records to this file."),
    ],
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the records that are there, count the others.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes at a time; default: one for each CPU.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each item.")] = 300,
    memory_limit: Annotated[
        float, typer.Option(min=_LEAST_MEMORY, help="GiB that each process may write to.")
    ] = 8,
    executor: Annotated[
        ExecutorName, typer.Option(help="Processes of this machine, or a Dask cluster.")
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(metavar="URL", help="With --executor dask: address of the scheduler."),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if an item failed or is incomplete.")
    ] = False,
) -> None:
    """Count the models of a spec, each in a process of its own; one record a line."""
    from graphflops.batch import runner
    from graphflops.batch.executor import Limits
    from graphflops.batch.results import ResultsFile
    from graphflops.batch.spec import read_spec

    axes = read_spec(spec)
    limits = Limits(seconds=timeout, memory=int(memory_limit * _GIB))
    # What models print is no result.
    with reserved_stdout(), ResultsFile(output, resume=resume) as results:
        engine = _executor(executor, address, workers or _cpus(), limits)
        stop = _StopOnSignal(engine)
        try:
            with BatchProgress() as progress, stop:
                work = runner.work_list(axes, engine)
                for problem in work.problems:
                    progress.warn(problem)
                progress.begin(total=len(work.items), done=len(results.done & work.items.keys()))
                runner.run(work.items, engine, results, progress.add)
        except GraphFlopsError:
            if stop.number is None:
                raise
        finally:
            engine.stop()
    if stop.number is not None:
        command = shlex.join(sys.argv[1:] + ([] if resume else ["--resume"]))
        typer.echo(
            f"graphflops: stopped. The {len(results.done):,} records in {output} are whole. "
            f"Go on with: graphflops {command}",
            err=True,
        )
        raise typer.Exit(_INTERRUPTED + stop.number)
    progress.conclude()
    if strict and progress.failures:
        raise typer.Exit(_FAILED)


class SummaryFormat(StrEnum):
    """Output format of a summary."""

    TEXT = "text"
    CSV = "csv"
    MD = "md"


@app.command()
@writes_output
def summary(
    *,
    results: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="What `batch` wrote.")],
    output_format: Annotated[
        SummaryFormat, typer.Option("--format", help="Shape of the output; csv has all columns.")
    ] = SummaryFormat.TEXT,
    parquet: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Write all columns as Parquet, too."),
    ] = None,
    width: int | None,
) -> str:
    """Show what was counted, and what failed and why."""
    from graphflops.batch import summary as rendering
    from graphflops.batch import table
    from graphflops.batch.results import read_records

    records = read_records(results)
    if parquet is not None:
        check_folder(parquet)
        write_bytes(parquet, table.parquet(results))
    if output_format is SummaryFormat.CSV:
        return table.csv(records)
    tablefmt = "github" if output_format is SummaryFormat.MD else "simple"
    return rendering.summary(records, tablefmt, width)


def _executor(name: ExecutorName, address: str | None, workers: int, limits: Any) -> Executor:
    if (name == "dask") != (address is not None):
        raise typer.BadParameter("--executor dask and --address go together. Give both.")
    if address is not None:
        from graphflops.batch.dask_cluster import DaskCluster

        return DaskCluster(address, limits)
    from graphflops.batch.isolation import PRELOAD
    from graphflops.batch.local import LocalProcesses

    # A process runs the main module of the one that starts it, which imports the command line.
    return LocalProcesses(workers, limits, ("graphflops.cli", PRELOAD))


def _cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _StopOnSignal:
    """Stops an executor when a signal asks for it, so that no record is torn.

    Attributes:
        number: Number of the signal that came.
    """

    def __init__(self, executor: Executor) -> None:
        self.number: int | None = None
        self._executor = executor
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._handlers[number] = signal.signal(number, self._stop)

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _stop(self, number: int, _: object) -> None:
        self.number = number
        # Not here: a handler runs between any two instructions, also while locks are held.
        threading.Thread(target=self._executor.stop, daemon=True).start()
