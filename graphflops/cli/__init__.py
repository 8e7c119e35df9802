"""The command line. Data goes to stdout, progress and errors to stderr.

Exit status: 0 fine, 1 a check failed, 2 bad usage or input.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterable

import typer

from graphflops.cli import catalog, count, generate, train
from graphflops.cli.stdout import claim_stdout, retire_stdout
from graphflops.errors import GraphFlopsError, ModelSpecError, UnknownOpError
from graphflops.render.escape import one_line
from graphflops.runtime.versions import translate_version_errors

CHECK_FAILED, BAD_INPUT = 1, 2
_ALLOCATIONS = 100_000
"""Objects that are made before garbage is looked for."""

app = typer.Typer(
    name="graphflops",
    help="What a PyTorch model costs, operator by operator: no weights, no GPU, no run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(count.count)
app.command(name="ops")(count.list_ops)
app.command()(count.explain)
app.command()(train.train)
app.command()(generate.generate)
app.command()(catalog.models)
app.command()(catalog.conventions)


_RENAMED = {
    "--regions": "--reuse-layers",
    "--no-regions": "--no-reuse-layers",
    "--accumulation": "--gradient-accumulation-steps",
    "--reconcile": "--compare-conventions",
}
"""Flags of version 0.1 with their present names."""


def _refuse_renamed(arguments: Iterable[str]) -> None:
    for argument in arguments:
        if (new := _RENAMED.get(argument.partition("=")[0])) is not None:
            raise ModelSpecError(f"{argument} is called {new} now.")


def main() -> None:
    """Run the command line; an error of the user's is one sentence and exit status 2."""
    # What torch and transformers import is looked through again and again, and stays.
    gc.set_threshold(_ALLOCATIONS)
    claim_stdout()
    try:
        _refuse_renamed(sys.argv)
        with translate_version_errors():
            app(prog_name="graphflops")
    except GraphFlopsError as error:
        typer.echo(f"graphflops: {one_line(str(error))}", err=True)
        code = CHECK_FAILED if isinstance(error, UnknownOpError) else BAD_INPUT
        raise SystemExit(code) from None
    finally:
        retire_stdout()
