"""Audio inputs: outputs of a model's feature extractor for a silent clip.

Every example gets one clip of ``--audio-seconds``: by default the window that the extractor
pads to (30 seconds for Whisper's), else 10 seconds. The extractor is built from the config,
without files. If transformers has no class for it, or its packages are not installed, shapes
from the config replace its outputs.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import torch

from graphflops.errors import InputError
from graphflops.models.inputs.context import InputContext
from graphflops.models.inputs.tensors import full, materialize_if_small, meta_tensor, repeat_batch

DEFAULT_SECONDS = 10.0
MAX_SECONDS = 600
"""Seconds of the longest clip that an extractor runs on; its time and memory grow with it."""
DEFAULT_SAMPLING_RATE = 16_000
DEFAULT_BINS = 80
FRAMES_PER_SECOND = 100  # of nearly every spectrogram for speech

ExtractorOutputs = Mapping[str, torch.Tensor]

# Families without an extractor in transformers, or whose checkpoints have another one.
_EXTRACTORS = {
    "musicflamingo": "WhisperFeatureExtractor",
    "wav2vec2_bert": "SeamlessM4TFeatureExtractor",
}
_BINS = ("num_mel_bins", "n_mel_bins", "input_feat_per_channel")
# Masks that processors rename, and those that models need whatever the extractor returns.
_MASK_NAMES = ("attention_mask", "input_features_mask")
# A model without these in its config has no audio input, even if its class has one.
_AUDIO_KEYS = ("audio_config", "audio_token_id")
_CLIP_INPUTS = ("input_features", "input_values", "audio_input_features")
_REQUIRED_MASKS = ("input_features_mask", "feature_attention_mask", "audio_attention_mask")


def input_features(context: InputContext) -> torch.Tensor | None:
    """Return the spectrogram of a clip."""
    return _clip_input(context, "input_features")


def input_values(context: InputContext) -> torch.Tensor | None:
    """Return the samples of a clip, or another output that its extractor calls values."""
    return _clip_input(context, "input_values")


def attention_mask(context: InputContext) -> torch.Tensor | None:
    """Return the padding mask of the frames, unless the mask belongs to text."""
    return None if context.declares("input_ids") else _mask(context, "attention_mask")


def output_rule(name: str) -> Callable[[InputContext], torch.Tensor | None]:
    """Return a rule for an additional output of the extractor."""
    return lambda context: _output(context, name) if _has_clip(context) else None


def mask_rule(name: str) -> Callable[[InputContext], torch.Tensor | None]:
    """Return a rule for the padding mask of frames or samples."""
    return lambda context: _mask(context, name)


def latents(context: InputContext) -> torch.Tensor:
    """Return the inputs of a codec's decoder: frames of the model's width."""
    frames = math.ceil(clip_seconds(context) * context.config.frame_rate)
    return context.floats(context.batch, context.config.hidden_size, frames)


def needs_clip(context: InputContext, name: str) -> bool:
    """Return True if the model needs a clip for an input, and its config has an audio part."""
    if not context.needs_input("audio", name):
        return False
    absent = [key for key in _AUDIO_KEYS if getattr(context.config, key, key) is None]
    if absent and not context.notes:
        context.notes.append(f"There is no clip: the config has no {absent[0]}.")
    return not absent


def clip_seconds(context: InputContext) -> float:
    """Return the length of a clip where no extractor determines it."""
    return context.options.audio_seconds or DEFAULT_SECONDS


def model_family(model: Any) -> str:
    """Return the name of the package that defines a model, e.g. ``whisper``."""
    return str(type(model).__module__.split(".")[-2])


def extractor_outputs(context: InputContext) -> ExtractorOutputs:
    """Return the outputs of the family's feature extractor for one clip per example."""
    name = model_family(context.model)
    if name in _STAND_INS:
        outputs = _STAND_INS[name](context, round(clip_seconds(context) * DEFAULT_SAMPLING_RATE))
    else:
        outputs = _from_extractor(context, _extractor_class(name)) or _from_config(context)
    return {name: repeat_batch(value, context.batch) for name, value in outputs.items()}


def _from_extractor(context: InputContext, extractor: Any) -> ExtractorOutputs | None:
    if extractor is None:
        return None
    settings = tuple(_settings(context, extractor))
    with_mask = not context.input_names.isdisjoint(_REQUIRED_MASKS)
    try:
        return _run_extractor(extractor, settings, context.options.audio_seconds, with_mask)
    except ImportError:  # a package that the extractor computes with is not installed
        return None


