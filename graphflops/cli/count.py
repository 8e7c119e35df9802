"""Commands that count a forward pass: ``count``, ``ops`` and ``explain``."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graphflops.cli.flags import (
    Assume,
    CaptureMethod,
    CompareConventions,
    Convention,
    Depth,
    Format,
    Method,
    Model,
    ModelFlags,
    Ops,
    ReportFormat,
    ReuseLayers,
    Strict,
    Symbolic,
    Timings,
    expand_flag_groups,
    parse_assumed_sizes,
)
from graphflops.cli.output import (
    Layout,
    build_module_trees,
    comparison_text,
    report_text,
    write_timings,
    writes_output,
)

if TYPE_CHECKING:
    from graphflops.reports.report import Report


class CallFormat(StrEnum):
    """Output format of a list of calls."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


class Sort(StrEnum):
    """Sort key of a list of calls, the most expensive first."""

    ORDER = "order"
    FLOPS = "flops"
    MACS = "macs"
    BYTES = "bytes"
    TRANSCENDENTALS = "transcendentals"


@writes_output
@expand_flag_groups
def count(
    *,
    model: Model,
    flags: ModelFlags,
    output_format: ReportFormat = Format.TREE,
    depth: Depth = None,
    ops: Ops = False,
    convention: Convention = "exact",
    compare_conventions: CompareConventions = None,
    symbolic: Symbolic = None,
    strict: Strict = False,
    capture: CaptureMethod = "auto",
    reuse_layers: ReuseLayers = True,
    assume: Assume = None,
    timings: Timings = False,
    layout: Layout,
) -> str:
    """Count one forward pass: by module, with totals and coverage."""
    report = count_by_name(
        model,
        flags,
        convention=convention,
        symbolic=symbolic,
        assume=assume,
        capture=capture,
        reuse_layers=reuse_layers,
        strict=strict,
    )
    roll_up_seconds = build_module_trees(report)
    if compare_conventions is not None:
        comparison = report.compare_conventions(compare_conventions)
        text = comparison_text(comparison, output_format.value, layout)
    elif symbolic is not None and output_format is Format.TREE:
        from graphflops.render.tables import formula_report

        text = formula_report(report, 2 if depth is None else depth, layout.width)
    else:
        text = report_text(report, output_format.value, depth, layout, ops=ops)
    if timings:
        write_timings({**report.timings, "roll-up": roll_up_seconds})
    return text


@writes_output
@expand_flag_groups
def list_ops(
    *,
    model: Model,
    flags: ModelFlags,
    sort: Annotated[
        Sort, typer.Option(help="Most expensive first by this, or call order.")
    ] = Sort.ORDER,
    top: Annotated[int | None, typer.Option(min=1, help="Show only this many calls.")] = None,
    output_format: Annotated[
        CallFormat, typer.Option("--format", help="Shape of the output.")
    ] = CallFormat.TABLE,
    convention: Convention = "exact",
    symbolic: Symbolic = None,
    strict: Strict = False,
    capture: CaptureMethod = "auto",
    reuse_layers: ReuseLayers = True,
    assume: Assume = None,
    layout: Layout,
) -> str:
    """List every operator call: module, operator, shapes, cost, source line."""
    report = count_by_name(
        model,
        flags,
        convention=convention,
        symbolic=symbolic,
        assume=assume,
        capture=capture,
        reuse_layers=reuse_layers,
        strict=strict,
    )
    from graphflops.render import data, tables

    records = report.sorted_records(sort.value, top)
    if output_format is CallFormat.JSON:
        return json.dumps(data.call_dicts(records, report.graph), indent=2)
    if output_format is CallFormat.CSV:
        return data.calls_csv(records)
    style = "github" if output_format is CallFormat.MD else "simple"
    return tables.call_table(records, style, layout.width, layout.columns)


@writes_output
@expand_flag_groups
def explain(
    *,
    model: Model,
    what: Annotated[
        str, typer.Argument(metavar="NODE-or-OP", help="A node's name, a call's number or an op.")
    ],
    flags: ModelFlags,
    convention: Convention = "exact",
    symbolic: Symbolic = None,
    capture: CaptureMethod = "auto",
    reuse_layers: ReuseLayers = True,
    assume: Assume = None,
) -> str:
    """Say why a call costs what it costs: formula, numbers put in, source."""
    report = count_by_name(
        model,
        flags,
        convention=convention,
        symbolic=symbolic,
        assume=assume,
        capture=capture,
        reuse_layers=reuse_layers,
    )
    return "\n\n".join(map(report.explain, report.find(what)))


def count_by_name(
    name: str,
    flags: ModelFlags,
    *,
    convention: str,
    symbolic: str | None,
    assume: list[str] | None,
    capture: Method,
    reuse_layers: bool,
    strict: bool = False,
) -> Report:
    """Build the model of a name and count its forward pass.

    Args:
        name: Name of the model.
        flags: Flags of the model and its inputs.
        convention: Way of counting.
        symbolic: Sizes to keep open, separated by commas.
        assume: Sizes that follow from data, as ``NAME=SIZE``.
        capture: Method of capturing the model.
        reuse_layers: True to trace a repeated layer once.
        strict: True to fail if an operator has no price.
    """
    from rich.console import Console

    import_start = time.perf_counter()
    with Console(stderr=True).status("loading PyTorch ...") as status:
        from graphflops import models
        from graphflops.counting.forward import count as count_model
        from graphflops.runtime.patches import QUIET

        options = flags.options()
        axes = None
        with QUIET.holding():
            models.prepare(name)
            start = time.perf_counter()
            status.update(f"building {name} ...")
            if symbolic is None:
                workload = models.resolve(name, options)
            else:
                workload, axes = models.resolve_symbolic(name, options, symbolic.split(","))
        build_end = time.perf_counter()
        status.update(f"capturing {name} ...")
        on_unknown: Literal["raise", "ignore"] = "raise" if strict else "ignore"
        report = count_model(
            workload.model,
            workload.args,
            workload.kwargs,
            dynamic_shapes=axes,
            convention=convention,
            on_unknown=on_unknown,
            reuse_layers=reuse_layers,
            assume=parse_assumed_sizes(assume),
            capture=capture,
        )
        notes = (*workload.notes, *report.capture.notes)
        return replace(
            report,
            capture=replace(report.capture, notes=notes),
            timings={
                "imports": start - import_start,
                "model build": build_end - start,
                **report.timings,
            },
        )
