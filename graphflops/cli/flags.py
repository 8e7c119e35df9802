"""Flags that several commands share, and the flags of the model and its inputs."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import math
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, TypeVar

import typer

from graphflops.cli.output import set_signature

if TYPE_CHECKING:
    from graphflops.models import Options


T = TypeVar("T")


class Format(StrEnum):
    """Output format of a report."""

    TREE = "tree"
    TABLE = "table"
    JSON = "json"
    CSV = "csv"
    MD = "md"


ReportFormat = Annotated[Format, typer.Option("--format", help="Shape of the output.")]
Depth = Annotated[int | None, typer.Option(min=0, help="Module levels to show.")]
Ops = Annotated[bool, typer.Option("--ops", help="With --format json: one entry per call too.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if an operator has no price.")]

DevicesFile = Annotated[
    Path | None,
    typer.Option(
        "--devices",
        metavar="FILE",
        help="Your own devices in TOML, before those known; default: $GRAPHFLOPS_DEVICES.",
    ),
]

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help=(
            "hf:TYPE, hf:PATH (config.json or its folder), hf:ORG/NAME (on the hub), any of "
            "these with @CLASS, timm:NAME, torchvision:NAME, FILE.py:NAME, package.module:NAME "
            "or FILE.pt2."
        ),
    ),
]


def check_convention(name: str | None) -> str | None:
    """Return a convention's name; an unknown name fails before a model is built."""
    from graphflops import conventions

    if name is not None:
        conventions.describe(name)
    return name


def check_finite(seconds: float | None) -> float | None:
    """Return a number of seconds; infinity and NaN are usage errors."""
    if seconds is not None and not math.isfinite(seconds):
        raise typer.BadParameter(f"{seconds} is no number of seconds.")
    return seconds


Convention = Annotated[
    str,
    typer.Option(
        help="Way of counting: exact, causal, torch, calflops or fvcore; see conventions.",
        callback=check_convention,
    ),
]

CompareConventions = Annotated[
    str | None,
    typer.Option(
        metavar="CONVENTION",
        help="Instead: where and why this way of counting differs.",
        callback=check_convention,
    ),
]
ReuseLayers = Annotated[
    bool,
    typer.Option(
        "--reuse-layers/--no-reuse-layers",
        help="Trace a repeated layer once, reuse it where it does the same; the result is equal.",
    ),
]
Method: TypeAlias = Literal["auto", "eager", "export"]
CaptureMethod = Annotated[
    Method,
    typer.Option(
        "--capture",
        help="Run the model eagerly or by torch.export; auto: export where eager fails.",
    ),
]
Timings = Annotated[bool, typer.Option("--timings", help="Say on stderr where the time went.")]
Assume = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=SIZE",
        help="What a size that follows from data is, by its name in the report; repeatable.",
    ),
]
Symbolic = Annotated[
    str | None,
    typer.Option(
        metavar="SIZES", help="Sizes to keep open, of batch (B) and seq (S): costs are formulas."
    ),
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlagGroup:
    """Flags that several commands share: one field per flag, as typer reads them."""

    @classmethod
    def parameters(cls) -> list[inspect.Parameter]:
        """Return the flags as parameters of a command."""
        return [*inspect.signature(cls, eval_str=True).parameters.values()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelFlags(FlagGroup):
    """Flags of the model and its inputs."""

    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Batch size of the inputs made.")
    ] = None
    seq_len: Annotated[int | None, typer.Option(min=1, help="Tokens in each text input made.")] = (
        None
    )
    image_size: Annotated[
        int | None, typer.Option(min=1, help="Height and width of the images made, in pixels.")
    ] = None
    audio_seconds: Annotated[
        float | None,
        typer.Option(min=0.01, help="Length of each audio input made.", callback=check_finite),
    ] = None
    dtype: Annotated[str | None, typer.Option(help="Floating-point type, e.g. bfloat16.")] = None
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Set a config key or a keyword; repeatable."
        ),
    ] = None
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="NAME=SHAPE[:DTYPE]", help="Add or replace an input; repeatable."
        ),
    ] = None
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a model on the hub.")
    ] = None
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Run Python code that comes with a config.")
    ] = False

    def options(self) -> Options:
        """Return the flags as options of :mod:`graphflops.models`."""
        from graphflops.models import Options
        from graphflops.models.workload import parse_input

        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["overrides"] = dict(map(_parse_override, self.overrides or ()))
        values["inputs"] = dict(map(parse_input, self.inputs or ()))
        return Options(**values)


def expand_flag_groups(command: Callable[..., T]) -> Callable[..., T]:
    """Add every field of the flag groups among a command's parameters as a flag of its own."""
    signature = inspect.signature(command, eval_str=True)
    groups = {
        parameter.name: parameter.annotation
        for parameter in signature.parameters.values()
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, FlagGroup)
    }

    @functools.wraps(command)
    def run(**values: Any) -> T:
        built = {
            name: group(**{p.name: values.pop(p.name) for p in group.parameters()})
            for name, group in groups.items()
        }
        return command(**values, **built)

    command_parameters = [
        parameter.replace(kind=parameter.KEYWORD_ONLY)
        for parameter in signature.parameters.values()
        if parameter.name not in groups
    ]
    flags = [flag for group in groups.values() for flag in group.parameters()]
    set_signature(run, [*command_parameters, *flags])
    return run


def parse_assumed_sizes(texts: list[str] | None) -> dict[str, int]:
    """Parse the sizes of ``--assume`` by name."""
    sizes = {}
    for text in texts or ():
        name, _, size = text.partition("=")
        if not (name and size.isdecimal()):
            msg = f"--assume {text!r} is not NAME=SIZE. Write e.g. --assume u0=10."
            raise typer.BadParameter(msg)
        sizes[name] = int(size)
    return sizes


def _parse_override(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        msg = f"--set {text!r} is not KEY=VALUE. Write e.g. --set num_hidden_layers=2."
        raise typer.BadParameter(msg)
    try:
        return key, json.loads(value)
    except (ValueError, RecursionError):
        return key, value
