"""Context of the input rules: the model's forward, its config and the user's options."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from graphflops.errors import InputError
from graphflops.models.inputs.tensors import meta_tensor, repeat_batch
from graphflops.models.inputs.user_inputs import floating_dtype, forward_parameters
from graphflops.models.workload import Options

MAX_EXAMPLES = 100_000
"""Largest batch of a model that processes its examples one by one."""
_VARIADIC = {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}


@dataclass(frozen=True)
class InputContext:
    """Transformers model that inputs are built for.

    Attributes:
        model: The model, on meta.
        config: Its config, with subconfigs.
        options: Options of the user, such as sizes.
        inputs: Inputs built so far, in the order of the rules; a rule may read earlier ones.
        notes: Notes on the inputs, for the user.
    """

    model: Any
    config: Any
    options: Options
    inputs: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def batch(self) -> int:
        """Examples in a batch; 1 by default."""
        return self.options.batch_size or 1

    @property
    def single_example(self) -> InputContext:
        """Context with batch size 1, whose inputs have values where a large batch has none."""
        return replace(self, options=replace(self.options, batch_size=1))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of floating-point inputs."""
        return floating_dtype(self.options.dtype) or torch.float32

    @cached_property
    def input_names(self) -> frozenset[str]:
        """Names of all inputs that the forward declares."""
        return frozenset(forward_parameters(self.model))

    @cached_property
    def required_inputs(self) -> frozenset[str]:
        """Names of the inputs without a default, and of the model's main inputs."""
        main_names = getattr(self.model, "main_input_name", "input_ids")
        names = {main_names} if isinstance(main_names, str) else set(main_names)
        parameters = inspect.signature(self.model.forward).parameters.values()
        without_default = {
            p.name for p in parameters if p.default is p.empty and p.kind not in _VARIADIC
        }
        return frozenset((names & self.input_names) | without_default)

    @cached_property
    def modalities(self) -> frozenset[str]:
        """Modalities of the model: ``text``, ``image``, ``audio``, ``video``, ``time``."""
        modalities = getattr(self.model, "input_modalities", None) or ("text",)
        return frozenset({modalities} if isinstance(modalities, str) else modalities)

    def needs_input(self, modality: str, name: str) -> bool:
        """Return True if an input is required, or the model declares its modality."""
        return name in self.required_inputs or modality in self.modalities

    def declares(self, *names: str) -> bool:
        """Return True if the forward declares all of these inputs."""
        return self.input_names.issuperset(names)

    def subconfigs(self, kind: str | None = None) -> Iterator[Any]:
        """Yield the subconfigs of a kind (``vision_config`` for ``vision``), then the others."""
        configs = [
            value
            for key, value in vars(self.config).items()
            if key.endswith("_config") and hasattr(value, "to_dict")
        ]
        matching = [
            value
            for key, value in vars(self.config).items()
            if kind and kind in key and value in configs
        ]
        yield from matching
        yield self.config
        for part in matching:
            yield from (value for value in vars(part).values() if hasattr(value, "to_dict"))

    def setting(self, *keys: str, kind: str | None = None, default: Any = None) -> Any:
        """Return the first of these config keys that is set, in subconfigs of a kind first."""
        for part in self.subconfigs(kind):
            for key in keys:
                value = getattr(part, key, None)
                if value is not None:
                    return value
        return default

    def check_batch_size(self) -> None:
        """Reject a large batch of a model that loops over its examples in Python.

        Raises:
            InputError: There are more than :data:`MAX_EXAMPLES`.
        """
        if self.batch > MAX_EXAMPLES:
            msg = (
                f"--batch-size {self.batch}: {type(self.model).__name__} goes through its examples "
                f"one by one. Ask for at most {MAX_EXAMPLES:,}."
            )
            raise InputError(msg)

    def repeat_values(self, values: Sequence[int]) -> torch.Tensor:
        """Return the same values for every example, such as the size of its image."""
        self.check_batch_size()
        return repeat_batch(torch.tensor([list(values)], device="cpu"), self.batch)

    def floats(self, *shape: int) -> torch.Tensor:
        """Return a floating-point input without data."""
        return meta_tensor(shape, self.dtype)

    def module(self, *kinds: type[nn.Module]) -> Any:
        """Return the first submodule of one of these types, in order of definition."""
        return next((m for m in self.model.modules() if isinstance(m, kinds)), None)
