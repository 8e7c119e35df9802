"""Command that counts the continuation of a prompt: ``generate``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from graphflops.cli.flags import (
    CompareConventions,
    Convention,
    Depth,
    Format,
    Model,
    ModelFlags,
    Ops,
    ReportFormat,
    ReuseLayers,
    Strict,
    expand_flag_groups,
)
from graphflops.cli.output import Layout, comparison_text, report_text, writes_output
from graphflops.cli.pass_flags import GenerationFlags

if TYPE_CHECKING:
    from graphflops.reports.generation import GenerationReport


@writes_output
@expand_flag_groups
def generate(
    *,
    model: Model,
    flags: ModelFlags,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to produce for each prompt.")],
    generation: GenerationFlags,
    output_format: ReportFormat = Format.TREE,
    formula: Annotated[
        bool, typer.Option("--formula", help="Print costs in B, P, N and K instead.")
    ] = False,
    compare_conventions: CompareConventions = None,
    depth: Depth = None,
    ops: Ops = False,
    convention: Convention = "exact",
    strict: Strict = False,
    reuse_layers: ReuseLayers = True,
    layout: Layout,
) -> str:
    """Count the continuation of a prompt: one pass over it, then a step for each token."""
    report = count_generation_by_name(
        model,
        flags,
        generation,
        new_tokens,
        convention=convention,
        reuse_layers=reuse_layers,
        strict=strict,
    )
    if compare_conventions is not None:
        comparison = report.compare_conventions(compare_conventions)
        return comparison_text(comparison, output_format.value, layout)
    if formula:
        return report.formula()
    return report_text(report, output_format.value, depth, layout, ops=ops)


def count_generation_by_name(
    name: str,
    flags: ModelFlags,
    generation: GenerationFlags,
    new_tokens: int,
    *,
    convention: str,
    reuse_layers: bool,
    strict: bool = False,
) -> GenerationReport:
    """Build the model of a name and count the continuation of a prompt.

    Args:
        name: Name of the model.
        flags: Flags of the model and its inputs.
        generation: Flags of the generation.
        new_tokens: Number of tokens to produce for each prompt.
        convention: Way of counting.
        reuse_layers: True to trace a repeated layer once.
        strict: True to fail if an operator has no price.
    """
    from rich.console import Console

    flags = generation.with_prompt(flags)
    with Console(stderr=True).status("loading PyTorch ...") as status:
        from graphflops import models
        from graphflops.counting.generation import count_generation
        from graphflops.runtime.patches import QUIET

        options = replace(flags.options(), generates=True)
        status.update(f"building {name} ...")
        with QUIET.holding():
            workload = models.resolve(name, options)
        status.update(f"capturing {name} ...")
        on_unknown: Literal["raise", "ignore"] = "raise" if strict else "ignore"
        report = count_generation(
            workload.model,
            dict(workload.kwargs),
            max_new_tokens=new_tokens,
            logits_to_keep=generation.logits_to_keep,
            cache=generation.cache.value,
            convention=convention,
            on_unknown=on_unknown,
            reuse_layers=reuse_layers,
        )
    return replace(report, notes=(*workload.notes, *report.notes))
