"""Clips of sound, as the feature extractor that goes with a model makes them of silence.

Every example gets one clip of ``--audio-seconds``: by default the window that the extractor
pads to (30 seconds for Whisper's), else 10 seconds. The extractor is built without files, from
the config; one that transformers has no class for, or whose packages are not installed,
is stood in for by shapes from the config.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from graphflops.errors import ModelSpecError
from graphflops.models.inputs.context import Subject
from graphflops.models.inputs.tensors import blank, filled, repeated, valued

DEFAULT_SECONDS = 10.0
LONGEST = 600
"""Seconds of the longest clip that an extractor is run on, whose memory and time grow with it."""
DEFAULT_SAMPLING_RATE = 16_000
DEFAULT_BINS = 80
FRAMES_PER_SECOND = 100  # of nearly every spectrogram for speech

Clip = Mapping[str, torch.Tensor]

# Families that transformers names no extractor for, or not the one of their checkpoints.
_EXTRACTORS = {
    "musicflamingo": "WhisperFeatureExtractor",
    "wav2vec2_bert": "SeamlessM4TFeatureExtractor",
}
_BINS = ("num_mel_bins", "n_mel_bins", "input_feat_per_channel")
# Masks that processors rename, and those that a model needs whatever its extractor does.
_RENAMED = ("attention_mask", "input_features_mask")
# Without these in its config, a model that could hear does not.
_EARS = ("audio_config", "audio_token_id")
_CLIPS = ("input_features", "input_values", "audio_input_features")
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
    return lambda subject: _output(subject, name) if _is_heard(subject) else None


def mask(name: str) -> Callable[[Subject], torch.Tensor | None]:
    """A rule for the mask of which frames or samples are no padding."""
    return lambda subject: _mask(subject, name)


def latents(subject: Subject) -> torch.Tensor:
    """What the decoder of a codec is given: frames of the width of its model."""
    frames = math.ceil(seconds(subject) * subject.config.frame_rate)
    return subject.floats(subject.batch, subject.config.hidden_size, frames)


def hears(subject: Subject, name: str) -> bool:
    """Whether to make a clip for an input: the model asks for it, and can hear."""
    if not subject.sees("audio", name):
        return False
    absent = [key for key in _EARS if getattr(subject.config, key, key) is None]
    if absent and not subject.notes:
        subject.notes.append(f"There is no clip: the config has no {absent[0]}.")
    return not absent


def seconds(subject: Subject) -> float:
    """Length of a clip, if the extractor has no say in it."""
    return subject.options.audio_seconds or DEFAULT_SECONDS


def family(model: Any) -> str:
    """Name of the package that a model and its parts are defined in, e.g. ``whisper``."""
    return str(type(model).__module__.split(".")[-2])


def clip(subject: Subject) -> Clip:
    """What the extractor of the model's family makes of a clip for every example."""
    name = family(subject.model)
    if name in _STAND_INS:
        one = _STAND_INS[name](subject, round(seconds(subject) * DEFAULT_SAMPLING_RATE))
    else:
        one = _from_extractor(subject, _extractor_class(name)) or _from_config(subject)
    return {name: repeated(value, subject.batch) for name, value in one.items()}


def _from_extractor(subject: Subject, extractor: Any) -> Clip | None:
    if extractor is None:
        return None
    settings = tuple(_settings(subject, extractor))
    masked = not subject.declared.isdisjoint(_NEEDED)
    try:
        return _extracted(extractor, settings, subject.options.audio_seconds, masked)
    except ImportError:  # a package that the extractor computes with is not installed
        return None


@functools.cache
def _extractor_class(name: str) -> Any:
    """The feature extractor of a family, if there is one."""
    from transformers.models.auto import feature_extraction_auto as auto
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    of_type = auto.FEATURE_EXTRACTOR_MAPPING_NAMES.items()
    found = {model_type_to_module_name(kind): extractor for kind, extractor in of_type}
    named = (found | _EXTRACTORS).get(name)
    return named and auto.feature_extractor_class_from_name(named)


