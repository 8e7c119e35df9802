"""The command that lists what can be counted by its name: ``models``."""

from __future__ import annotations

from typing import Annotated

import typer


def models(
    pattern: Annotated[
        str, typer.Argument(help="A part of a name, or a glob such as 'timm:vit_*'.")
    ] = "*",
) -> None:
    """List the model names that match: hf: types, timm: and torchvision: models."""
    from rich.console import Console
    from tabulate import tabulate

    with Console(stderr=True).status("loading PyTorch ..."):
        from graphflops.models import search
        from graphflops.quiet import quiet

        with quiet():
            found, missing = search(pattern)
    for sentence in missing:
        typer.echo(f"graphflops: {sentence}", err=True)
    typer.echo(tabulate(found.items(), tablefmt="plain"))
