"""Inputs made from what a model declares: one table of rules, by what an input is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflops.models.inputs import audio, overrides, text, time_series, vision
from graphflops.models.inputs.context import Subject
from graphflops.models.inputs.user_inputs import (
    floating_dtype,
    given_inputs,
    given_tensor,
    require_inputs,
)
from graphflops.models.workload import Options

Make = Callable[[Subject], Any]

# In the order they are made: text comes last, it holds placeholders for everything else.
RULES: dict[str, Make] = {**vision.RULES, **audio.RULES, **time_series.RULES, **text.RULES}


def transformers_inputs(
    model: Any, config: Any, options: Options
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What a user would give a transformers model to try it: a prompt, an image, a clip.

    A rule makes an input or says with ``None`` that this model does without.

    Returns:
        Inputs by name, and notes on them.

    Raises:
        ModelSpecError: A required input is of a kind that has no rule, or a size asked for
            does not fit the model.
    """
    _name_placeholders(config)
    subject = Subject(model, config, options)
    for name, make in (RULES | overrides.rules(model)).items():
        if name in subject.declared:
            value = make(subject)
            if name in options.inputs:
                # Now, so that what is made after it fits.
                value = given_tensor(options.inputs[name], value, floating_dtype(options.dtype))
            if value is not None:
                subject.made[name] = value
    _refuse_idle_sizes(subject)
    if "use_cache" in subject.declared:
        # One forward pass: a cache would add copies that only generation needs.
        subject.made["use_cache"] = False
    inputs = given_inputs(model, subject.made, options)
    require_inputs(model, (), inputs)
    return inputs, tuple(subject.notes)


# What each size says something about; asked for in vain, it would be ignored.
_SIZED = {
    "seq_len": {"input_ids", "decoder_input_ids", "past_values", "states"},
    "image_size": {"pixel_values", "pixel_values_videos", "hidden_states", "flattened_patches"},
    "audio_seconds": {"input_features", "input_values", "audio_input_features", "audio_mel"},
}


def _refuse_idle_sizes(subject: Subject) -> None:
    for option, inputs in _SIZED.items():
        if not inputs & subject.made.keys():
            subject.options.forbid(type(subject.model).__name__, option)


def _name_placeholders(config: Any) -> None:
    """A default config may leave open which token stands for an image: the last one does."""
    for key in ("image_token_id", "image_token_index", "video_token_id", "video_token_index"):
        part = getattr(config, "text_config", None) or config
        vocabulary = getattr(part, "vocab_size", None)
        if getattr(config, key, 0) is None and vocabulary:
            setattr(config, key, vocabulary - 1)
