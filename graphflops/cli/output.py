"""Where a command's text goes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from graphflops.analysis.reconcile import Reconciliation
    from graphflops.report import Report


def written(found: Reconciliation, output_format: str) -> str:
    """A reconciliation in a format of the command line."""
    if output_format == "json":
        return json.dumps(found.to_dict(), indent=2)
    if output_format == "csv":
        return found.to_csv()
    return found.table("github") if output_format == "md" else found.table()


def rolled_up(*reports: Report) -> float:
    """Build the module trees of reports, which wait to be asked for; the seconds it takes."""
    start = time.perf_counter()
    for report in reports:
        report.root  # noqa: B018 - built by being asked for
    return time.perf_counter() - start


def write_timings(timings: Mapping[str, float]) -> None:
    """Where the time of a count went, on stderr."""
    for part, seconds in timings.items():
        typer.echo(f"{part:<20} {seconds:7.3f} s", err=True)


def write(text: str, output: Path | None) -> None:
    """Write to a file, or to stdout: coloured where somebody reads it."""
    text = text.rstrip("\n")
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")
    elif sys.stdout.isatty():
        from graphflops.render.terminal import print_colored

        print_colored(text)
    else:
        typer.echo(text)
