"""Where a command's text goes."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from graphflops.cli.files import check_writable, write_file
from graphflops.cli.stdout import discard, reserved_stdout
from graphflops.errors import OutputError

if TYPE_CHECKING:
    from graphflops.analysis.compare_conventions import ConventionComparison
    from graphflops.reports.report import Report

_STDOUT = {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}
_NOBODY_READS = 128 + 13
"""Exit status of what SIGPIPE ends, as shells have it."""
_PLAIN = str.maketrans("─│┌┐└┘├┤┬┴┼", "-|+++++++++")
Output = Annotated[
    Path | None, typer.Option(help="Write to this file instead of stdout.", readable=False)
]


def declare(run: Callable[..., object], parameters: list[inspect.Parameter]) -> None:
    """Tell typer the parameters of a command: the annotations, and the signature for the rest."""
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # read by inspect.signature


def writes_output(command: Callable[..., str]) -> Callable[..., None]:
    """Write what a command returns to stdout or ``--output``.

    Nothing that runs in between prints to stdout.
    """

    @functools.wraps(command)
    def run(*, output: Path | None = None, **given: Any) -> None:
        with reserved_stdout() as stdout:
            write = _writer(output, stdout)
            write(command(**given).rstrip("\n") + "\n")

    declared = inspect.signature(command, eval_str=True).parameters.values()
    last = inspect.Parameter(
        "output", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Output
    )
    declare(run, [*(p.replace(kind=p.KEYWORD_ONLY) for p in declared), last])
    return run


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


def written(found: ConventionComparison, output_format: str) -> str:
    """A reconciliation in a format of the command line."""
    if output_format == "json":
        return found.to_json()
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
