"""Tiny models of transformers, and inputs that fit them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.real_runs.generation import Build, Generating, Inputs

WIDTH, VOCABULARY, IMAGE_TOKEN, WINDOW = 32, 100, 99, 8
BEFORE = 4
"""Tokens before those of an image: what padding on the left may hide."""
TEXT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": None,
}
"""Sizes of a decoder in the names that most configs have."""
VISION: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}
"""Sizes of a vision tower: an image is four patches."""


def without(settings: dict[str, Any], *names: str) -> dict[str, Any]:
    """All but some settings."""
    return {name: value for name, value in settings.items() if name not in names}


def build(name: str, settings: dict[str, Any], config: Any = None) -> Any:
    """A model of a class of transformers, from settings of its config or a config."""
    import transformers

    model_class = getattr(transformers, name)
    return model_class._from_config(config or model_class.config_class(**settings)).eval()


def tokens(batch: int, length: int) -> torch.Tensor:
    """Token ids that stand for nothing special."""
    return torch.randint(3, 90, (batch, length))


def text(batch: int, length: int) -> dict[str, Any]:
    """A prompt and its mask."""
    ids = tokens(batch, length)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def with_images(placeholders: int, more: Callable[[int, dict[str, Any]], dict[str, Any]]) -> Inputs:
    """A prompt with the placeholders of an image in it, and the image.

    Args:
        placeholders: Tokens that stand for the image of a sequence.
        more: Further inputs, from the batch and the prompt.
    """

    def inputs(batch: int, length: int) -> dict[str, Any]:
        prompt = text(batch, length + placeholders)
        prompt["input_ids"][:, BEFORE : BEFORE + placeholders] = IMAGE_TOKEN
        return prompt | more(batch, prompt)

    return inputs


def pixels(*size: int) -> Callable[[int, dict[str, Any]], dict[str, Any]]:
    """Images of a size, one for each sequence."""
    return lambda batch, _: {"pixel_values": torch.randn(batch, *size)}


def case(
    name: str, settings: dict[str, Any], inputs: Inputs = text, *, is_text: bool = True
) -> Build:
    """A case of a class, its settings and its inputs."""
    return lambda: Generating(model=build(name, settings), inputs=inputs, text=is_text)
