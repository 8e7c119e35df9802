"""Output of the commands: stdout or a file, and the formats of reports."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Protocol, TextIO, TypeAlias

import typer

from graphflops.cli.files import check_writable, write_file
from graphflops.cli.stdout import discard, reserved_stdout
from graphflops.errors import OutputError
from graphflops.render.escape import one_line

if TYPE_CHECKING:
    from graphflops.reports.base import CostReport
    from graphflops.reports.comparison import ConventionComparison

_STDOUT = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
_PROVIDED = {"layout", "width", "output"}
"""Parameters of commands that follow from the flags of the output."""
_CHECK_FAILED = 1
"""Exit status of a command if a check failed."""
_SIGPIPE_STATUS = 128 + 13
"""Exit status that shells report for a process ended by SIGPIPE."""
_PLAIN = str.maketrans("─│┌┐└┘├┤┬┴┼", "-|+++++++++")
_MIN_WIDTH = 40
"""Smallest width that text is fitted to."""
Wide = Annotated[
    bool, typer.Option("--wide", help="Print full lines, however wide the terminal is.")
]
Columns = Annotated[
    str | None,
    typer.Option(metavar="NAMES", help="Columns of the table to show, e.g. module,FLOPs."),
]
TableFormat: TypeAlias = Literal["text", "json", "markdown"]
TableFormatFlag = Annotated[TableFormat, typer.Option("--format", help="Output format.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Write to this file instead of stdout.", readable=False),
]


def set_signature(run: Callable[..., object], parameters: list[inspect.Parameter]) -> None:
    """Set the annotations and the signature of a function, from which typer reads parameters."""
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Shape of printed text.

    Attributes:
        width: Columns to fit lines into; ``None`` for no limit.
        columns: Headers of the columns of tables to show; all if ``None``.
    """

    width: int | None = None
    columns: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Text of a command that checks something.

    Attributes:
        text: The text; nothing is written if it is empty.
        failures: A sentence for each check that failed.
    """

    text: str
    failures: tuple[str, ...] = ()


def writes_output(command: Callable[..., str | Verdict]) -> Callable[..., None]:
    """Write the text that a command returns to stdout or ``--output``.

    Prints of the command itself go to stderr. A command with a parameter ``layout`` gets the
    flags ``--wide`` and ``--columns``, one with a parameter ``width`` the first of them, and one
    with a parameter ``output`` the path of the file. Checks that failed are written to stderr, and
    the exit status is 1.
    """
    parameters = inspect.signature(command, eval_str=True).parameters.values()
    takes_layout = any(p.name == "layout" for p in parameters)
    takes_width = any(p.name == "width" for p in parameters)
    takes_output = any(p.name == "output" for p in parameters)

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
            width = None if wide or output is not None else _width(stdout)
            if takes_width:
                arguments["width"] = width
            if takes_output:
                arguments["output"] = None if str(output) in _STDOUT else output
            if takes_layout:
                selected_columns = None if columns is None else tuple(columns.split(","))
                arguments["layout"] = Layout(width=width, columns=selected_columns)
            result = command(**arguments)
            verdict = result if isinstance(result, Verdict) else Verdict(text=result)
            if verdict.text:
                write(verdict.text.rstrip("\n") + "\n")
        for failure in verdict.failures:
            typer.echo(f"graphflops: {one_line(failure)}", err=True)
        if verdict.failures:
            raise typer.Exit(_CHECK_FAILED)

    output_flags: dict[str, Any] = {"output": (Output, None)}
    if takes_layout:
        output_flags = {"columns": (Columns, None), **output_flags}
    if takes_layout or takes_width:
        output_flags = {"wide": (Wide, False), **output_flags}
    flags = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in output_flags.items()
    ]
    command_parameters = [
        p.replace(kind=p.KEYWORD_ONLY) for p in parameters if p.name not in _PROVIDED
    ]
    set_signature(run, [*command_parameters, *flags])
    return run


def _width(stdout: TextIO | None) -> int | None:
    """Return the columns of the terminal, or of ``COLUMNS`` where that is set."""
    if os.environ.get("COLUMNS", "").isdecimal() or (stdout is not None and stdout.isatty()):
        return max(shutil.get_terminal_size().columns, _MIN_WIDTH)
    return None


def _writer(output: Path | None, stdout: TextIO | None) -> Callable[[str], None]:
    """Return a function that writes a command's text; check its target before the command runs.

    Raises:
        OutputError: The target cannot be written.
    """
    if output is not None and str(output) not in _STDOUT:
        check_writable(output)
        return functools.partial(write_file, output)
    if stdout is None:
        raise OutputError("stdout is closed. Give --output FILE.")
    return functools.partial(_print, stdout)


def _print(stdout: TextIO, text: str) -> None:
    """Print data to stdout, coloured on a terminal."""
    if stdout.isatty():
        from graphflops.render.terminal import colored

        text = colored(text, stdout)
    try:
        stdout.write(_encodable(text, stdout.encoding or "utf-8"))
        stdout.flush()
    except OSError as error:
        discard(stdout)
        if isinstance(error, BrokenPipeError):
            raise typer.Exit(_SIGPIPE_STATUS) from None
        raise OutputError(f"stdout cannot be written: {error.strerror}.") from error


def _encodable(text: str, encoding: str) -> str:
    """Return text that an encoding can represent: table rules in ASCII, others escaped."""
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding)
    return text


def comparison_text(comparison: ConventionComparison, output_format: str, layout: Layout) -> str:
    """Return a comparison of conventions in a format of the command line."""
    if output_format == "json":
        return comparison.to_json()
    if output_format == "csv":
        return comparison.to_csv()
    if output_format == "md":
        return comparison.table("github")
    return comparison.table(width=layout.width)


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
        BadParameter: Columns are selected for a format other than a table.
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


class Tables(Protocol):
    """Report as tables and as data."""

    def table(self, depth: int | None, width: int | None = None) -> str:
        """Return tables as plain text."""

    def to_markdown(self, depth: int | None) -> str:
        """Return tables in Markdown."""

    def to_json(self) -> str:
        """Return the data."""


def table_text(
    report: Tables, output_format: TableFormat, depth: int | None, width: int | None
) -> str:
    """Return tables in a format of the command line."""
    if output_format == "json":
        return report.to_json()
    if output_format == "markdown":
        return report.to_markdown(depth)
    return report.table(depth, width)


def build_module_trees(*reports: CostReport) -> float:
    """Build the module trees of reports, which are lazy, and return the seconds it takes."""
    start = time.perf_counter()
    for report in reports:
        report.root  # noqa: B018 - builds the tree
    return time.perf_counter() - start


def write_timings(timings: Mapping[str, float]) -> None:
    """Write the timings of a count to stderr."""
    for part, seconds in timings.items():
        typer.echo(f"{part:<20} {seconds:7.3f} s", err=True)
