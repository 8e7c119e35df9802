"""Command that counts a training step: ``train``."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Annotated, Literal

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
    Timings,
    check_finite,
    model_flags,
    parse_assumed_sizes,
)
from graphflops.cli.output import (
    Layout,
    build_module_trees,
    report_text,
    write_timings,
    writes_output,
)


@writes_output
@model_flags
def train(
    *,
    model: Model,
    flags: ModelFlags,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME",
            help="Function from the output to a scalar; default: the model's own, or a sum.",
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Parameters without a gradient; repeatable."),
    ] = None,
    train_only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Freeze all parameters but these; repeatable."),
    ] = None,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Compute layers again instead of keeping them.")
    ] = False,
    evaluating: Annotated[
        bool, typer.Option("--eval", help="Leave the model in eval mode, without dropout.")
    ] = False,
    optimizer: Annotated[
        str | None, typer.Option(help="Count its step too: sgd, momentum, adam or adamw.")
    ] = None,
    gradient_accumulation_steps: Annotated[
        int, typer.Option(min=1, help="Passes before a step of the optimizer.")
    ] = 1,
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimizer.")] = 1,
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
    assume: Assume = None,
    timings: Timings = False,
    layout: Layout,
) -> str:
    """Count a training step: forward, backward by module, recomputation, optimizer."""
    from rich.console import Console

    with Console(stderr=True).status("loading PyTorch ...") as status:
        from graphflops import models
        from graphflops.analysis.utilization import Measurement, peak_flops
        from graphflops.counting.training import count_training
        from graphflops.models import python
        from graphflops.models.prepare_training import TrainingOptions, prepare_training
        from graphflops.runtime.patches import QUIET

        training = TrainingOptions(
            evaluating=evaluating,
            freeze=freeze or (),
            train_only=train_only or (),
            checkpoint=checkpoint,
        )
        status.update(f"building {model} ...")
        start = time.perf_counter()
        with QUIET.holding():
            workload = prepare_training(models.resolve(model, flags.options()), training)
        build_end = time.perf_counter()
        status.update(f"capturing {model} ...")
        on_unknown: Literal["raise", "ignore"] = "raise" if strict else "ignore"
        report = count_training(
            workload.model,
            workload.args,
            workload.kwargs,
            loss=None if loss is None else python.load_attribute(loss),
            optimizer=optimizer,
            gradient_accumulation_steps=gradient_accumulation_steps,
            steps=steps,
            convention=convention,
            on_unknown=on_unknown,
            reuse_layers=reuse_layers,
            assume=parse_assumed_sizes(assume),
        )
        report = replace(report, notes=(*workload.notes, *report.notes))
        if step_time is not None:
            peak = peak_flops(accelerator, report.dtype, devices_file) * accelerators
            measured = Measurement(step_time=step_time, peak_flops=peak, accelerator=accelerator)
            report = replace(report, measured=measured)
    roll_up_seconds = build_module_trees(*report.parts)
    if timings:
        build_seconds = build_end - start
        write_timings({"model build": build_seconds, **report.timings, "roll-up": roll_up_seconds})
    return report_text(report, output_format.value, depth, layout, ops=ops)
