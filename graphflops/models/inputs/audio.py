"""Clips of sound, as the feature extractor that goes with a model makes them of silence.

Every example gets one clip of ``--audio-seconds``: by default the window that the extractor
pads to (30 seconds for Whisper's), else 10 seconds. The extractor is built without files, from
the config; one that transformers has no class for, or whose packages are not installed,
is stood in for by shapes from the config.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch

from graphflops.errors import ModelSpecError
from graphflops.models.inputs.subject import Subject

DEFAULT_SECONDS = 10.0
DEFAULT_SAMPLING_RATE = 16_000
FRAMES_PER_SECOND = 100  # of nearly every spectrogram for speech

Clip = Mapping[str, torch.Tensor]

# Families that transformers names no extractor for, or not the one of their checkpoints.
_EXTRACTORS = {
    "musicflamingo": "WhisperFeatureExtractor",
    "wav2vec2_bert": "SeamlessM4TFeatureExtractor",
}
# Masks that processors rename, and those that a model needs whatever its extractor does.
_RENAMED = ("attention_mask", "input_features_mask")
_NEEDED = ("input_features_mask", "feature_attention_mask", "audio_attention_mask")


def input_features(subject: Subject) -> torch.Tensor | None:
    """The spectrogram of a clip."""
    return _heard(subject, "input_features")


def input_values(subject: Subject) -> torch.Tensor | None:
    """The samples of a clip (or what else its extractor calls values)."""
    return _heard(subject, "input_values")


def attention_mask(subject: Subject) -> torch.Tensor | None:
    """Which frames are no padding, unless the mask is one of text."""
    return None if subject.takes("input_ids") else _mask(subject, "attention_mask")


def along(name: str) -> Callable[[Subject], torch.Tensor | None]:
    """A rule for what the extractor gives along with a clip, under a name of its own."""
    return lambda subject: _heard(subject, name)


def mask(name: str) -> Callable[[Subject], torch.Tensor | None]:
    """A rule for the mask of which frames or samples are no padding."""
    return lambda subject: _mask(subject, name)


def hears(subject: Subject, name: str) -> bool:
    """Whether to make a clip for an input: the model asks for it and has ears."""
    deaf = getattr(subject.config, "audio_config", subject) is None
    return subject.sees("audio", name) and not deaf


def seconds(subject: Subject, default: float = DEFAULT_SECONDS) -> float:
    """Length of a clip."""
    return subject.options.audio_seconds or default


def sampling_rate(subject: Subject) -> int:
    """Samples in a second."""
    return int(_said(subject, "sampling_rate", "sample_rate", default=DEFAULT_SAMPLING_RATE))


def family(model: Any) -> str:
    """Name of the package that a model and its parts are defined in, e.g. ``whisper``."""
    return str(type(model).__module__.split(".")[-2])


def clip(subject: Subject) -> Clip:
    """What the extractor of the model's family makes of a clip for every example."""
    name = family(subject.model)
    extractor = _extractor_class(name)
    if name in stand_ins.CLIPS:
        one = stand_ins.CLIPS[name](subject.config, _samples(subject))
    elif extractor is None:
        one = _from_config(subject)
    else:
        settings = tuple(_settings(subject, extractor))
        masked = not subject.declared.isdisjoint(_NEEDED)
        one = _extracted(extractor, settings, subject.options.audio_seconds, masked)
    return {
        name: value.repeat(subject.batch, *[1] * (value.dim() - 1)) for name, value in one.items()
    }


@functools.cache
def _extractor_class(name: str) -> Any:
    """The feature extractor of a family; None if there is none, or not in this environment."""
    from transformers.models.auto import feature_extraction_auto as auto
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    of_type = auto.FEATURE_EXTRACTOR_MAPPING_NAMES.items()
    found = {model_type_to_module_name(kind): extractor for kind, extractor in of_type}
    named = (found | _EXTRACTORS).get(name)
    extractor = named and auto.feature_extractor_class_from_name(named)
    # A class whose packages are missing is a stand-in that raises.
    return None if getattr(extractor, "is_dummy", False) else extractor


def _settings(subject: Subject, extractor: Any) -> list[tuple[str, Any]]:
    """Arguments of an extractor that the config has a say in."""
    declared = inspect.signature(extractor).parameters
    bins = ("num_mel_bins", "n_mel_bins", "input_feat_per_channel")
    keys = {
        "sampling_rate": ("sampling_rate", "sample_rate"),
        "hop_length": ("hop_length",),
        "max_length": ("max_length",),
        "num_mel_bins": bins,
        # One feature is a sample, of which there is one per channel.
        "feature_size": ("audio_channels",)
        if "feature_size" in declared and declared["feature_size"].default == 1
        else bins,
        "chunk_length_s": ("chunk_length_s",),
        "overlap": ("overlap",),
    }
    said = [(name, _said(subject, *keys[name])) for name in keys if name in declared]
    return [(name, value) for name, value in said if value is not None]


@functools.lru_cache(maxsize=8)
def _extracted(
    extractor_class: Any, settings: tuple[tuple[str, Any], ...], asked: float | None, masked: bool
) -> Clip:
    import numpy as np

    extractor = extractor_class(**dict(settings))
    window = _window(extractor)
    if asked and window and asked > window:
        msg = (
            f"--audio-seconds {asked:g} is longer than the {window:g} seconds that "
            f"{extractor_class.__name__} takes at once. Ask for at most {window:g}."
        )
        raise ModelSpecError(msg)
    rate = extractor.sampling_rate
    silence = np.zeros(round((asked or window or DEFAULT_SECONDS) * rate), dtype=np.float32)
    asks = {"return_attention_mask": True} if masked else {}
    with torch.device("cpu"):
        made = extractor([silence], sampling_rate=rate, return_tensors="pt", **asks)
    return {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}


def _window(extractor: Any) -> float | None:
    """Seconds that an extractor pads every clip to, and cuts it at."""
    return getattr(extractor, "chunk_length", None)


def _from_config(subject: Subject) -> Clip:
    length = seconds(subject)
    bins = _said(subject, "feature_projection_input_dim", "num_mel_bins", "input_dim", default=80)
    frames = int(length * FRAMES_PER_SECOND)
    return {
        "input_values": torch.zeros(1, round(length * sampling_rate(subject)), device="meta"),
        "input_features": torch.zeros(1, frames, int(bins), device="meta"),
    }


def _said(subject: Subject, *keys: str, default: Any = None) -> Any:
    """What the config says of sound, in the part that hears or else the encoder."""
    value = subject.setting(*keys, kind="audio")
    return subject.setting(*keys, kind="encoder", default=default) if value is None else value


def _floating(subject: Subject, value: torch.Tensor | None) -> torch.Tensor | None:
    if value is None:
        return None
    return torch.zeros(value.shape, dtype=subject.dtype, device="meta")


RULES: dict[str, Callable[[Subject], Any]] = {
    "input_features": input_features,
    "input_values": input_values,
    "input_features_mask": mask,
    "feature_attention_mask": mask,
    "padding_mask": mask,
    "attention_mask": attention_mask,
}
