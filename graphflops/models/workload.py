"""What a resolver gets and gives."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Protocol

from graphflops.errors import ModelSpecError


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A model with its inputs, as ``graphflops.count`` takes them.

    Attributes:
        model: The module, or the path of a ``.pt2`` file.
        args: Positional inputs.
        kwargs: Keyword inputs.
        notes: What a reader of the report must know about the inputs.
    """

    model: Any
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """An input given on the command line: ``NAME=SHAPE[:DTYPE]``."""

    shape: tuple[int, ...]
    dtype: str | None


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a user may say about a model besides its name.

    Attributes:
        batch_size: First axis of every input that is made.
        seq_len: Tokens of every text input that is made, image placeholders included.
        image_size: Height and width of every image that is made, in pixels.
        audio_seconds: Length of every audio input that is made.
        dtype: Floating-point type of parameters and inputs, e.g. ``"bfloat16"``.
        overrides: Config keys to set; dots reach into sub-configs.
        inputs: Inputs to add or replace, by name.
        revision: Branch, tag or commit of a model on a hub.
        trust_remote_code: Whether Python code that comes with a config may be run.
        generates: Whether the model is to continue its prompt: it needs a head for that.
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

    def forbid(self, what: str, *names: str) -> None:
        """Raise if an option was given that ``what`` has no use for.

        Raises:
            ModelSpecError: An option in ``names`` is set.
        """
        flags = {"overrides": "--set", "inputs": "--input"}
        for name in names:
            if getattr(self, name):
                flag = flags.get(name, "--" + name.replace("_", "-"))
                msg = f"{flag} does not apply to {what}. Leave it out."
                raise ModelSpecError(msg)


class Resolver(Protocol):
    """What stands behind the scheme of a model name: ``hf`` in ``hf:bert``.

    A module with two such functions is one. It is imported when a name asks for it, and
    raises :class:`ModelSpecError` if what it needs is not installed.
    """

    def resolve(self, name: str, options: Options) -> Workload:
        """The model a name (without its scheme) stands for, with inputs.

        Raises:
            ModelSpecError: The name or an option does not make sense.
        """

    def known(self) -> Mapping[str, str]:
        """The names it can list without building anything, each with a word on what it is."""


_INPUT = re.compile(r"(?P<name>\w+)=(?P<shape>[0-9]{1,99}(x[0-9]{1,99})*)(:(?P<dtype>\w+))?")


def parse_input(text: str) -> tuple[str, InputSpec]:
    """Read ``NAME=SHAPE[:DTYPE]``.

    Raises:
        ModelSpecError: It is not of that form.

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
        raise ModelSpecError(msg)
    shape = tuple(int(size) for size in match["shape"].split("x"))
    return match["name"], InputSpec(shape=shape, dtype=match["dtype"])


def near(name: str, known: list[str]) -> str:
    """A hint naming what comes close to ``name``, or all that is known if little is."""
    close = get_close_matches(name, known, n=4, cutoff=0.5)
    if close:
        return f"Did you mean {', '.join(close)}?"
    return f"Known: {', '.join(known)}." if len(known) <= 20 else ""  # noqa: PLR2004 - what fits a sentence
