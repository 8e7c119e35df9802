"""Command that counts the continuation of a prompt: ``generate``."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Literal

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
    model_flags,
)
from graphflops.cli.output import Layout, comparison_text, report_text, writes_output


class CacheKind(StrEnum):
    """Kind of key-value cache."""

    DYNAMIC = "dynamic"
    STATIC = "static"


@writes_output
@model_flags
def generate(
    *,
    model: Model,
    flags: ModelFlags,
    new_tokens: Annotated[int, typer.Option(min=1, help="Tokens to produce for each prompt.")],
    prompt_len: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the prompt; the same as --seq-len.")
    ] = None,
    cache: Annotated[
        CacheKind, typer.Option(help="Growing with each token, or of its final length at once.")
    ] = CacheKind.DYNAMIC,
    logits_to_keep: Annotated[
        int, typer.Option(min=0, help="Prompt positions to compute logits for; 0: all.")
    ] = 1,
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
    from rich.console import Console

    if prompt_len is not None:
        if flags.seq_len is not None:
            msg = "--prompt-len and --seq-len say the same. Give one of them."
            raise typer.BadParameter(msg)
        flags = replace(flags, seq_len=prompt_len)
    with Console(stderr=True).status("loading PyTorch ...") as status:
        from graphflops import models
        from graphflops.counting.generation import count_generation
        from graphflops.runtime.patches import QUIET

        options = replace(flags.options(), generates=True)
        status.update(f"building {model} ...")
        with QUIET.holding():
            workload = models.resolve(model, options)
        status.update(f"capturing {model} ...")
        on_unknown: Literal["raise", "ignore"] = "raise" if strict else "ignore"
        report = count_generation(
            workload.model,
            dict(workload.kwargs),
            max_new_tokens=new_tokens,
            logits_to_keep=logits_to_keep,
            cache=cache.value,
            convention=convention,
            on_unknown=on_unknown,
            reuse_layers=reuse_layers,
        )
        report = replace(report, notes=(*workload.notes, *report.notes))
    if compare_conventions is not None:
        comparison = report.compare_conventions(compare_conventions)
        return comparison_text(comparison, output_format.value, layout)
    if formula:
        return report.formula()
    return report_text(report, output_format.value, depth, layout, ops=ops)
