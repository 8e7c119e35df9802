"""What the rules know of a model: its forward, its config, and what the user asked for."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from graphflops.errors import ModelSpecError
from graphflops.models.inputs.tensors import blank, repeated
from graphflops.models.inputs.user_inputs import floating_dtype, parameters_of
from graphflops.models.workload import Options

MOST_EXAMPLES = 100_000
"""In a batch of a model that takes each on its own."""
_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


@dataclass(frozen=True)
class Subject:
    """A transformers model that inputs are made for.

    Attributes:
        model: The model, on meta.
        config: Its config, with those of its parts inside.
        options: Sizes the user asked for.
        made: Inputs made so far, in the order of the rules; a rule may look at earlier ones.
        notes: What a user must know about the inputs.
    """

    model: Any
    config: Any
    options: Options
    made: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def batch(self) -> int:
        """Examples in a batch: 1 unless the user said."""
        return self.options.batch_size or 1

    @property
    def of_one(self) -> Subject:
        """The same for one example: its inputs have values where those of a large batch do not."""
        return replace(self, options=replace(self.options, batch_size=1))

    @property
    def dtype(self) -> torch.dtype:
        """Of floating-point inputs."""
        return floating_dtype(self.options.dtype) or torch.float32

    @cached_property
    def declared(self) -> frozenset[str]:
        """Every input that the forward declares."""
        return frozenset(parameters_of(self.model))

    @cached_property
    def required(self) -> frozenset[str]:
        """Inputs without a default, and those the model names as its main ones."""
        main = getattr(self.model, "main_input_name", "input_ids")
        names = {main} if isinstance(main, str) else set(main)
        parameters = inspect.signature(self.model.forward).parameters.values()
        missing = {p.name for p in parameters if p.default is p.empty and p.kind not in _VARIADIC}
        return frozenset((names & self.declared) | missing)

    @cached_property
    def modalities(self) -> frozenset[str]:
        """``text``, ``image``, ``audio``, ``video`` or ``time``, as the model says."""
        named = getattr(self.model, "input_modalities", None) or ("text",)
        return frozenset({named} if isinstance(named, str) else named)

    def sees(self, modality: str, name: str) -> bool:
        """Whether to make an input of a modality: it is required, or the model asks for it."""
        return name in self.required or modality in self.modalities

    def takes(self, *names: str) -> bool:
        """Whether the forward declares all of these inputs."""
        return self.declared.issuperset(names)

    def parts(self, kind: str | None = None) -> Iterator[Any]:
        """Configs of the parts of a kind (``vision`` finds ``vision_config``), then all."""
        named = [
            value
            for key, value in vars(self.config).items()
            if key.endswith("_config") and hasattr(value, "to_dict")
        ]
        mine = [
            value
            for key, value in vars(self.config).items()
            if kind and kind in key and value in named
        ]
        yield from mine
        yield self.config
        for part in mine:
            yield from (value for value in vars(part).values() if hasattr(value, "to_dict"))

    def setting(self, *keys: str, kind: str | None = None, default: Any = None) -> Any:
        """The first of these config keys that says something, in the parts of a kind first."""
        for part in self.parts(kind):
            for key in keys:
                value = getattr(part, key, None)
                if value is not None:
                    return value
        return default

    def refuse_many(self) -> None:
        """Refuse a batch that takes a model for ever: it goes through its examples in Python.

        Raises:
            ModelSpecError: There are more than :data:`MOST_EXAMPLES`.
        """
        if self.batch > MOST_EXAMPLES:
            msg = (
                f"--batch-size {self.batch}: {type(self.model).__name__} goes through its examples "
                f"one by one. Ask for at most {MOST_EXAMPLES:,}."
            )
            raise ModelSpecError(msg)

    def rows(self, values: Sequence[int]) -> torch.Tensor:
        """The same few numbers for every example, such as the size of its image."""
        self.refuse_many()
        return repeated(torch.tensor([list(values)], device="cpu"), self.batch)

    def floats(self, *shape: int) -> torch.Tensor:
        """A floating-point input, without data."""
        return blank(shape, self.dtype)

    def module(self, *kinds: type[nn.Module]) -> Any:
        """The first submodule of one of these kinds, in order of definition."""
        return next((m for m in self.model.modules() if isinstance(m, kinds)), None)
