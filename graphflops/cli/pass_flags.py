"""Flags of what a model does: a forward pass, a training step or a generation."""

from __future__ import annotations

import dataclasses
import inspect
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from graphflops.cli.flags import FlagGroup, ModelFlags

if TYPE_CHECKING:
    from graphflops.models.prepare_training import TrainingOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingFlags(FlagGroup):
    """Flags of a training step."""

    loss: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME",
            help="Function from the output to a scalar; default: the model's own, or a sum.",
        ),
    ] = None
    freeze: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Parameters without a gradient; repeatable."),
    ] = None
    train_only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Freeze all parameters but these; repeatable."),
    ] = None
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Compute layers again instead of keeping them.")
    ] = False
    evaluating: Annotated[
        bool, typer.Option("--eval", help="Leave the model in eval mode, without dropout.")
    ] = False
    optimizer: Annotated[
        str | None, typer.Option(help="Count its step too: sgd, momentum, adam or adamw.")
    ] = None
    gradient_accumulation_steps: Annotated[
        int, typer.Option(min=1, help="Passes before a step of the optimizer.")
    ] = 1
    steps: Annotated[int, typer.Option(min=1, help="Steps of the optimizer.")] = 1

    def training_options(self) -> TrainingOptions:
        """Return the flags as options of :mod:`graphflops.models`."""
        from graphflops.models.prepare_training import TrainingOptions

        return TrainingOptions(
            evaluating=self.evaluating,
            freeze=self.freeze or (),
            train_only=self.train_only or (),
            checkpoint=self.checkpoint,
        )


class CacheKind(StrEnum):
    """Kind of key-value cache."""

    DYNAMIC = "dynamic"
    STATIC = "static"


@dataclasses.dataclass(frozen=True, kw_only=True)
class GenerationFlags(FlagGroup):
    """Flags of a generation, but for the number of tokens."""

    prompt_len: Annotated[
        int | None, typer.Option(min=1, help="Tokens of the prompt; the same as --seq-len.")
    ] = None
    cache: Annotated[
        CacheKind, typer.Option(help="Growing with each token, or of its final length at once.")
    ] = CacheKind.DYNAMIC
    logits_to_keep: Annotated[
        int, typer.Option(min=0, help="Prompt positions to compute logits for; 0: all.")
    ] = 1

    def with_prompt(self, flags: ModelFlags) -> ModelFlags:
        """Return the flags of the model, with the length of the prompt.

        Raises:
            BadParameter: They have one already.
        """
        if self.prompt_len is None:
            return flags
        if flags.seq_len is not None:
            msg = "--prompt-len and --seq-len say the same. Give one of them."
            raise typer.BadParameter(msg)
        return dataclasses.replace(flags, seq_len=self.prompt_len)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PassFlags(TrainingFlags, GenerationFlags):
    """Flags of a command about a forward pass, a training step or a generation."""

    train: Annotated[
        bool, typer.Option("--train", help="A training step, with the options of `train`.")
    ] = False
    generate: Annotated[
        bool, typer.Option("--generate", help="A generation, with the options of `generate`.")
    ] = False
    new_tokens: Annotated[
        int | None, typer.Option(min=1, help="With --generate: tokens to produce.")
    ] = None

    def check(self, *, is_saved: bool, symbolic: str | None, assume: list[str] | None) -> None:
        """Check that the flags belong together.

        Args:
            is_saved: True if a saved report is read.
            symbolic: Sizes to keep open.
            assume: Sizes that follow from data.

        Raises:
            BadParameter: They do not.
        """
        chosen = "--train" if self.train else "--generate"
        if is_saved and (self.train or self.generate):
            raise typer.BadParameter(f"a saved report is of one kind. Leave out {chosen}.")
        if symbolic is not None and self.generate:
            msg = "all sizes of a generation are open in any case. Leave out --symbolic."
            raise typer.BadParameter(msg)
        if assume and self.generate:
            raise typer.BadParameter("--assume is not known of a generation. Leave it out.")
        if self.train and self.generate:
            raise typer.BadParameter("--train and --generate are two things. Give one of them.")
        if self.generate and self.new_tokens is None:
            raise typer.BadParameter("--generate needs a number of tokens. Add --new-tokens N.")
        for switch, is_on, group in (
            ("--train", self.train, TrainingFlags),
            ("--generate", self.generate, GenerationFlags),
        ):
            given = [p for p in group.parameters() if getattr(self, p.name) != p.default]
            if given and not is_on:
                msg = f"{_flag(given[0])} is an option of {switch}. Add {switch}."
                raise typer.BadParameter(msg)
        if self.new_tokens is not None and not self.generate:
            raise typer.BadParameter("--new-tokens is an option of --generate. Add --generate.")


def _flag(parameter: inspect.Parameter) -> str:
    """Return the flag of a parameter as it is typed."""
    _, option = get_args(parameter.annotation)
    # Of an annotation, typer takes the first name for the default.
    names = [name for name in (option.default, *(option.param_decls or ())) if name is not ...]
    return names[0] if names else f"--{parameter.name.replace('_', '-')}"
