"""Command that tells how much memory a model takes: ``memory``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphflops.cli.compared import load_or_count
from graphflops.cli.flags import (
    Assume,
    Depth,
    Model,
    ModelFlags,
    ReuseLayers,
    expand_flag_groups,
)
from graphflops.cli.output import TableFormatFlag, table_text, writes_output
from graphflops.cli.pass_flags import PassFlags


@writes_output
@expand_flag_groups
def memory(
    *,
    model: Model,
    flags: ModelFlags,
    passes: PassFlags,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", readable=False, help="Plot memory over the calls: .svg or .png."
        ),
    ] = None,
    snapshot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.pickle",
            readable=False,
            help="Write a snapshot for PyTorch's memory viewer, pytorch.org/memory_viz.",
        ),
    ] = None,
    assume: Assume = None,
    reuse_layers: ReuseLayers = True,
    depth: Depth = 1,
    output_format: TableFormatFlag = "text",
    width: int | None,
) -> str:
    """Tell how much memory a model takes: the peak, what is alive then, and where it is reached."""
    from graphflops.plots.files import check_folder, check_plot

    if plot is not None:
        check_plot(plot)
    if snapshot is not None:
        check_folder(snapshot)
    report = load_or_count(
        model, flags, "exact", None, assume, reuse_layers=reuse_layers, passes=passes
    ).memory
    if plot is not None:
        report.plot(plot)
    if snapshot is not None:
        report.snapshot(snapshot)
    return table_text(report, output_format, depth, width)
