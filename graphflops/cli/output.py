"""Where a command's text goes."""

from __future__ import annotations

import sys
from pathlib import Path

import typer


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
