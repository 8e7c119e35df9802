"""Command that writes what viewers open, and pages for a browser: ``view``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphflops.cli.compared import load_or_count
from graphflops.cli.files import check_writable, write_file
from graphflops.cli.flags import Assume, Convention, Model, ModelFlags, expand_flag_groups
from graphflops.cli.output import writes_output
from graphflops.cli.pass_flags import PassFlags

if TYPE_CHECKING:
    from graphflops.reports.base import CostReport
    from graphflops.viewers.formats import ViewerFormat


@writes_output
@expand_flag_groups
def view(
    *,
    model: Model,
    flags: ModelFlags,
    passes: PassFlags,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Write a page for a browser: .html."),
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="With --html: what is shown beside it, of its kind."),
    ] = None,
    any_workload: Annotated[
        bool, typer.Option("--any-workload", help="With --compare: for other inputs too.")
    ] = False,
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
    """Write a page for a browser, or a file for a viewer: a flame graph, a time line, a graph.

    MODEL may be a report that `graphflops.save` wrote, of a training step or a generation too.
    """
    _check(html, to, compare, any_workload=any_workload)
    if precision is not None and device is None:
        raise typer.BadParameter("--precision is of a device. Add --device, or leave it out.")
    viewer = None if to is None else _viewer(to, device, output)

    def counted(name: str) -> CostReport:
        return load_or_count(
            name, flags, convention, None, assume, reuse_layers=True, passes=passes
        )

    report = counted(model)
    if html is not None:
        report.to_html(
            html,
            device=device,
            dtype=precision,
            compare=None if compare is None else counted(compare),
            workload="any" if any_workload else "same",
        )
    if viewer is None:
        return ""
    return _write_beside(viewer, report, device, precision, output)


def _check(html: Path | None, to: str | None, compare: str | None, *, any_workload: bool) -> None:
    """Refuse, before anything is counted, flags that do not belong together.

    Raises:
        BadParameter: They do not.
        OutputError: The page cannot be written.
    """
    from graphflops.plots.files import check_folder

    if html is None and to is None:
        msg = "say what is to be written: --html FILE, or --to speedscope or another format."
        raise typer.BadParameter(msg)
    if compare is not None and html is None:
        raise typer.BadParameter("--compare is shown on a page. Add --html FILE.")
    if any_workload and compare is None:
        raise typer.BadParameter("--any-workload is of --compare. Add it, or leave it out.")
    if html is not None:
        check_folder(html)


def _viewer(to: str, device: str | None, output: Path | None) -> ViewerFormat:
    from graphflops.viewers.formats import viewer_format

    return viewer_format(to, device, output)


def _write_beside(
    viewer: ViewerFormat,
    report: CostReport,
    device: str | None,
    precision: str | None,
    output: Path | None,
) -> str:
    """Write the files that stand beside a viewer's own, and return the text of that."""
    from graphflops.viewers.formats import beside

    times = None if device is None else report.time(device, dtype=precision)
    texts = dict(viewer.texts(report, times))
    main = texts.pop("")
    others = {beside(output or Path(), name): text for name, text in texts.items()}
    for path in others:
        check_writable(path)
    for path, text in others.items():
        write_file(path, text)
    return main
