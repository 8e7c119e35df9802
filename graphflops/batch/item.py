"""One item of a batch: a model, what is counted of it, and the sizes that it is counted with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any


class Mode(StrEnum):
    """Kind of count of a model."""

    COUNT = "count"
    TRAIN = "train"
    GENERATE = "generate"
    MEMORY = "memory"
    TIME = "time"


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A count that a batch is asked for.

    Attributes:
        model: Name of the model, as ``graphflops count`` takes it.
        mode: What is counted.
        batch_size: First axis of the inputs made; the model's default if ``None``.
        seq_len: Tokens of the text inputs made; likewise.
        image_size: Height and width of the images made, in pixels; likewise.
        dtype: Floating-point type; likewise.
        convention: Way of counting; ``None`` where the mode has none.
        device: Device whose time is told; ``None`` in other modes.
        new_tokens: Tokens to produce for each prompt; ``None`` in other modes.
        overrides: Config keys to set.
    """

    model: str
    mode: Mode = Mode.COUNT
    batch_size: int | None = None
    seq_len: int | None = None
    image_size: int | None = None
    dtype: str | None = None
    convention: str | None = None
    device: str | None = None
    new_tokens: int | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the item as plain data, with the keys of a spec.

        Example:
            >>> Item(model="hf:bert", convention="exact").to_dict()["model"]
            'hf:bert'
        """
        values = asdict(self) | {"mode": self.mode.value}
        overrides = values.pop("overrides")
        return values | {"set": overrides}

    @property
    def key(self) -> str:
        """Text that is equal for equal items alone."""
        return item_key(self.to_dict())


def item_key(item: Mapping[str, Any]) -> str:
    """Return the key of an item that is plain data, as records have it."""
    return json.dumps(item, sort_keys=True)
