"""Command that counts a training step: ``train``."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graphflops.cli.flags import (
    Assume,
    Convention,
    Depth,
    DevicesFile,
    Format,
    Model,
    ModelFlags,
    Ops,
    ReportFormat,
    ReuseLayers,
    Strict,
    Symbolic,
    Timings,
    check_finite,
    expand_flag_groups,
    parse_assumed_sizes,
)
from graphflops.cli.output import (
    Layout,
    build_module_trees,
    report_text,
    write_timings,
    writes_output,
)
from graphflops.cli.pass_flags import TrainingFlags

if TYPE_CHECKING:
    from graphflops.reports.training import TrainingReport


@writes_output
@expand_flag_groups
def train(
    *,
    model: Model,
    flags: ModelFlags,
    training: TrainingFlags,
    step_time: Annotated[
        float | None,
        typer.Option(
            min=0, help="Measured seconds of a step: prints MFU and HFU.", callback=check_finite
        ),
    ] = None,
    accelerator: Annotated[
        str, typer.Option(help="With --step-time: whose peak rate, e.g. h100-sxm.")
    ] = "h100-sxm",
    devices_file: DevicesFile = None,
    accelerators: Annotated[int, typer.Option(min=1, help="With --step-time: how many.")] = 1,
    output_format: ReportFormat = Format.TREE,
    depth: Depth = None,
    ops: Ops = False,
    convention: Convention = "exact",
    strict: Strict = False,
    reuse_layers: ReuseLayers = True,
    symbolic: Symbolic = None,
    assume: Assume = None,
    timings: Timings = False,
    layout: Layout,
) -> str:
    """Count a training step: forward, backward by module, recomputation, optimizer."""
    report = count_training_by_name(
        model,
        flags,
        training,
        convention=convention,
        symbolic=symbolic,
        assume=assume,
        reuse_layers=reuse_layers,
        strict=strict,
    )
    if step_time is not None:
        from graphflops.analysis.utilization import Measurement, peak_flops

        peak = peak_flops(accelerator, report.dtype, devices_file) * accelerators
        measured = Measurement(step_time=step_time, peak_flops=peak, accelerator=accelerator)
        report = replace(report, measured=measured)
    roll_up_seconds = build_module_trees(*report.parts)
    if timings:
        write_timings({**report.timings, "roll-up": roll_up_seconds})
    if symbolic is not None and output_format is Format.TREE:
        return report.formula()
    return report_text(report, output_format.value, depth, layout, ops=ops)


def count_training_by_name(
    name: str,
    flags: ModelFlags,
    training: TrainingFlags,
    *,
    convention: str,
    symbolic: str | None,
    assume: list[str] | None,
    reuse_layers: bool,
    strict: bool = False,
) -> TrainingReport:
    """Build the model of a name and count a training step.

    Args:
        name: Name of the model.
        flags: Flags of the model and its inputs.
        training: Flags of the step.
        convention: Way of counting.
        symbolic: Sizes to keep open, separated by commas.
        assume: Sizes that follow from data, as ``NAME=SIZE``.
        reuse_layers: True to trace a repeated layer once.
        strict: True to fail if an operator has no price.
    """
    from rich.console import Console

    import_start = time.perf_counter()
    with Console(stderr=True).status("loading PyTorch ...") as status:
        from graphflops import models
        from graphflops.counting.training import count_training
        from graphflops.models import python
        from graphflops.models.prepare_training import prepare_training
        from graphflops.runtime.patches import QUIET

        axes = None
        with QUIET.holding():
            models.prepare(name)
            start = time.perf_counter()
            status.update(f"building {name} ...")
            options = replace(flags.options(), trains=True)
            if symbolic is None:
                workload = models.resolve(name, options)
            else:
                workload, axes = models.resolve_symbolic(name, options, symbolic.split(","))
            workload = prepare_training(workload, training.training_options())
        build_end = time.perf_counter()
        status.update(f"capturing {name} ...")
        on_unknown: Literal["raise", "ignore"] = "raise" if strict else "ignore"
        report = count_training(
            workload.model,
            workload.args,
            workload.kwargs,
            dynamic_shapes=axes,
            loss=None if training.loss is None else python.load_attribute(training.loss),
            optimizer=training.optimizer,
            gradient_accumulation_steps=training.gradient_accumulation_steps,
            steps=training.steps,
            convention=convention,
            on_unknown=on_unknown,
            reuse_layers=reuse_layers,
            assume=parse_assumed_sizes(assume),
        )
    timings = {
        "imports": start - import_start,
        "model build": build_end - start,
        **report.timings,
    }
    return replace(
        report,
        forward=replace(report.forward, timings=timings),
        notes=(*workload.notes, *report.notes),
    )
