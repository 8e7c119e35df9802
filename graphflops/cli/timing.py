"""Command that tells how long a model takes on a device: ``time``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from graphflops.cli.compared import load_or_count
from graphflops.cli.flags import (
    Assume,
    Convention,
    Depth,
    Model,
    ModelFlags,
    ReuseLayers,
    Symbolic,
    expand_flag_groups,
)
from graphflops.cli.output import Layout, writes_output
from graphflops.cli.pass_flags import PassFlags


@writes_output
@expand_flag_groups
def time(
    *,
    model: Model,
    flags: ModelFlags,
    passes: PassFlags,
    device: Annotated[str, typer.Option(help="Device, see `graphflops devices`.")] = "h100-sxm",
    precision: Annotated[
        str | None,
        typer.Option(
            help="Dtype on the device, in place of the model's: bfloat16, float8, tf32, ..."
        ),
    ] = None,
    efficiency: Annotated[
        float | None,
        typer.Option(help="Share of the peak rates that kernels reach; default: the family's."),
    ] = None,
    convention: Convention = "exact",
    symbolic: Symbolic = None,
    assume: Assume = None,
    reuse_layers: ReuseLayers = True,
    depth: Depth = 1,
    output_format: Annotated[
        Literal["text", "json", "markdown"], typer.Option("--format", help="Output format.")
    ] = "text",
    layout: Layout,
) -> str:
    """Tell how long a model takes on a device: a bound that holds, and a prediction.

    MODEL may be a report that `graphflops.save` wrote, of a training step or a generation too.
    """
    report = load_or_count(
        model, flags, convention, symbolic, assume, reuse_layers=reuse_layers, passes=passes
    ).time(device, dtype=precision, efficiency=efficiency)
    if output_format == "json":
        return report.to_json()
    if output_format == "markdown":
        return report.to_markdown(depth)
    return report.table(depth, layout.width)
