"""The command line. Data goes to stdout, progress and errors to stderr.

Exit status: 0 fine, 1 a check failed, 2 bad usage or input.
"""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from graphflops.errors import GraphFlopsError, UnknownOpError

if TYPE_CHECKING:
    from graphflops.report import Report

CHECK_FAILED, BAD_INPUT = 1, 2

app = typer.Typer(
    name="graphflops",
    help="What a PyTorch model costs, operator by operator: no weights, no GPU, no run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Format(str, Enum):
    """How a report is written."""

    TREE = "tree"
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


class CallFormat(str, Enum):
    """How a list of calls is written."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


class Sort(str, Enum):
    """What a list of calls is sorted by, the most expensive first."""

    ORDER = "order"
    FLOPS = "flops"
    MACS = "macs"
    BYTES = "bytes"
    TRANSCENDENTALS = "transcendentals"


ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=(
            "hf:TYPE, hf:PATH (config.json or its folder), FILE.py:NAME, package.module:NAME "
            "or FILE.pt2."
        ),
    ),
]
BatchSize = Annotated[int | None, typer.Option(min=1, help="Batch size of the inputs made.")]
SeqLen = Annotated[int | None, typer.Option(min=1, help="Tokens in each text input made.")]
Dtype = Annotated[str | None, typer.Option(help="Floating-point type, e.g. bfloat16.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a config key; repeatable."),
]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input", metavar="NAME=SHAPE[:DTYPE]", help="Add or replace an input; repeatable."
    ),
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if an operator has no price.")]
Output = Annotated[Path | None, typer.Option(help="Write to this file instead of stdout.")]


@app.callback()
def _commands() -> None:
    """Keep ``count`` a subcommand however many there are."""


@app.command()
def count(
    model: ModelName,
    batch_size: BatchSize = None,
    seq_len: SeqLen = None,
    dtype: Dtype = None,
    overrides: Overrides = None,
    inputs: Inputs = None,
    output_format: Annotated[
        Format, typer.Option("--format", help="Shape of the output.")
    ] = Format.TREE,
    depth: Annotated[int | None, typer.Option(min=0, help="Module levels to show.")] = None,
    ops: Annotated[
        bool, typer.Option("--ops", help="With --format json: one entry per call too.")
    ] = False,
    strict: Strict = False,
    output: Output = None,
) -> None:
    """Count one forward pass: by module, with totals and coverage."""
    report = _report(model, batch_size, seq_len, dtype, overrides, inputs, strict=strict)
    if output_format is Format.TREE:
        from graphflops.render.tables import report_tree

        text = report_tree(report, depth)
    elif output_format is Format.TABLE:
        text = report.table(depth=2 if depth is None else depth)
    elif output_format is Format.MD:
        text = report.to_markdown(depth=2 if depth is None else depth)
    elif output_format is Format.CSV:
        text = report.to_csv(depth)
    else:
        text = report.to_json(ops=ops)
    _write(text, output)


@app.command(name="ops")
def list_ops(
    model: ModelName,
    batch_size: BatchSize = None,
    seq_len: SeqLen = None,
    dtype: Dtype = None,
    overrides: Overrides = None,
    inputs: Inputs = None,
    sort: Annotated[
        Sort, typer.Option(help="Most expensive first by this, or call order.")
    ] = Sort.ORDER,
    top: Annotated[int | None, typer.Option(min=1, help="Show only this many calls.")] = None,
    output_format: Annotated[
        CallFormat, typer.Option("--format", help="Shape of the output.")
    ] = CallFormat.TABLE,
    strict: Strict = False,
    output: Output = None,
) -> None:
    """List every operator call: module, operator, shapes, cost, source line."""
    report = _report(model, batch_size, seq_len, dtype, overrides, inputs, strict=strict)
    from graphflops.render import data, tables

    records = report.sorted_records(sort.value, top)
    if output_format is CallFormat.JSON:
        text = json.dumps([data.call_dict(record) for record in records], indent=2)
    elif output_format is CallFormat.CSV:
        text = data.calls_csv(records)
    else:
        style = "github" if output_format is CallFormat.MD else "simple"
        text = tables.call_table(records, style)
    _write(text, output)


@app.command()
def explain(
    model: ModelName,
    what: Annotated[
        str, typer.Argument(metavar="NODE-or-OP", help="A node's name, a call's number or an op.")
    ],
    batch_size: BatchSize = None,
    seq_len: SeqLen = None,
    dtype: Dtype = None,
    overrides: Overrides = None,
    inputs: Inputs = None,
    output: Output = None,
) -> None:
    """Say why a call costs what it costs: formula, numbers put in, source."""
    report = _report(model, batch_size, seq_len, dtype, overrides, inputs)
    _write("\n\n".join(map(report.explain, report.find(what))), output)


def _report(
    name: str,
    batch_size: int | None,
    seq_len: int | None,
    dtype: str | None,
    overrides: list[str] | None,
    inputs: list[str] | None,
    *,
    strict: bool = False,
) -> Report:
    from rich.console import Console

    with Console(stderr=True).status("loading PyTorch ...") as status:
        from graphflops import models
        from graphflops.counting import count as count_model
        from graphflops.models.workload import parse_input
        from graphflops.quiet import quiet

        options = models.Options(
            batch_size=batch_size,
            seq_len=seq_len,
            dtype=dtype,
            overrides=dict(map(_parse_override, overrides or ())),
            inputs=dict(map(parse_input, inputs or ())),
        )
        status.update(f"building {name} ...")
        with quiet():
            workload = models.resolve(name, options)
        status.update(f"capturing {name} ...")
        on_unknown: Literal["raise", "ignore"] = "raise" if strict else "ignore"
        return count_model(workload.model, workload.args, workload.kwargs, on_unknown=on_unknown)


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        msg = f"--set {text!r} is not KEY=VALUE. Write e.g. --set num_hidden_layers=2."
        raise typer.BadParameter(msg)
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _write(text: str, output: Path | None) -> None:
    text = text.rstrip("\n")
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")
    elif sys.stdout.isatty():
        from graphflops.render.terminal import print_colored

        print_colored(text)
    else:
        typer.echo(text)


def main() -> None:
    """Run the command line; an error of the user's is one sentence and exit status 2."""
    try:
        app()
    except UnknownOpError as error:
        typer.echo(f"graphflops: {error}", err=True)
        raise SystemExit(CHECK_FAILED) from None
    except GraphFlopsError as error:
        typer.echo(f"graphflops: {error}", err=True)
        raise SystemExit(BAD_INPUT) from None
