"""Command that tells how much memory a model takes: ``memory``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from graphflops.cli.compared import is_saved, load_or_count
from graphflops.cli.flags import (
    Assume,
    Depth,
    Model,
    ModelFlags,
    ReuseLayers,
    Symbolic,
    expand_flag_groups,
)
from graphflops.cli.output import TableFormat, TableFormatFlag, table_text, writes_output
from graphflops.cli.pass_flags import PassFlags
from graphflops.errors import ModelSpecError

if TYPE_CHECKING:
    from graphflops.reports.memory import MemoryReport

_ALLOCATOR = {
    "allocated": "Allocated in blocks",
    "reserved": "Reserved by the allocator",
    "process": "Process, with its context",
}


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
    fits: Annotated[
        str | None,
        typer.Option(
            metavar="MEMORY",
            help="Tell the largest sizes that fit a device, or 80GB: the batch of a pass, or of a "
            "generation the batch, the prompt and the new tokens.",
        ),
    ] = None,
    allocator: Annotated[
        Literal["cuda"] | None,
        typer.Option(help="Tell what PyTorch's caching allocator reserves for it, too."),
    ] = None,
    context: Annotated[
        int | None,
        typer.Option(min=0, help="With --allocator: bytes that the process takes beside it."),
    ] = None,
    implementation: Annotated[
        Literal["for-loop", "foreach", "fused"] | None,
        typer.Option(help="With --train --optimizer: how its step is computed, as in torch.optim."),
    ] = None,
    symbolic: Symbolic = None,
    assume: Assume = None,
    reuse_layers: ReuseLayers = True,
    depth: Depth = 1,
    output_format: TableFormatFlag = "text",
    width: int | None,
) -> str:
    """Tell how much memory a model takes: the peak, what is alive then, and where it is reached.

    With --fits and without --symbolic, the batch of a forward pass or a training step is open; the
    tables are for the largest one.
    """
    _check(plot, snapshot, allocator, context)
    saved = is_saved(model)
    if fits is not None and symbolic is None and not passes.generate and not saved:
        symbolic = "batch"
    counted = load_or_count(
        model, flags, "exact", symbolic, assume, reuse_layers=reuse_layers, passes=passes
    )
    report = counted.memory
    if implementation is not None:
        report = report.with_implementation(implementation)
    is_open = not isinstance(report.peak, int)
    facts: dict[str, Any] = {"peak_expression": str(report.peak)} if is_open else {}
    if fits is not None:
        facts["largest"] = _largest(report, fits)
        report = counted.subs(**facts["largest"]).memory if is_open else report
    elif is_open and (symbolic or saved) and not (plot or snapshot or allocator):
        return _facts_text(facts, fits, output_format, width)
    if allocator is not None:
        found = report.with_allocator(allocator, context=context or 0)
        facts |= {"allocated": found.allocated, "reserved": found.reserved, "process": found.peak}
    if plot is not None:
        report.plot(plot)
    if snapshot is not None:
        report.snapshot(snapshot)
    return _with_facts(report, facts, fits, output_format, depth, width)


def _check(
    plot: Path | None, snapshot: Path | None, allocator: str | None, context: int | None
) -> None:
    """Refuse, before anything is counted, flags that cannot be followed.

    Raises:
        ModelSpecError: The plot has no known format, or there is a context and no allocator.
        OutputError: A file cannot be written.
    """
    from graphflops.plots.files import check_folder, check_plot

    if plot is not None:
        check_plot(plot)
    if snapshot is not None:
        check_folder(snapshot)
    if context is not None and allocator is None:
        raise ModelSpecError("--context is added to what the allocator reserves: add --allocator.")


def _largest(report: MemoryReport, fits: str) -> dict[str, int]:
    """Return the largest value that fits of each open size; of a report in numbers, of a batch.

    Raises:
        ModelSpecError: No size is open, or not even the smallest fits.
    """
    names = report.open_peak.names if report.open_peak else ()
    return {name: report.largest(name, fits) for name in names or ("B",)}


def _with_facts(  # noqa: PLR0917 - what the output is made of
    report: MemoryReport,
    facts: dict[str, Any],
    fits: str | None,
    output_format: TableFormat,
    depth: int | None,
    width: int | None,
) -> str:
    """Return the tables of a report, with further facts before them."""
    text = table_text(report, output_format, depth, width)
    if not facts:
        return text
    if output_format == "json":
        return json.dumps({**json.loads(text), **facts}, indent=2)
    return f"{_facts_text(facts, fits, output_format, width)}\n\n{text}"


def _facts_text(
    facts: dict[str, Any], fits: str | None, output_format: TableFormat, width: int | None
) -> str:
    if output_format == "json":
        return json.dumps(facts, indent=2)
    from graphflops.render.layout import pairs
    from graphflops.render.units import quantity

    rows = []
    if "peak_expression" in facts:
        rows.append(("Peak in closed form", f"{facts['peak_expression']} bytes"))
    for size, largest in facts.get("largest", {}).items():
        rows.append((f"Largest {size} in {fits}", f"{largest:,}"))
    allocated = ((label, facts.get(name)) for name, label in _ALLOCATOR.items())
    rows += [(label, quantity(nbytes, "B")) for label, nbytes in allocated if nbytes is not None]
    return pairs(rows, "github" if output_format == "markdown" else "simple", width)
