"""Rules of single models and families, which take precedence over the general rules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflops.models.inputs import audio, overrides_audio, overrides_vision
from graphflops.models.inputs.context import InputContext


def rules(model: Any) -> dict[str, Callable[[InputContext], Any]]:
    """Return the rules of a model's class and of its family."""
    family = overrides_audio.FAMILIES.get(audio.model_family(model), {})
    name = type(model).__name__
    if getattr(model, "can_generate", bool)():
        # A model that generates takes the same inputs as its base model, which has no head.
        family = family | overrides_vision.CLASSES.get(name.partition("For")[0] + "Model", {})
    return family | overrides_audio.CLASSES.get(name, {}) | overrides_vision.CLASSES.get(name, {})
