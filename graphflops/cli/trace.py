"""Command that annotates a trace of torch.profiler: ``annotate-trace``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from graphflops.cli.flags import Convention, ModelFlags, expand_flag_groups
from graphflops.cli.output import writes_output

if TYPE_CHECKING:
    from graphflops.integrations.trace_annotation import TraceSummary

_UNPRICED_SHOWN = 5


@writes_output
@expand_flag_groups
def annotate_trace(
    *,
    trace: Annotated[
        Path,
        typer.Argument(
            metavar="TRACE",
            help="Chrome trace of torch.profiler with record_shapes=True; it may be a .gz.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(help="Model of the trace, for the modules of its operators; see count."),
    ] = None,
    flags: ModelFlags,
    device: Annotated[
        str | None,
        typer.Option(help="Device of the bounds; default: the GPU of the trace, or a CPU."),
    ] = None,
    convention: Convention = "exact",
) -> str:
    """Put FLOPs, bytes, bound and achieved percentage on the operators and kernels of a trace.

    The annotated trace is written to --output (compressed if it ends in .gz) or stdout, what was
    matched to stderr.
    """
    from rich.console import Console

    with Console(stderr=True).status("loading PyTorch ..."):
        from graphflops.integrations.profiler_trace import read_trace
        from graphflops.integrations.trace_annotation import annotate_trace as annotate

    events = read_trace(trace)
    records = None
    if model is not None:
        from graphflops.cli.count import count_by_name

        records = count_by_name(
            model,
            flags,
            convention=convention,
            symbolic=None,
            assume=None,
            capture="auto",
            reuse_layers=True,
        ).records
    annotated, summary = annotate(events, device=device, records=records, convention=convention)
    typer.echo(_summary_text(summary), err=True)
    return json.dumps(annotated)


def _summary_text(summary: TraceSummary) -> str:
    from graphflops.render.layout import labelled
    from graphflops.render.timing import seconds_text
    from graphflops.render.units import quantity

    rows = [("Device", summary.device.title)]
    operators = f"{summary.priced:,} of {summary.operators:,} have costs"
    if summary.unpriced:
        names = list(summary.unpriced.items())
        shown = ", ".join(f"{name} x {number}" for name, number in names[:_UNPRICED_SHOWN])
        rest = len(names) - _UNPRICED_SHOWN
        operators += f"; without: {shown}" + (f" and {rest} more" if rest > 0 else "")
    rows.append(("Operators", operators))
    if summary.kernels:
        rows.append(
            ("Kernels", f"{summary.matched_kernels:,} of {summary.kernels:,} have their operator's")
        )
    if summary.model_share is not None:
        rows.append(("Model", f"{summary.model_share:.1%} of its MACs are in the trace"))
    rows.append(("FLOPs", f"{quantity(summary.flops, 'FLOPs')}, {quantity(summary.macs, 'MACs')}"))
    rows.append(("Bytes", quantity(summary.nbytes, "B")))
    measured = seconds_text(summary.seconds)
    times = f"{seconds_text(summary.bound)}, measured {measured}"
    if summary.seconds:
        times += f": {summary.bound / summary.seconds:.1%} achieved"
    rows.append(("Bound", times))
    return labelled(rows)
