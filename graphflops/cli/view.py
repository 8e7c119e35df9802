"""Command that writes files for viewers: ``view``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphflops.cli.compared import load_or_count
from graphflops.cli.files import check_writable, write_file
from graphflops.cli.flags import Assume, Convention, Model, ModelFlags, expand_flag_groups
from graphflops.cli.output import writes_output
from graphflops.cli.pass_flags import PassFlags


@writes_output
@expand_flag_groups
def view(
    *,
    model: Model,
    flags: ModelFlags,
    passes: PassFlags,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT", help="speedscope, perfetto, model-explorer, dot or graphml."
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(help="Device for times, see `graphflops devices`; perfetto needs one."),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="Dtype on the device, in place of the model's.")
    ] = None,
    convention: Convention = "exact",
    assume: Assume = None,
    output: Path | None,
) -> str:
    """Write a file for a viewer: a flame graph, a predicted time line, the graph of a model.

    MODEL may be a report that `graphflops.save` wrote, of a training step or a generation too.
    """
    from graphflops.viewers.formats import beside, viewer_format

    if to is None:
        raise typer.BadParameter("--to is missing. Add --to speedscope, or another format.")
    if precision is not None and device is None:
        raise typer.BadParameter("--precision is of a device. Add --device, or leave it out.")
    viewer = viewer_format(to, device, output)
    report = load_or_count(model, flags, convention, None, assume, reuse_layers=True, passes=passes)
    times = None if device is None else report.time(device, dtype=precision)
    texts = dict(viewer.texts(report, times))
    main = texts.pop("")
    others = {beside(output or Path(), name): text for name, text in texts.items()}
    for path in others:
        check_writable(path)
    for path, text in others.items():
        write_file(path, text)
    return main
