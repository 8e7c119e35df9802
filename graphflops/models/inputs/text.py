"""Token ids, and what goes along with them: boxes, types, the decoder's side.

A prompt holds a placeholder for every feature of the images and clips that come with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from graphflops.errors import ModelSpecError
from graphflops.models.inputs.context import Subject
from graphflops.models.inputs.placeholders import Placeholder, placeholders
from graphflops.models.inputs.tensors import filled, ids, repeated

DEFAULT_SEQ_LEN = 128
DEFAULT_QUESTION = 16
_POSITIONS = ("max_position_embeddings", "n_positions", "max_source_positions")


def input_ids(subject: Subject) -> torch.Tensor | None:
    """A prompt: placeholders first, then text."""
    if not (subject.sees("text", "input_ids")):
        return None
    return prompt(subject, *placeholders(subject))


def prompt(subject: Subject, *held: Placeholder) -> torch.Tensor:
    """Token ids of a prompt that holds these placeholders."""
    tokens = filled((1, _length(subject, held)), _filler(held))
    if held:
        subject.refuse_many()
    start = 0
    for placeholder in held:
        tokens[:, start : start + placeholder.count] = placeholder.token
        start += placeholder.count
    return repeated(tokens, subject.batch)


def decoder_input_ids(subject: Subject) -> torch.Tensor | None:
    """As many tokens for the decoder as for the encoder; one to begin a generation with."""
    if not getattr(subject.config, "is_encoder_decoder", False):
        return None
    if subject.options.generates:
        return ids(subject.batch, 1)
    return ids(subject.batch, _length(subject, ()))


def mm_token_type_ids(subject: Subject) -> torch.Tensor | None:
    """Which tokens of the prompt stand for an image (1)."""
    image = subject.setting("image_token_id", "image_token_index", default=-1)
    if not {"input_ids", "pixel_values"} <= subject.made.keys():
        return None
    tokens: torch.Tensor = subject.made["input_ids"]
    return tokens.eq(image).to(torch.int64)


def bbox(subject: Subject) -> torch.Tensor:
    """Where on the page each token stands."""
    return ids(*subject.made["input_ids"].shape, 4)


def _length(subject: Subject, held: tuple[Placeholder, ...]) -> int:
    taken = sum(placeholder.count for placeholder in held)
    positions = subject.setting(*_POSITIONS, kind="text")
    if not (isinstance(positions, int) and positions > 0):
        positions = None  # some say -1 where there is no limit
    asked = subject.options.seq_len
    if asked is None:
        free = min(DEFAULT_SEQ_LEN, positions) if positions else DEFAULT_SEQ_LEN
        return taken + (free if not taken or not positions else min(free, positions - taken))
    if positions is not None and asked > positions:
        msg = (
            f"--seq-len {asked} is longer than the {positions} positions of "
            f"{type(subject.model).__name__}. Ask for fewer, or --set max_position_embeddings."
        )
        raise ModelSpecError(msg)
    if asked <= taken:
        msg = (
            f"--seq-len {asked} leaves no room for text: {taken} tokens of the prompt stand for "
            f"its image or clip. Ask for more than {taken}."
        )
        raise ModelSpecError(msg)
    return asked


def _filler(held: tuple[Placeholder, ...]) -> int:
    """A token that stands for nothing else."""
    taken = {placeholder.token for placeholder in held}
    return next(token for token in range(len(taken) + 1) if token not in taken)


def qformer_input_ids(subject: Subject) -> torch.Tensor:
    """The instruction once more, in the words of the querying transformer."""
    return ids(subject.batch, DEFAULT_QUESTION)


RULES: dict[str, Callable[[Subject], Any]] = {
    "input_ids": input_ids,
    "decoder_input_ids": decoder_input_ids,
    "mm_token_type_ids": mm_token_type_ids,
    "bbox": bbox,
    "moe_mm_token_type_ids": mm_token_type_ids,
    "lang_ids": lambda subject: ids(subject.batch),
    "qformer_input_ids": qformer_input_ids,
}
