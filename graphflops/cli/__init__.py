"""Command line: data goes to stdout, progress and errors to stderr.

In: command-line arguments. Out: text and the exit status: 0 success, 1 a check failed, 2 bad
usage or input. May import all other packages; those that load torch only when a command runs.
"""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Sequence

import typer

from graphflops.cli import (
    batch,
    catalog,
    count,
    diff,
    generate,
    graph,
    memory,
    timing,
    trace,
    train,
    view,
)
from graphflops.cli.stdout import claim_stdout, retire_stdout
from graphflops.errors import GraphFlopsError, ModelSpecError, UnknownOpError
from graphflops.render.escape import one_line
from graphflops.runtime.versions import translate_version_errors

CHECK_FAILED, BAD_INPUT = 1, 2
_GC_THRESHOLD = 1_000_000
"""Number of allocations between two garbage collections."""

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
app.command()(diff.diff)
app.command()(diff.check)
app.command()(timing.time)
app.command()(memory.memory)
app.command()(trace.annotate_trace)
app.command()(view.view)
app.add_typer(graph.app, name="graph")
app.add_typer(batch.app, name="batch")
app.command()(catalog.models)
app.command()(catalog.conventions)
app.command()(catalog.devices)


_RENAMED_FLAGS = {
    "--regions": "--reuse-layers",
    "--no-regions": "--no-reuse-layers",
    "--accumulation": "--gradient-accumulation-steps",
    "--reconcile": "--compare-conventions",
}
"""Flags of version 0.1 with their present names."""
_RENAMED_COMMANDS = {f"view {name}": f"graph {name}" for name in ("path", "stages", "waste")}
"""Commands of version 0.1 with their present names."""


def _reject_renamed(arguments: Sequence[str]) -> None:
    """Raise a ModelSpecError for a name that a flag or a command had before."""
    command = " ".join(arguments[:2])
    if command in _RENAMED_COMMANDS:
        raise ModelSpecError(f"`{command}` is called `{_RENAMED_COMMANDS[command]}` now.")
    for argument in arguments:
        if (new_name := _RENAMED_FLAGS.get(argument.partition("=")[0])) is not None:
            raise ModelSpecError(f"{argument} is called {new_name} now.")


def main() -> None:
    """Run the command line; a user error prints one sentence and exits with status 2."""
    # The many objects that torch and transformers import stay alive; do not scan them repeatedly.
    gc.set_threshold(_GC_THRESHOLD)
    # When the process ends, Python would search them all for cycles.
    atexit.register(gc.freeze)
    claim_stdout()
    try:
        _reject_renamed(sys.argv[1:])
        with translate_version_errors():
            app(prog_name="graphflops")
    except GraphFlopsError as error:
        typer.echo(f"graphflops: {one_line(str(error))}", err=True)
        code = CHECK_FAILED if isinstance(error, UnknownOpError) else BAD_INPUT
        raise SystemExit(code) from None
    finally:
        retire_stdout()
