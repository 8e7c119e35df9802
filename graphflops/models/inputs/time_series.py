"""Time series, and trajectories of states and actions.

A series is as long as the model's context, with the past that its lags reach back to. A
model that takes series of any length gets ``--seq-len`` steps of it, or 512.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from graphflops.models.inputs.context import Subject
from graphflops.models.inputs.tensors import filled, ids, repeated, valued

DEFAULT_LENGTH = 512
DEFAULT_STEPS = 20  # of a trajectory: the context of the published decision transformers


def past_values(subject: Subject) -> torch.Tensor:
    """A series for every example, with an axis for its variates where the model has one."""
    return _zeros(subject, _past(subject), *_variates(subject))


def past_time_features(subject: Subject) -> torch.Tensor:
    """What the calendar says of each step."""
    return _zeros(subject, _past(subject), _time_features(subject))


def past_observed_mask(subject: Subject) -> torch.Tensor | None:
    """Which values were observed: all. Only models that cannot do without get it."""
    if "past_observed_mask" not in subject.required:
        return None
    return filled((subject.batch, _past(subject), *_variates(subject)), True, torch.bool)


def static_categorical_features(subject: Subject) -> torch.Tensor | None:
    """Which of several series it is."""
    count = subject.config.num_static_categorical_features
    return ids(subject.batch, count) if count else None


def static_real_features(subject: Subject) -> torch.Tensor | None:
    """What is known of the whole series."""
    count = subject.config.num_static_real_features
    return _zeros(subject, count) if count else None


def future_values(subject: Subject) -> torch.Tensor | None:
    """What the decoder of a series is given; labels, where there is no decoder."""
    if not subject.takes("future_time_features"):
        return None
    return _zeros(subject, subject.config.prediction_length, *_variates(subject))


def future_time_features(subject: Subject) -> torch.Tensor:
    """What the calendar says of each step to come."""
    return _zeros(subject, subject.config.prediction_length, _time_features(subject))


def past_values_padding(subject: Subject) -> torch.Tensor:
    """Which steps are padding: none."""
    return ids(subject.batch, _past(subject))


def freq(subject: Subject) -> torch.Tensor:
    """How fast the series runs: the first kind, hours and days."""
    return ids(subject.batch, 1)


def timesteps(subject: Subject) -> torch.Tensor:
    """Steps of a trajectory, in order."""
    steps = _steps(subject)
    return repeated(
        valued((1, steps), lambda: torch.arange(steps, device="cpu")[None]), subject.batch
    )


def _past(subject: Subject) -> int:
    config = subject.config
    if lags := getattr(config, "lags_sequence", None):
        return int(config.context_length + max(lags))
    if subject.takes("past_values_padding"):
        length = subject.options.seq_len or min(DEFAULT_LENGTH, config.context_length)
        patch = int(config.patch_length)
        return math.ceil(length / patch) * patch
    return int(config.context_length)


def _variates(subject: Subject) -> tuple[int, ...]:
    if channels := getattr(subject.config, "num_input_channels", None):
        return (int(channels),)
    size = getattr(subject.config, "input_size", 1)
    return (int(size),) if size > 1 else ()


def _time_features(subject: Subject) -> int:
    return int(subject.config.num_time_features + subject.config.num_dynamic_real_features)


def _steps(subject: Subject) -> int:
    return subject.options.seq_len or DEFAULT_STEPS


def _zeros(subject: Subject, *shape: int) -> torch.Tensor:
    return subject.floats(subject.batch, *shape)


RULES: dict[str, Callable[[Subject], Any]] = {
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
    "actions": lambda s: _zeros(s, _steps(s), s.config.act_dim) if s.takes("states") else None,
    "rewards": lambda s: _zeros(s, _steps(s), 1),
    "returns_to_go": lambda s: _zeros(s, _steps(s), 1),
    "timesteps": timesteps,
}
