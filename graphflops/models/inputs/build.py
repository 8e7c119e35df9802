"""Inputs of a transformers model, built by a table of rules: one rule for each input name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflops.models.inputs import audio, overrides, text, time_series, vision
from graphflops.models.inputs.context import InputContext
from graphflops.models.inputs.user_inputs import (
    apply_user_inputs,
    floating_dtype,
    require_inputs,
    user_tensor,
)
from graphflops.models.workload import Options

Rule = Callable[[InputContext], Any]

# In order of evaluation: text comes last, because it has placeholders for all other inputs.
RULES: dict[str, Rule] = {**vision.RULES, **audio.RULES, **time_series.RULES, **text.RULES}


def transformers_inputs(
    model: Any, config: Any, options: Options
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Build typical inputs of a transformers model: a prompt, an image, a clip.

    A rule returns an input, or ``None`` if this model does not need it.

    Returns:
        Inputs by name, and notes on them.

    Raises:
        ModelSpecError: A required input is of a kind that has no rule, or a size asked for
            does not fit the model.
    """
    _set_placeholder_ids(config)
    context = InputContext(model, config, options)
    for name, rule in (RULES | overrides.rules(model)).items():
        if name in context.input_names:
            value = rule(context)
            if name in options.inputs:
                # Applied here, so that the inputs built after it fit.
                value = user_tensor(options.inputs[name], value, floating_dtype(options.dtype))
            if value is not None:
                context.inputs[name] = value
    _reject_unused_sizes(context)
    if "use_cache" in context.input_names:
        # One forward pass: a cache would add copies that only generation needs.
        context.inputs["use_cache"] = False
    inputs = apply_user_inputs(model, context.inputs, options)
    require_inputs(model, (), inputs)
    return inputs, tuple(context.notes)


# Inputs that follow each size option; without any of them, the option would have no effect.
_SIZED_INPUTS = {
    "seq_len": {"input_ids", "decoder_input_ids", "past_values", "states"},
    "image_size": {"pixel_values", "pixel_values_videos", "hidden_states", "flattened_patches"},
    "audio_seconds": {"input_features", "input_values", "audio_input_features", "audio_mel"},
}


def _reject_unused_sizes(context: InputContext) -> None:
    for option, inputs in _SIZED_INPUTS.items():
        if not inputs & context.inputs.keys():
            context.options.forbid(type(context.model).__name__, option)


def _set_placeholder_ids(config: Any) -> None:
    """Set placeholder token ids that a default config leaves open to the last token."""
    for key in ("image_token_id", "image_token_index", "video_token_id", "video_token_index"):
        part = getattr(config, "text_config", None) or config
        vocabulary = getattr(part, "vocab_size", None)
        if getattr(config, key, 0) is None and vocabulary:
            setattr(config, key, vocabulary - 1)
