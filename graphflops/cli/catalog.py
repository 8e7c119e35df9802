"""Commands that list names: ``models``, ``conventions`` and ``devices``."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from graphflops.cli.flags import DevicesFile
from graphflops.cli.output import Layout, writes_output
from graphflops.errors import ModelSpecError
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


class DeviceFormat(StrEnum):
    """Output format of a list of devices."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"


@writes_output
def devices(
    name: Annotated[
        str | None, typer.Argument(help="Name of a device, to print all of it with its sources.")
    ] = None,
    *,
    devices_file: DevicesFile = None,
    output_format: Annotated[
        DeviceFormat, typer.Option("--format", help="Shape of the output.")
    ] = DeviceFormat.TEXT,
    layout: Layout,
) -> str:
    """List the devices known: peak rates by dtype, bandwidth, memory, source."""
    from graphflops.analysis.devices import device, known_devices
    from graphflops.render import devices as rendering

    if layout.columns is not None and (name is not None or output_format != DeviceFormat.TEXT):
        raise ModelSpecError("--columns picks columns of the table. Leave out NAME and --format.")
    found = None if name is None else device(name, devices_file)
    listed = [*known_devices(devices_file).values()] if found is None else [found]
    if output_format == DeviceFormat.JSON:
        return rendering.to_json(found or listed)
    if output_format == DeviceFormat.CSV:
        return rendering.to_csv(listed)
    if found is not None:
        return rendering.to_full_text(found, layout.width)
    return rendering.to_text(listed, layout.width, layout.columns)