def _settings(subject: Subject, extractor: Any) -> list[tuple[str, Any]]:
    """Arguments of an extractor that the config has a say in."""
    declared = inspect.signature(extractor).parameters
    keys = {
        "sampling_rate": ("sampling_rate", "sample_rate"),
        "hop_length": ("hop_length",),
        "max_length": ("max_length",),
        "num_mel_bins": _BINS,
        # One feature is a sample, of which there is one per channel.
        "feature_size": ("audio_channels",)
        if "feature_size" in declared and declared["feature_size"].default == 1
        else _BINS,
        "chunk_length_s": ("chunk_length_s",),
        "overlap": ("overlap",),
    }
    said = [(name, _said(subject, *keys[name])) for name in keys if name in declared]
    if "truncation" in declared and not _said(subject, "enable_fusion"):
        # CLAP's extractor is for models that fuse several views of a long clip, unless told.
        said.append(("truncation", "rand_trunc"))
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
    if asked and asked > LONGEST:
        msg = (
            f"--audio-seconds {asked:g} is longer than the {LONGEST:,} seconds that "
            f"{extractor_class.__name__} is run on here, on real silence. Ask for at most "
            f"{LONGEST}, or give the shape of what it makes by --input."
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
    """Samples, and a spectrogram of the usual rate, for a model without an extractor."""
    bins = _said(subject, "feature_projection_input_dim", *_BINS)
    rate = _said(subject, "sampling_rate", "sample_rate") or DEFAULT_SAMPLING_RATE
    frames = int(seconds(subject) * FRAMES_PER_SECOND)
    return {
        "input_values": _silence(1, round(seconds(subject) * rate)),
        "input_features": _silence(1, frames, bins or DEFAULT_BINS),
    }


def _granite_speech(subject: Subject, samples: int) -> Clip:
    """Pairs of frames, and a mask of what is left of them after the projector."""
    config = subject.config
    pairs = (samples // 160 + 1) // 2
    rows = math.ceil(pairs / config.window_size) * (config.window_size // config.downsample_rate)
    width = config.encoder_config.input_dim
    return {
        "input_features": _silence(1, pairs, width),
        "input_features_mask": _true(rows),
    }


def _granite_speech5(subject: Subject, samples: int) -> Clip:
    """Pairs of frames and of their deltas."""
    pairs = math.ceil(samples // 160 / 2)
    width = 4 * _said(subject, "num_mel_bins")
    return {
        "input_features": _silence(1, pairs, width),
        "attention_mask": _true(pairs).long(),
    }


def _fun_asr_nano(subject: Subject, samples: int) -> Clip:
    """Every sixth frame, with its neighbours: seven of them in a row."""
    rows = math.ceil(_kaldi_frames(samples) / 6)
    width = 7 * _said(subject, "num_mel_bins")
    return {
        "input_features": _silence(1, rows, width),
        "input_features_mask": _true(rows).int(),
    }


def _two_ears(margin: int) -> Callable[[Subject, int], Clip]:
    """Samples, in whole hops, for the acoustic encoder; pairs of frames for the semantic one."""

    def clip_of(subject: Subject, samples: int) -> Clip:
        del subject  # both extractors are the same for every config
        heard = samples + 1
        padded = math.ceil(heard / 320) * 320
        pairs = math.ceil(_kaldi_frames(padded + margin) / 2)
        return {
            "input_values": _silence(1, 1, padded),
            "padding_mask": valued(
                (1, padded),
                lambda: (torch.arange(padded, device="cpu") < heard).int()[None],
                torch.int32,
            ),
            "input_features": _silence(1, pairs, 160),
            "input_features_mask": _true(pairs).int(),
        }

    return clip_of


def _kaldi_frames(samples: int) -> int:
    """Frames of 25 ms, 10 ms apart, that fit into a clip."""
    return 1 + (samples - 400) // 160


def _true(length: int) -> torch.Tensor:
    return filled((1, length), True, torch.bool)


def _silence(*shape: int) -> torch.Tensor:
    return blank(shape, torch.float32)


# Extractors that need torchaudio, written down so that inputs are the same without it.
_STAND_INS: dict[str, Callable[[Subject, int], Clip]] = {
    "granite_speech": _granite_speech,
    "granite_speech_plus": _granite_speech,
    "granite_speech5": _granite_speech5,
    "fun_asr_nano": _fun_asr_nano,
    "xcodec2": _two_ears(margin=320),
    "neucodec": _two_ears(margin=0),
}


def _said(subject: Subject, *keys: str) -> Any:
    """What the config says of sound: in the part that hears, in the encoder, or on the whole."""
    said = (subject.setting(*keys, kind=kind) for kind in ("audio", "encoder", "asr"))
    return next((value for value in said if value is not None), None)


def _heard(subject: Subject, name: str) -> torch.Tensor | None:
    return _output(subject, name) if hears(subject, name) else None


def _is_heard(subject: Subject) -> bool:
    """Whether the inputs made so far hold a clip."""
    return not subject.made.keys().isdisjoint(_CLIPS)


def _output(subject: Subject, name: str) -> torch.Tensor | None:
    """An output of the extractor: floating ones without values, masks and counts with them."""
    value = clip(subject).get(name)
    if value is None or not value.is_floating_point():
        return value
    return subject.floats(*value.shape)


def _mask(subject: Subject, name: str) -> torch.Tensor | None:
    found = clip(subject) if _is_heard(subject) else {}
    return next((found[key] for key in (name, *_RENAMED) if key in found), None)


RULES: dict[str, Callable[[Subject], Any]] = {
    "input_features": input_features,
    "input_values": input_values,
    "audio_input_features": lambda s: _heard(s, "audio_input_features"),
    "input_features_mask": mask("input_features_mask"),
    "feature_attention_mask": mask("feature_attention_mask"),
    "padding_mask": along("padding_mask"),
    "attention_mask": attention_mask,
    "is_longer": along("is_longer"),
    "noise_sequence": along("noise_sequence"),
    "chunk_sample_lengths": along("chunk_sample_lengths"),
    "audio_embed_sizes": along("audio_embed_sizes"),
    "audio_attention_mask": along("audio_attention_mask"),
    "latents": latents,
}
