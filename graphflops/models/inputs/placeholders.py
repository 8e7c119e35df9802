"""Placeholders: tokens of a prompt that stand for the features of an image or a clip."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from graphflops.capture.fake.fake_model import fakify_model_and_inputs
from graphflops.capture.torch_internals.trees import pytree
from graphflops.models.inputs.context import InputContext


@dataclass(frozen=True)
class Placeholder:
    """Token that stands for features of another input, with its number in a prompt."""

    token: int
    count: int


_FEATURE_METHODS = (
    # Config keys of the token, the method that computes its features, an input of the method.
    (("image_token_id", "image_token_index"), "get_image_features", "pixel_values"),
    (("video_token_id", "video_token_index"), "get_video_features", "pixel_values_videos"),
    (("audio_token_id", "audio_token_index"), "get_audio_features", "input_features"),
    (("audio_token_id", "audio_token_index"), "get_audio_features", "input_values"),
)


def find_placeholders(context: InputContext) -> tuple[Placeholder, ...]:
    """Return the placeholders that a prompt needs for the images and clips of one example.

    The model's own method computes the features under fake tensors, which gives their number.
    Where it fails (a default config can have a vision part that does not fit the rest) the image
    is left out, and a note says so.
    """
    placeholders = []
    for keys, method, name in _FEATURE_METHODS:
        token = context.setting(*keys)
        if (
            name in context.inputs
            and token is not None
            and hasattr(_owner(context, method), method)
        ):
            context.check_batch_size()
            try:
                features = _feature_count(context, method)
            except Exception as error:  # noqa: BLE001 - the model may raise anything
                _drop_input(context, name, method, error)
            else:
                placeholders.append(Placeholder(int(token), features // context.batch))
    return tuple(placeholders)


def _owner(context: InputContext, method: str) -> Any:
    """Return the model without its head if it has a method, to which the head's own delegates."""
    base = context.model.base_model
    return base if hasattr(base, method) else context.model


def _feature_count(context: InputContext, method: str) -> int:
    """Return the number of rows of features that a method computes from the inputs so far."""
    owner = _owner(context, method)
    parameters = inspect.signature(getattr(owner, method)).parameters
    inputs = {name: value for name, value in context.inputs.items() if name in parameters}
    with torch.no_grad():
        fake = fakify_model_and_inputs(owner, (), inputs)
        with fake.tracker.eager():
            output = getattr(fake.model, method)(**fake.kwargs)
    features = [t for t in pytree.tree_leaves(_embeddings(output)) if isinstance(t, torch.Tensor)]
    width = features[0].shape[-1]
    embedding_width = context.model.get_input_embeddings().weight.shape[-1]
    if width != embedding_width:
        msg = f"its features are {width} wide, the tokens of the prompt {embedding_width}"
        raise ValueError(msg)
    return sum(feature.numel() // width for feature in features)


def _drop_input(context: InputContext, name: str, method: str, error: Exception) -> None:
    if name in context.required_inputs:
        return
    parameters = inspect.signature(getattr(_owner(context, method), method)).parameters
    for companion in [key for key in context.inputs if key in parameters]:
        del context.inputs[companion]
    reason = next(iter(str(error).splitlines()), "")
    context.notes.append(
        f"The prompt is text alone: {method} of {type(context.model).__name__} fails on the "
        f"{name} made from its config ({type(error).__name__}: {reason})."
    )


def _embeddings(output: Any) -> Any:
    pooled = getattr(output, "pooler_output", None)
    return output if pooled is None else pooled
