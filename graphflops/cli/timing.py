"""Command that tells how long a model takes on a device: ``time``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from graphflops.cli.output import TableFormatFlag, table_text, writes_output
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
    fused: Annotated[
        bool,
        typer.Option("--fused", help="Let a compiler fuse operators, instead of one kernel each."),
    ] = False,
    roofline: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Plot operators under the device's roofline: .svg or .png.",
        ),
    ] = None,
    icicle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Plot time by module: .svg or .png."),
    ] = None,
    convention: Convention = "exact",
    symbolic: Symbolic = None,
    assume: Assume = None,
    reuse_layers: ReuseLayers = True,
    depth: Depth = 1,
    output_format: TableFormatFlag = "text",
    width: int | None,
) -> str:
    """Tell how long a model takes on a device: a bound that holds, and a prediction.

    MODEL may be a report that `graphflops.save` wrote, of a training step or a generation too.
    """
    from graphflops.plots.files import check_plot

    for path in (roofline, icicle):
        if path is not None:
            check_plot(path)
    report = load_or_count(
        model, flags, convention, symbolic, assume, reuse_layers=reuse_layers, passes=passes
    ).time(device, dtype=precision, efficiency=efficiency, fused=fused)
    if roofline is not None:
        report.plot_roofline(roofline)
    if icicle is not None:
        report.plot_icicle(icicle)
    return table_text(report, output_format, depth, width)