@functools.cache
def _extractor_class(name: str) -> Any:
    """Return the feature extractor of a family, if there is one."""
    from transformers.models.auto import feature_extraction_auto as auto
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    by_type = auto.FEATURE_EXTRACTOR_MAPPING_NAMES.items()
    by_family = {model_type_to_module_name(kind): extractor for kind, extractor in by_type}
    class_name = (by_family | _EXTRACTORS).get(name)
    return class_name and auto.feature_extractor_class_from_name(class_name)


def _settings(context: InputContext, extractor: Any) -> list[tuple[str, Any]]:
    """Return the arguments of an extractor that the config determines."""
    parameters = inspect.signature(extractor).parameters
    keys = {
        "sampling_rate": ("sampling_rate", "sample_rate"),
        "hop_length": ("hop_length",),
        "max_length": ("max_length",),
        "num_mel_bins": _BINS,
        # A default of one feature means samples, one per channel.
        "feature_size": ("audio_channels",)
        if "feature_size" in parameters and parameters["feature_size"].default == 1
        else _BINS,
        "chunk_length_s": ("chunk_length_s",),
        "overlap": ("overlap",),
    }
    settings = [(name, _audio_setting(context, *keys[name])) for name in keys if name in parameters]
    if "truncation" in parameters and not _audio_setting(context, "enable_fusion"):
        # CLAP's extractor defaults to the fusion of several views of a long clip.
        settings.append(("truncation", "rand_trunc"))
    return [(name, value) for name, value in settings if value is not None]


@functools.lru_cache(maxsize=8)
def _run_extractor(
    extractor_class: Any,
    settings: tuple[tuple[str, Any], ...],
    requested: float | None,
    with_mask: bool,
) -> ExtractorOutputs:
    import numpy as np

    extractor = extractor_class(**dict(settings))
    window = _window(extractor)
    if requested and window and requested > window:
        msg = (
            f"--audio-seconds {requested:g} is longer than the {window:g} seconds that "
            f"{extractor_class.__name__} takes at once. Ask for at most {window:g}."
        )
        raise InputError(msg)
    if requested and requested > MAX_SECONDS:
        msg = (
            f"--audio-seconds {requested:g} is longer than the {MAX_SECONDS:,} seconds that "
            f"{extractor_class.__name__} is run on here, on real silence. Ask for at most "
            f"{MAX_SECONDS}, or give the shape of what it makes by --input."
        )
        raise InputError(msg)
    rate = extractor.sampling_rate
    silence = np.zeros(round((requested or window or DEFAULT_SECONDS) * rate), dtype=np.float32)
    options = {"return_attention_mask": True} if with_mask else {}
    with torch.device("cpu"):
        outputs = extractor([silence], sampling_rate=rate, return_tensors="pt", **options)
    return {name: value for name, value in outputs.items() if isinstance(value, torch.Tensor)}


def _window(extractor: Any) -> float | None:
    """Return the seconds that an extractor pads or truncates every clip to."""
    return getattr(extractor, "chunk_length", None)


def _from_config(context: InputContext) -> ExtractorOutputs:
    """Return samples and a spectrogram of the usual frame rate, for lack of an extractor."""
    bins = _audio_setting(context, "feature_projection_input_dim", *_BINS)
    rate = _audio_setting(context, "sampling_rate", "sample_rate") or DEFAULT_SAMPLING_RATE
    frames = int(clip_seconds(context) * FRAMES_PER_SECOND)
    return {
        "input_values": _silence(1, round(clip_seconds(context) * rate)),
        "input_features": _silence(1, frames, bins or DEFAULT_BINS),
    }


