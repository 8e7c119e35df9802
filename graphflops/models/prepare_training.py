"""Preparation of a model for training: mode, frozen parameters, checkpointing."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from graphflops.errors import ModelSpecError
from graphflops.models.workload import Workload, suggest


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """Options of a model's training.

    Attributes:
        evaluating: True to keep the model in eval mode, without dropout.
        freeze: Patterns of parameters without a gradient, such as ``model.layers.*``.
        train_only: Patterns of the only parameters with a gradient; all parameters if empty.
        checkpoint: True to recompute activations of layers instead of saving them.
    """

    evaluating: bool = False
    freeze: Sequence[str] = ()
    train_only: Sequence[str] = ()
    checkpoint: bool = False


def prepare_training(workload: Workload, training: TrainingOptions) -> Workload:
    """Prepare the model of a workload for training, in place.

    Its cache of keys and values is disabled, because no decoding follows.

    Raises:
        ModelSpecError: A pattern matches no parameter, the model does not support checkpointing,
            or it is not a module.
    """
    model = workload.model
    if not isinstance(model, nn.Module):
        msg = f"{model} is an exported graph, which autograd cannot run. Name the model instead."
        raise ModelSpecError(msg)
    model.train(not training.evaluating)
    if training.train_only:
        trained = _match_parameters(model, "--train-only", training.train_only)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trained)
    for name in _match_parameters(model, "--freeze", training.freeze):
        model.get_parameter(name).requires_grad_(False)
    if training.checkpoint:
        _checkpoint(model)
    takes_cache = "use_cache" in inspect.signature(model.forward).parameters
    if takes_cache and "use_cache" not in workload.kwargs:
        return replace(workload, kwargs={**workload.kwargs, "use_cache": False})
    return workload


def _match_parameters(model: nn.Module, flag: str, patterns: Sequence[str]) -> set[str]:
    names = [name for name, _ in model.named_parameters()]
    selected: set[str] = set()
    for pattern in patterns:
        matches = {name for name in names if fnmatchcase(name, pattern)}
        if not matches:
            msg = f"{flag} {pattern!r} matches no parameter of {type(model).__name__}."
            raise ModelSpecError(f"{msg} {suggest(pattern, names)}".rstrip())
        selected |= matches
    return selected


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
