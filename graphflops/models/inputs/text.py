"""Token ids and the inputs that go with them: bounding boxes, token types, decoder inputs.

A prompt has a placeholder for every feature of the images and clips that come with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from graphflops.errors import InputError
from graphflops.models.inputs.context import InputContext
from graphflops.models.inputs.placeholders import Placeholder, find_placeholders
from graphflops.models.inputs.tensors import full, ids, repeat_batch

DEFAULT_SEQ_LEN = 128
DEFAULT_QUESTION = 16
_POSITIONS = ("max_position_embeddings", "n_positions", "max_source_positions")


def input_ids(context: InputContext) -> torch.Tensor | None:
    """Return a prompt: placeholders first, then text."""
    if not context.needs_input("text", "input_ids"):
        return None
    return prompt(context, *find_placeholders(context))


def prompt(context: InputContext, *placeholders: Placeholder) -> torch.Tensor:
    """Return the token ids of a prompt with these placeholders."""
    tokens = full((1, _length(context, placeholders)), _text_token(placeholders))
    if placeholders:
        context.check_batch_size()
    start = 0
    for placeholder in placeholders:
        tokens[:, start : start + placeholder.count] = placeholder.token
        start += placeholder.count
    return repeat_batch(tokens, context.batch)


def decoder_input_ids(context: InputContext) -> torch.Tensor | None:
    """Return as many decoder tokens as encoder tokens, or the first token of a generation."""
    if not getattr(context.config, "is_encoder_decoder", False):
        return None
    if context.options.generates:
        return ids(context.batch, 1)
    return ids(context.batch, _length(context, ()))


def mm_token_type_ids(context: InputContext) -> torch.Tensor | None:
    """Return token types: 1 for the image placeholders of the prompt, 0 for text."""
    image = context.setting("image_token_id", "image_token_index", default=-1)
    if not {"input_ids", "pixel_values"} <= context.inputs.keys():
        return None
    tokens: torch.Tensor = context.inputs["input_ids"]
    return tokens.eq(image).to(torch.int64)


def bbox(context: InputContext) -> torch.Tensor:
    """Return the bounding box of each token on the page."""
    return ids(*context.inputs["input_ids"].shape, 4)


def _length(context: InputContext, placeholders: tuple[Placeholder, ...]) -> int:
    placeholder_count = sum(placeholder.count for placeholder in placeholders)
    positions = context.setting(*_POSITIONS, kind="text")
    if not (isinstance(positions, int) and positions > 0):
        positions = None  # some configs have -1 for no limit
    requested = context.options.seq_len
    if requested is None:
        text_length = min(DEFAULT_SEQ_LEN, positions) if positions else DEFAULT_SEQ_LEN
        if placeholder_count and positions:
            text_length = min(text_length, positions - placeholder_count)
        return placeholder_count + text_length
    if positions is not None and requested > positions:
        msg = (
            f"--seq-len {requested} is longer than the {positions} positions of "
            f"{type(context.model).__name__}. Ask for fewer, or --set max_position_embeddings."
        )
        raise InputError(msg)
    if requested <= placeholder_count:
        msg = (
            f"--seq-len {requested} leaves no room for text: {placeholder_count} tokens of the "
            f"prompt stand for its image or clip. Ask for more than {placeholder_count}."
        )
        raise InputError(msg)
    return requested


def _text_token(placeholders: tuple[Placeholder, ...]) -> int:
    """Return a token id that is not a placeholder."""
    reserved = {placeholder.token for placeholder in placeholders}
    return next(token for token in range(len(reserved) + 1) if token not in reserved)


def qformer_input_ids(context: InputContext) -> torch.Tensor:
    """Return the instruction as token ids of the querying transformer."""
    return ids(context.batch, DEFAULT_QUESTION)


RULES: dict[str, Callable[[InputContext], Any]] = {
    "input_ids": input_ids,
    "decoder_input_ids": decoder_input_ids,
    "mm_token_type_ids": mm_token_type_ids,
    "bbox": bbox,
    "moe_mm_token_type_ids": mm_token_type_ids,
    "lang_ids": lambda context: ids(context.batch),
    "qformer_input_ids": qformer_input_ids,
}
