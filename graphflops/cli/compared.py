"""Reports that commands compare: of a model, of a saved file, or of a file in a git revision."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from graphflops.cli.count import count_by_name
from graphflops.cli.flags import ModelFlags
from graphflops.cli.generate import count_generation_by_name
from graphflops.cli.pass_flags import PassFlags
from graphflops.cli.train import count_training_by_name
from graphflops.errors import OutputError
from graphflops.render.escape import one_line

if TYPE_CHECKING:
    from graphflops.saving.files import AnyReport

_SUMMARY = "GITHUB_STEP_SUMMARY"


class CheckFormat(StrEnum):
    """Output format of a comparison or a check."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    GITHUB = "github"


class Result(Protocol):
    """Result of a comparison or a check."""

    def to_text(self, width: int | None = None) -> str:
        """Return tables as plain text."""

    def to_markdown(self) -> str:
        """Return tables in Markdown."""

    def to_json(self) -> str:
        """Return the data."""


def load_or_count(
    name: str,
    flags: ModelFlags,
    convention: str,
    symbolic: str | None,
    assume: list[str] | None,
    *,
    reuse_layers: bool,
    passes: PassFlags | None = None,
) -> AnyReport:
    """Return the report of a saved file, or count a pass of a model.

    Args:
        name: File that ``graphflops.save`` wrote, name of a model, or ``REVISION:FILE.py:NAME``.
        flags: Flags of the model and its inputs.
        convention: Way of counting.
        symbolic: Sizes to keep open, separated by commas.
        assume: Sizes that follow from data, as ``NAME=SIZE``.
        reuse_layers: True to trace a repeated layer once.
        passes: Flags of what the model does; by default a forward pass.

    Raises:
        BadParameter: Flags do not belong together.
    """
    passes = passes or PassFlags()
    passes.check(is_saved=is_saved(name), symbolic=symbolic, assume=assume)
    report: AnyReport
    if is_saved(name):
        from graphflops.saving import load

        report = load(name)
    else:
        from graphflops.models.git_revisions import at_revision

        with at_revision(name) as model:
            report = _count(
                model,
                flags,
                passes,
                convention=convention,
                symbolic=symbolic,
                assume=assume,
                reuse_layers=reuse_layers,
            )
    unsupported = ", ".join(f"{op} x {calls}" for op, calls in report.unsupported_ops().items())
    if unsupported:
        msg = (
            f"graphflops: {name}: calls have no price: {unsupported}. Its totals are lower bounds; "
            "a limit of unsupported calls refuses it."
        )
        typer.echo(one_line(msg), err=True)
    return report


def _count(
    model: str,
    flags: ModelFlags,
    passes: PassFlags,
    *,
    convention: str,
    symbolic: str | None,
    assume: list[str] | None,
    reuse_layers: bool,
) -> AnyReport:
    """Count a forward pass, a training step or a generation."""
    if passes.train:
        return count_training_by_name(
            model,
            flags,
            passes,
            convention=convention,
            symbolic=symbolic,
            assume=assume,
            reuse_layers=reuse_layers,
        )
    if passes.new_tokens is not None:
        return count_generation_by_name(
            model,
            flags,
            passes,
            passes.new_tokens,
            convention=convention,
            reuse_layers=reuse_layers,
        )
    return count_by_name(
        model,
        flags,
        convention=convention,
        symbolic=symbolic,
        assume=assume,
        capture="auto",
        reuse_layers=reuse_layers,
    )


def is_saved(name: str) -> bool:
    """Return True if a name is that of a saved report rather than of a model."""
    path = Path(name)
    return path.suffix == ".json" or (path.is_file() and path.suffix not in {".py", ".pt2"})


def result_text(result: Result, output_format: CheckFormat, width: int | None) -> str:
    """Return a result in a format of the command line; Markdown for GitHub may go to a file.

    Raises:
        OutputError: The file of GitHub's cannot be written.
    """
    if output_format is CheckFormat.JSON:
        return result.to_json()
    if output_format is CheckFormat.TEXT:
        return result.to_text(width)
    text = result.to_markdown()
    summary = os.environ.get(_SUMMARY)
    if output_format is CheckFormat.MARKDOWN or not summary:
        return text
    try:
        with Path(summary).open("a", encoding="utf-8") as file:  # steps before this one wrote to it
            file.write(f"{text}\n\n")
    except OSError as error:
        msg = f"${_SUMMARY} names {summary}, which cannot be written: {error.strerror}."
        raise OutputError(f"{msg} Set it to a file, or use --format markdown.") from error
    return ""
