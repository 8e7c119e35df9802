"""Where a command's text goes."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from graphflops.cli.files import check_writable, write_file
from graphflops.cli.stdout import discard, reserved_stdout
from graphflops.errors import OutputError

if TYPE_CHECKING:
    from graphflops.reports.base import CostReport
    from graphflops.reports.comparison import ConventionComparison

_STDOUT = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
_NOBODY_READS = 128 + 13
"""Exit status of what SIGPIPE ends, as shells have it."""
_PLAIN = str.maketrans("─│┌┐└┘├┤┬┴┼", "-|+++++++++")
_NARROWEST = 40
"""Columns below which nothing is fitted any further."""
Wide = Annotated[
    bool, typer.Option("--wide", help="Print full lines, however wide the terminal is.")
]
Columns = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Columns of the table to show, e.g. module,FLOPs."),
]
Output = Annotated[
    Path | None, typer.Option(help="Write to this file instead of stdout.", readable=False)
]


def declare(run: Callable[..., object], parameters: list[inspect.Parameter]) -> None:
    """Tell typer the parameters of a command: the annotations, and the signature for the rest."""
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Shape of printed text.

    Attributes:
        width: Columns to fit lines into; ``None`` lets them be as long as they are.
        columns: Headers of the columns of tables to show; all if ``None``.
    """

    width: int | None = None
    columns: tuple[str, ...] | None = None


def writes_output(command: Callable[..., str]) -> Callable[..., None]:
    """Write what a command returns to stdout or ``--output``.

    Nothing that runs in between prints to stdout. A command that takes a ``layout`` has the
    flags ``--wide`` and ``--columns``.
    """
    declared = inspect.signature(command, eval_str=True).parameters
    lays_out = "layout" in declared

    @functools.wraps(command)
    def run(
        *,
        output: Path | None = None,
        wide: bool = False,
        columns: str | None = None,
        **arguments: Any,
    ) -> None:
        with reserved_stdout() as stdout:
            write = _writer(output, stdout)
            if lays_out:
                width = None if wide or output is not None else _width(stdout)
                shown = None if columns is None else tuple(columns.split(","))
                arguments["layout"] = Layout(width=width, columns=shown)
            write(command(**arguments).rstrip("\n") + "\n")

    added: dict[str, Any] = {"output": (Output, None)}
    if lays_out:
        added = {"wide": (Wide, False), "columns": (Columns, None), **added}
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in added.items()
    ]
    own = [p.replace(kind=p.KEYWORD_ONLY) for p in declared.values() if p.name != "layout"]
    declare(run, [*own, *flags])
    return run


def _width(stdout: TextIO | None) -> int | None:
    """Return the columns of the terminal, or of ``COLUMNS`` where that is set."""
    if os.environ.get("COLUMNS", "").isdecimal() or (stdout is not None and stdout.isatty()):
        return max(shutil.get_terminal_size().columns, _NARROWEST)
    return None


def _writer(output: Path | None, stdout: TextIO | None) -> Callable[[str], None]:
    """The function that writes a command's text, tried as far as can be before there is one.

    Raises:
        OutputError: There is nowhere to write to.
    """
    if output is not None and str(output) not in _STDOUT:
        check_writable(output)
        return functools.partial(write_file, output)
    if stdout is None:
        raise OutputError("stdout is closed. Give --output FILE.")
    return functools.partial(_print, stdout)


def _print(stdout: TextIO, text: str) -> None:
    """Print data to stdout: coloured where somebody reads it."""
    if stdout.isatty():
        from graphflops.render.terminal import colored

        text = colored(text, stdout)
    try:
        stdout.write(_encodable(text, stdout.encoding or "utf-8"))
        stdout.flush()
    except OSError as error:
        discard(stdout)
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(_NOBODY_READS) from None
        raise OutputError(f"stdout cannot be written: {error.strerror}.") from error


def _encodable(text: str, encoding: str) -> str:
    """Text that an encoding has all characters of: rules of tables become plain, others escapes."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding)
    return text


def comparison_text(compared: ConventionComparison, output_format: str, layout: Layout) -> str:
    """Return a comparison of conventions in a format of the command line."""
    if output_format == "json":
        return compared.to_json()
    if output_format == "csv":
        return compared.to_csv()
    if output_format == "md":
        return compared.table("github")
    return compared.table(width=layout.width)


def report_text(
    report: CostReport,
    output_format: str,
    depth: int | None,
    layout: Layout,
    *,
    ops: bool = False,
) -> str:
    """Return a report in a format of the command line.

    Raises:
        BadParameter: Columns are picked of what is no table.
    """
    if layout.columns is not None and output_format != "table":
        raise typer.BadParameter("--columns picks columns of a table. Add --format table.")
    levels = 2 if depth is None else depth
    if output_format == "json":
        return report.to_json(ops=ops)
    if output_format == "csv":
        return report.to_csv(depth)
    if output_format == "md":
        return report.to_markdown(levels)
    if output_format == "table":
        return report.table(levels, layout.width, layout.columns)
    return report.to_text(depth, layout.width)


def rolled_up(*reports: CostReport) -> float:
    """Build the module trees of reports, which wait to be asked for; the seconds it takes."""
    start = time.perf_counter()
    for report in reports:
        report.root  # noqa: B018 - built by being asked for
    return time.perf_counter() - start


def write_timings(timings: Mapping[str, float]) -> None:
    """Where the time of a count went, on stderr."""
    for part, seconds in timings.items():
        typer.echo(f"{part:<20} {seconds:7.3f} s", err=True)
