"""Types of the resolvers: options in, a model with its inputs out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol

from graphflops.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Model with its inputs, as ``graphflops.count`` takes them.

    Attributes:
        model: The module, or the path of a ``.pt2`` file.
        args: Positional inputs.
        kwargs: Keyword inputs.
        notes: Notes on the inputs, for the reader of the report.
    """

    model: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """Input of the command line: ``NAME=SHAPE[:DTYPE]``."""

    shape: tuple[int, ...]
    dtype: str | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a model besides its name.

    Attributes:
        batch_size: First axis of every default input.
        seq_len: Tokens of every default text input, image placeholders included.
        image_size: Height and width of every default image, in pixels.
        audio_seconds: Length of every default audio input.
        dtype: Floating-point type of parameters and inputs, e.g. ``"bfloat16"``.
        overrides: Config keys to set; dots reach into sub-configs.
        inputs: Inputs to add or replace, by name.
        revision: Branch, tag or commit of a model on a hub.
        trust_remote_code: True to allow Python code that comes with a config to run.
        generates: True if the model is to continue its prompt, for which it needs a head.
        trains: True if the model is to be trained: some require further inputs then.
    """

    batch_size: int | None = None
    seq_len: int | None = None
    image_size: int | None = None
    audio_seconds: float | None = None
    dtype: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, InputSpec] = field(default_factory=dict)
    revision: str | None = None
    trust_remote_code: bool = False
    generates: bool = False
    trains: bool = False

    def forbid(self, what: str, *names: str) -> None:
        """Raise if an option is set that does not apply.

        Raises:
            InputError: An option in ``names`` is set.
        """
        flags = {"overrides": "--set", "inputs": "--input"}
        for name in names:
            if getattr(self, name):
                flag = flags.get(name, "--" + name.replace("_", "-"))
                msg = f"{flag} does not apply to {what}. Leave it out."
                raise InputError(msg)


class Resolver(Protocol):
    """Resolver of a scheme, such as ``hf`` in ``hf:bert``.

    A module with these two functions is a resolver. It is imported for the first name of its
    scheme, and raises :class:`ModelSpecError` if a package that it needs is not installed.
    """

    def resolve(self, name: str, options: Options) -> Workload:
        """Return the model of a name (without its scheme), with inputs.

        Raises:
            ModelSpecError: The name or an option is invalid.
        """

    def known(self) -> Mapping[str, str]:
        """Return the names that it can list without building a model, with short descriptions."""


_INPUT = re.compile(r"(?P<name>\w+)=(?P<shape>[0-9]{1,99}(x[0-9]{1,99})*)(:(?P<dtype>\w+))?")


def parse_input(text: str) -> tuple[str, InputSpec]:
    """Parse ``NAME=SHAPE[:DTYPE]``.

    Raises:
        InputError: The text does not have that form.

    Example:
        >>> parse_input("pixel_values=1x3x224x224:float32")
        ('pixel_values', InputSpec(shape=(1, 3, 224, 224), dtype='float32'))
    """
    match = _INPUT.fullmatch(text)
    if match is None:
        msg = (
            f"--input {text!r} is not NAME=SHAPE[:DTYPE]. "
            "Write e.g. pixel_values=1x3x224x224:float32."
        )
        raise InputError(msg)
    shape = tuple(int(size) for size in match["shape"].split("x"))
    return match["name"], InputSpec(shape=shape, dtype=match["dtype"])


def suggest(name: str, names: list[str]) -> str:
    """Return a hint with the names most similar to ``name``, or all names if they are few."""
    close = get_close_matches(name, names, n=4, cutoff=0.5)
    if close:
        return f"Did you mean {', '.join(close)}?"
    return f"Known: {', '.join(names)}." if len(names) <= 20 else ""  # noqa: PLR2004 - what fits a sentence
