"""Commands that compare: ``diff`` two models, ``check`` a model against a budget."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from graphflops.cli.compared import CheckFormat, is_saved, load_or_count, result_text
from graphflops.cli.flags import (
    Assume,
    Convention,
    ModelFlags,
    ReuseLayers,
    Symbolic,
    expand_flag_groups,
)
from graphflops.cli.output import Verdict, writes_output

_FORMS = (
    "A model as count takes it, a report that graphflops.save wrote, or REVISION:FILE.py:NAME "
    "of a git repository."
)
ResultFormat = Annotated[
    CheckFormat,
    typer.Option(
        "--format", help="Shape of the output; github: Markdown for the summary of a job."
    ),
]


@writes_output
@expand_flag_groups
def diff(
    *,
    before: Annotated[str, typer.Argument(metavar="A", help=_FORMS)],
    after: Annotated[str, typer.Argument(metavar="B", help="The same, to compare with A.")],
    flags: ModelFlags,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="THRESHOLD",
            help="Exit with 1 if a figure grows by more: 'flops>+0.5%', 'params>1.5M'; repeatable.",
        ),
    ] = None,
    any_workload: Annotated[
        bool, typer.Option("--any-workload", help="Compare costs for other inputs too.")
    ] = False,
    output_format: ResultFormat = CheckFormat.TEXT,
    convention: Convention = "exact",
    symbolic: Symbolic = None,
    reuse_layers: ReuseLayers = True,
    assume: Assume = None,
    width: int | None,
) -> Verdict:
    """Compare the costs of two models: totals, modules, operators and calls that differ."""
    from graphflops.analysis.limits import parse_threshold

    thresholds = [parse_threshold(text) for text in fail_on or ()]
    if is_saved(before) and is_saved(after):
        _forbid_model_flags(flags)
    first, second = (
        load_or_count(name, flags, convention, symbolic, assume, reuse_layers=reuse_layers)
        for name in (before, after)
    )
    result = first.diff(second, workload="any" if any_workload else "same")
    # Classes have one name before and after.
    result = replace(result, models=(before, after))
    failures = (threshold.failure(result.total) for threshold in thresholds)
    return Verdict(
        text=result_text(result, output_format, width),
        failures=tuple(failure for failure in failures if failure is not None),
    )


@writes_output
@expand_flag_groups
def check(
    *,
    model: Annotated[str, typer.Argument(metavar="MODEL", help=_FORMS)],
    flags: ModelFlags,
    budget: Annotated[
        Path, typer.Option(metavar="FILE.toml", help="Limits by model and module.", readable=False)
    ],
    output_format: ResultFormat = CheckFormat.TEXT,
    convention: Convention = "exact",
    symbolic: Symbolic = None,
    reuse_layers: ReuseLayers = True,
    assume: Assume = None,
    width: int | None,
) -> Verdict:
    """Check the costs of a model against a budget."""
    from graphflops.analysis.budgets import read_budgets
    from graphflops.render.units import exact
    from graphflops.reports.budget import check as check_budget

    read_budgets(budget)  # fails before the model is built
    if is_saved(model):
        _forbid_model_flags(flags)
    report = load_or_count(model, flags, convention, symbolic, assume, reuse_layers=reuse_layers)
    result = check_budget(report, budget, model)
    failures = (
        f"{limit.figure} of {limit.path or 'the model'} is {exact(limit.actual)}, "
        f"{exact(-limit.margin)} over its limit of {exact(limit.limit)}."
        for limit in result.exceeded
    )
    return Verdict(text=result_text(result, output_format, width), failures=tuple(failures))


def _forbid_model_flags(flags: ModelFlags) -> None:
    """Raise if a flag of a model is given for saved reports alone."""
    flags.options().forbid(
        "a saved report",
        *("batch_size", "seq_len", "image_size", "audio_seconds", "dtype"),
        *("overrides", "inputs", "revision", "trust_remote_code"),
    )
