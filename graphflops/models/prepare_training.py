"""A model prepared for training: its mode, what is frozen, what is checkpointed."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from graphflops.errors import ModelSpecError
from graphflops.models.workload import Workload, near


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a model is to be trained.

    Attributes:
        evaluating: Whether it stays in eval mode, without dropout.
        freeze: Patterns of the parameters that get no gradient, such as ``model.layers.*``.
        train_only: Patterns of the only ones that do; all, if there is none.
        checkpoint: Whether its layers are computed again instead of kept.
    """

    evaluating: bool = False
    freeze: Sequence[str] = ()
    train_only: Sequence[str] = ()
    checkpoint: bool = False


def for_training(workload: Workload, wanted: Training) -> Workload:
    """The workload with its model changed for training, in place.

    A model that keeps what it computes of earlier tokens is told not to: nothing comes later.

    Raises:
        ModelSpecError: A pattern matches no parameter, the model has no checkpoints, or it is
            no module.
    """
    model = workload.model
    if not isinstance(model, nn.Module):
        msg = f"{model} is an exported graph, which autograd cannot run. Name the model instead."
        raise ModelSpecError(msg)
    model.train(not wanted.evaluating)
    if wanted.train_only:
        kept = _matching(model, "--train-only", wanted.train_only)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in kept)
    for name in _matching(model, "--freeze", wanted.freeze):
        model.get_parameter(name).requires_grad_(False)
    if wanted.checkpoint:
        _checkpoint(model)
    takes_cache = "use_cache" in inspect.signature(model.forward).parameters
    if takes_cache and "use_cache" not in workload.kwargs:
        return replace(workload, kwargs={**workload.kwargs, "use_cache": False})
    return workload


def _matching(model: nn.Module, flag: str, patterns: Sequence[str]) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    found: set[str] = set()
    for pattern in patterns:
        matching = {name for name in names if fnmatchcase(name, pattern)}
        if not matching:
            msg = f"{flag} {pattern!r} matches no parameter of {type(model).__name__}."
            raise ModelSpecError(f"{msg} {near(pattern, names)}".rstrip())
        found |= matching
    return found


def _checkpoint(model: Any) -> None:
    if not getattr(model, "supports_gradient_checkpointing", False):
        msg = (
            f"{type(model).__name__} offers no checkpoints of its own. Leave out --checkpoint, or "
            "call torch.utils.checkpoint in its forward."
        )
        raise ModelSpecError(msg)
    options = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:  # transformers before 5.23
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