def _granite_speech(context: InputContext, samples: int) -> ExtractorOutputs:
    """Return pairs of frames, and a mask of the rows that the projector keeps."""
    config = context.config
    pairs = (samples // 160 + 1) // 2
    rows = math.ceil(pairs / config.window_size) * (config.window_size // config.downsample_rate)
    width = config.encoder_config.input_dim
    return {
        "input_features": _silence(1, pairs, width),
        "input_features_mask": _full_mask(rows),
    }


def _granite_speech5(context: InputContext, samples: int) -> ExtractorOutputs:
    """Return pairs of frames with their deltas."""
    pairs = math.ceil(samples // 160 / 2)
    width = 4 * _audio_setting(context, "num_mel_bins")
    return {
        "input_features": _silence(1, pairs, width),
        "attention_mask": _full_mask(pairs).long(),
    }


def _fun_asr_nano(context: InputContext, samples: int) -> ExtractorOutputs:
    """Return a window of seven frames around every sixth frame."""
    rows = math.ceil(_kaldi_frames(samples) / 6)
    width = 7 * _audio_setting(context, "num_mel_bins")
    return {
        "input_features": _silence(1, rows, width),
        "input_features_mask": _full_mask(rows).int(),
    }


def _two_encoders(margin: int) -> Callable[[InputContext, int], ExtractorOutputs]:
    """Return a stand-in with samples for an acoustic, and frame pairs for a semantic encoder."""

    def stand_in(context: InputContext, samples: int) -> ExtractorOutputs:
        del context  # both extractors are independent of the config
        valid_samples = samples + 1
        padded = math.ceil(valid_samples / 320) * 320
        pairs = math.ceil(_kaldi_frames(padded + margin) / 2)
        return {
            "input_values": _silence(1, 1, padded),
            "padding_mask": materialize_if_small(
                (1, padded),
                lambda: (torch.arange(padded, device="cpu") < valid_samples).int()[None],
                torch.int32,
            ),
            "input_features": _silence(1, pairs, 160),
            "input_features_mask": _full_mask(pairs).int(),
        }

    return stand_in


def _kaldi_frames(samples: int) -> int:
    """Return the number of 25 ms frames, 10 ms apart, that fit into a clip."""
    return 1 + (samples - 400) // 160


def _full_mask(length: int) -> torch.Tensor:
    return full((1, length), True, torch.bool)


def _silence(*shape: int) -> torch.Tensor:
    return meta_tensor(shape, torch.float32)


# Stand-ins for extractors that need torchaudio, so that inputs are the same without it.
_STAND_INS: dict[str, Callable[[InputContext, int], ExtractorOutputs]] = {
    "granite_speech": _granite_speech,
    "granite_speech_plus": _granite_speech,
    "granite_speech5": _granite_speech5,
    "fun_asr_nano": _fun_asr_nano,
    "xcodec2": _two_encoders(margin=320),
    "neucodec": _two_encoders(margin=0),
}


def _audio_setting(context: InputContext, *keys: str) -> Any:
    """Return a setting from the audio subconfig, the encoder's, or the config."""
    settings = (context.setting(*keys, kind=kind) for kind in ("audio", "encoder", "asr"))
    return next((value for value in settings if value is not None), None)


def _clip_input(context: InputContext, name: str) -> torch.Tensor | None:
    return _output(context, name) if needs_clip(context, name) else None


def _has_clip(context: InputContext) -> bool:
    """Return True if the inputs built so far include a clip."""
    return not context.inputs.keys().isdisjoint(_CLIP_INPUTS)


def _output(context: InputContext, name: str) -> torch.Tensor | None:
    """Return an output of the extractor: masks and counts with values, others without."""
    value = extractor_outputs(context).get(name)
    if value is None or not value.is_floating_point():
        return value
    return context.floats(*value.shape)


def _mask(context: InputContext, name: str) -> torch.Tensor | None:
    outputs = extractor_outputs(context) if _has_clip(context) else {}
    return next((outputs[key] for key in (name, *_MASK_NAMES) if key in outputs), None)


RULES: dict[str, Callable[[InputContext], Any]] = {
    "input_features": input_features,
    "input_values": input_values,
    "audio_input_features": lambda s: _clip_input(s, "audio_input_features"),
    "input_features_mask": mask_rule("input_features_mask"),
    "feature_attention_mask": mask_rule("feature_attention_mask"),
    "padding_mask": output_rule("padding_mask"),
    "attention_mask": attention_mask,
    "is_longer": output_rule("is_longer"),
    "noise_sequence": output_rule("noise_sequence"),
    "chunk_sample_lengths": output_rule("chunk_sample_lengths"),
    "audio_embed_sizes": output_rule("audio_embed_sizes"),
    "audio_attention_mask": output_rule("audio_attention_mask"),
    "latents": latents,
}
