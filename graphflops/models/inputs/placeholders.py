"""How many tokens of a prompt stand for an image or a clip."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from graphflops.capture.fake.fake_model import fakify_model_and_inputs
from graphflops.capture.torch_internals.trees import pytree
from graphflops.models.inputs.context import Subject


@dataclass(frozen=True)
class Placeholder:
    """A token that stands for features of another input, and how many of it a prompt has."""

    token: int
    count: int


_KINDS = (
    # What the config calls the token, the method that makes its features, an input it needs.
    (("image_token_id", "image_token_index"), "get_image_features", "pixel_values"),
    (("video_token_id", "video_token_index"), "get_video_features", "pixel_values_videos"),
    (("audio_token_id", "audio_token_index"), "get_audio_features", "input_features"),
    (("audio_token_id", "audio_token_index"), "get_audio_features", "input_values"),
)


def placeholders(subject: Subject) -> tuple[Placeholder, ...]:
    """The placeholders that a prompt for these images and clips must have, per example.

    A model knows best how many features it makes: it is asked, without data. Where it fails
    (a default config can have a vision part that does not fit the rest) the prompt is left
    without the image, and a note says so.
    """
    found = []
    for keys, method, name in _KINDS:
        token = subject.setting(*keys)
        if name in subject.made and token is not None and hasattr(subject.model, method):
            subject.refuse_many()
            try:
                features = _features(subject, method)
            except Exception as error:  # noqa: BLE001 - whatever the model raises is the answer
                _go_without(subject, name, method, error)
            else:
                found.append(Placeholder(int(token), features // subject.batch))
    return tuple(found)


def _features(subject: Subject, method: str) -> int:
    """Rows of features that a method of the model makes of the inputs so far."""
    make = getattr(subject.model, method)
    takes = inspect.signature(make).parameters
    inputs = {name: value for name, value in subject.made.items() if name in takes}
    with torch.no_grad():
        own = fakify_model_and_inputs(subject.model, (), inputs)
        with own.tracker.eager():
            made = getattr(own.model, method)(**own.kwargs)
    features = [t for t in pytree.tree_leaves(_embeddings(made)) if isinstance(t, torch.Tensor)]
    wide, tokens = features[0].shape[-1], subject.model.get_input_embeddings().weight.shape[-1]
    if wide != tokens:
        msg = f"its features are {wide} wide, the tokens of the prompt {tokens}"
        raise ValueError(msg)
    return sum(feature.numel() // wide for feature in features)


def _go_without(subject: Subject, name: str, method: str, error: Exception) -> None:
    if name in subject.required:
        return
    taken = inspect.signature(getattr(subject.model, method)).parameters
    for companion in [key for key in subject.made if key in taken]:
        del subject.made[companion]
    reason = next(iter(str(error).splitlines()), "")
    subject.notes.append(
        f"The prompt is text alone: {method} of {type(subject.model).__name__} fails on the "
        f"{name} made from its config ({type(error).__name__}: {reason})."
    )


def _embeddings(made: Any) -> Any:
    pooled = getattr(made, "pooler_output", None)
    return made if pooled is None else pooled
