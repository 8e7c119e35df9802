"""Commands that list names: ``models`` and ``conventions``."""

from __future__ import annotations

from typing import Annotated

import typer

from graphflops.cli.output import writes_output
from graphflops.render.escape import one_line, visible


@writes_output
def models(
    pattern: Annotated[
        str, typer.Argument(help="A part of a name, or a glob such as 'timm:vit_*'.")
    ] = "*",
) -> str:
    """List the model names that match: hf: types, timm: and torchvision: models."""
    from rich.console import Console
    from tabulate import tabulate

    with Console(stderr=True).status("loading PyTorch ..."):
        from graphflops.models import search
        from graphflops.runtime.patches import QUIET

        with QUIET.holding():
            matches, errors = search(pattern)
    for message in errors:
        typer.echo(f"graphflops: {one_line(message)}", err=True)
    return tabulate([[*map(visible, row)] for row in matches.items()], tablefmt="plain")


@writes_output
def conventions() -> str:
    """List the ways of counting: unit, what each counts and leaves out, source."""
    from tabulate import tabulate

    from graphflops.conventions import describe, names

    descriptions = [(name, describe(name)) for name in names()]
    rows = [(name, c.unit, c.counts, c.omits, c.source) for name, c in descriptions]
    headers = ["convention", "a FLOP is", "counts", "leaves out", "source"]
    widths = [None, 22, 30, 30, 26]
    return tabulate(rows, headers, tablefmt="simple_grid", maxcolwidths=widths)
