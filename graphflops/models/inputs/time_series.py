"""Time series, and trajectories of states and actions.

The length of a series is the model's context plus its longest lag. A model that takes series of
any length gets ``--seq-len`` steps, or 512.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from graphflops.models.inputs.context import InputContext
from graphflops.models.inputs.tensors import full, ids, materialize_if_small, repeat_batch

DEFAULT_LENGTH = 512
DEFAULT_STEPS = 20  # of a trajectory: the context length of published decision transformers


def past_values(context: InputContext) -> torch.Tensor:
    """Return a series for every example, with an axis of variates where the model has one."""
    return _zeros(context, _past(context), *_variates(context))


def past_time_features(context: InputContext) -> torch.Tensor:
    """Return the calendar features of each step."""
    return _zeros(context, _past(context), _time_features(context))


def past_observed_mask(context: InputContext) -> torch.Tensor | None:
    """Return an observation mask without missing values, for models that require it."""
    if "past_observed_mask" not in context.required_inputs:
        return None
    return full((context.batch, _past(context), *_variates(context)), True, torch.bool)


def static_categorical_features(context: InputContext) -> torch.Tensor | None:
    """Return the ids of the series, if the model takes any."""
    count = context.config.num_static_categorical_features
    return ids(context.batch, count) if count else None


def static_real_features(context: InputContext) -> torch.Tensor | None:
    """Return the real-valued features of the whole series, if the model takes any."""
    count = context.config.num_static_real_features
    return _zeros(context, count) if count else None


def future_values(context: InputContext) -> torch.Tensor | None:
    """Return the inputs of the decoder; without a decoder they would be labels."""
    if not context.declares("future_time_features"):
        return None
    return _zeros(context, context.config.prediction_length, *_variates(context))


def future_time_features(context: InputContext) -> torch.Tensor:
    """Return the calendar features of each future step."""
    return _zeros(context, context.config.prediction_length, _time_features(context))


def past_values_padding(context: InputContext) -> torch.Tensor:
    """Return a padding mask without padding."""
    return ids(context.batch, _past(context))


def freq(context: InputContext) -> torch.Tensor:
    """Return the frequency category 0: hours and days."""
    return ids(context.batch, 1)


def timesteps(context: InputContext) -> torch.Tensor:
    """Return the steps of a trajectory, in order."""
    steps = _steps(context)
    return repeat_batch(
        materialize_if_small((1, steps), lambda: torch.arange(steps, device="cpu")[None]),
        context.batch,
    )


def _past(context: InputContext) -> int:
    config = context.config
    if lags := getattr(config, "lags_sequence", None):
        return int(config.context_length + max(lags))
    if context.declares("past_values_padding"):
        length = context.options.seq_len or min(DEFAULT_LENGTH, config.context_length)
        patch = int(config.patch_length)
        return math.ceil(length / patch) * patch
    return int(config.context_length)


def _variates(context: InputContext) -> tuple[int, ...]:
    if channels := getattr(context.config, "num_input_channels", None):
        return (int(channels),)
    size = getattr(context.config, "input_size", 1)
    return (int(size),) if size > 1 else ()


def _time_features(context: InputContext) -> int:
    return int(context.config.num_time_features + context.config.num_dynamic_real_features)


def _steps(context: InputContext) -> int:
    return context.options.seq_len or DEFAULT_STEPS


def _zeros(context: InputContext, *shape: int) -> torch.Tensor:
    return context.floats(context.batch, *shape)


RULES: dict[str, Callable[[InputContext], Any]] = {
    "past_values": past_values,
    "past_time_features": past_time_features,
    "past_observed_mask": past_observed_mask,
    "static_categorical_features": static_categorical_features,
    "static_real_features": static_real_features,
    "future_values": future_values,
    "future_time_features": future_time_features,
    "past_values_padding": past_values_padding,
    "freq": freq,
    "states": lambda s: _zeros(s, _steps(s), s.config.state_dim),
    "actions": lambda s: _zeros(s, _steps(s), s.config.act_dim) if s.declares("states") else None,
    "rewards": lambda s: _zeros(s, _steps(s), 1),
    "returns_to_go": lambda s: _zeros(s, _steps(s), 1),
    "timesteps": timesteps,
}
