"""Commands that ask the graph of a model: its critical path, stages, calls that need not run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from graphflops.cli.compared import load_or_count
from graphflops.cli.flags import Assume, Model, ModelFlags, expand_flag_groups
from graphflops.cli.output import Layout, writes_output
from graphflops.errors import ModelSpecError

if TYPE_CHECKING:
    from graphflops.reports.report import Report
    from graphflops.reports.training import TrainingReport

Weight: TypeAlias = Literal["flops", "bytes"]
By = Annotated[
    Weight, typer.Option("--by", help="Weight of a call: its FLOPs, or bytes read and written.")
]

app = typer.Typer(help="What the graph of a model can answer.", no_args_is_help=True)


@app.command()
@writes_output
@expand_flag_groups
def path(
    *, model: Model, flags: ModelFlags, by: By = "flops", assume: Assume = None, layout: Layout
) -> str:
    """Show the critical path: the most expensive chain of calls that wait for each other."""
    from graphflops.render.graph import path_text

    graph = _report(model, flags, assume).graph
    return path_text(graph.critical_path(by), graph.generations(by), by, layout.width)


@app.command()
@writes_output
@expand_flag_groups
def stages(
    *,
    model: Model,
    flags: ModelFlags,
    count: Annotated[int, typer.Option("-n", "--stages", min=1, help="Number of stages.")] = 4,
    by: By = "flops",
    assume: Assume = None,
    layout: Layout,
) -> str:
    """Cut the calls into stages of equal cost, with what crosses each cut."""
    from graphflops.render.graph import stages_text

    return stages_text(_report(model, flags, assume).graph.stages(count, by), by, layout.width)


@app.command()
@writes_output
@expand_flag_groups
def waste(*, model: Model, flags: ModelFlags, assume: Assume = None, layout: Layout) -> str:
    """Show calls that need not run: computed twice, never used, the same for every input."""
    from graphflops.render.graph import waste_text

    report = _report(model, flags, assume)
    total = report.flops if isinstance(report.flops, int) else 0
    return waste_text(report.graph.waste(), total, layout.width)


def _report(name: str, flags: ModelFlags, assume: list[str] | None) -> Report | TrainingReport:
    """Return the report of a model or a saved file.

    Raises:
        ModelSpecError: It is the report of a generation, which is of many graphs.
    """
    from graphflops.reports.generation import GenerationReport

    report = load_or_count(name, flags, "exact", None, assume, reuse_layers=True)
    if isinstance(report, GenerationReport):
        msg = (
            f"{name} is the report of a generation, which has a graph for each step. Save that of "
            "a forward pass or a training step."
        )
        raise ModelSpecError(msg)
    return report
