"""The few models whose inputs no general rule can tell: their own come before the general ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphflops.models.inputs import audio, overrides_audio, overrides_vision
from graphflops.models.inputs.context import Subject


def rules(model: Any) -> dict[str, Callable[[Subject], Any]]:
    """Rules of a model's class, or of the family that its class is one of."""
    family = overrides_audio.FAMILIES.get(audio.family(model), {})
    name = type(model).__name__
    if getattr(model, "can_generate", bool)():
        # A model that generates takes what the model without its head takes.
        family = family | overrides_vision.CLASSES.get(name.partition("For")[0] + "Model", {})
    return family | overrides_audio.CLASSES.get(name, {}) | overrides_vision.CLASSES.get(name, {})
