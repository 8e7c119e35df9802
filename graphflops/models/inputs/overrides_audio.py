"""Rules of single audio and action models that the general rules do not fit, with reasons."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from graphflops.models.inputs import audio, text
from graphflops.models.inputs.context import InputContext
from graphflops.models.inputs.placeholders import Placeholder, find_placeholders
from graphflops.models.inputs.tensors import full, ids

FRAMES_PER_PHONEME = 7  # of 12 ms in English speech

Rules = dict[str, Callable[[InputContext], Any]]


def _omit(context: InputContext) -> None:
    """Omit an input that the model does not need."""
    del context


def _prompt_with_tower_count(context: InputContext) -> torch.Tensor | None:
    """Return a prompt with one placeholder for each output of the audio tower."""
    masks = ("input_features_mask", "feature_attention_mask")
    name = next((name for name in masks if name in context.inputs), None)
    tower = next((m for n, m in context.model.named_modules() if n.endswith("audio_tower")), None)
    mask = None if name is None else audio.mask_rule(name)(context.single_example)
    if mask is None or tower is None:
        return text.input_ids(context)
    _, lengths = tower._get_feat_extract_output_lengths(mask.sum(-1))
    return text.prompt(context, Placeholder(context.config.audio_token_id, int(lengths[0])))


def _prompt_for_phi4(context: InputContext) -> torch.Tensor | None:
    sizes = audio.output_rule("audio_embed_sizes")(context.single_example)
    if sizes is None:
        return text.input_ids(context)
    token = context.config.audio_config.audio_token_id
    return text.prompt(context, Placeholder(token, int(sizes[0])))


def _prompt_for_vibevoice(context: InputContext) -> torch.Tensor | None:
    clip = context.inputs.get("input_values")
    if clip is None:
        return text.input_ids(context)
    rows = math.ceil(clip.shape[-1] / context.config.audio_config.hop_length)
    return text.prompt(context, Placeholder(context.config.audio_token_id, rows))


def _prompt_per_frame_group(context: InputContext) -> torch.Tensor:
    """Return one token for each group of frames, as the features of both are added."""
    frames = context.inputs["input_features"].shape[-1]
    return ids(context.batch, frames // context.config.audio_length_per_tok)


def _prompt_for_inkling(context: InputContext) -> torch.Tensor | None:
    frames = _dmel(context)
    audio_placeholders = (
        () if frames is None else (Placeholder(context.config.audio_token_id, frames.shape[1]),)
    )
    return text.prompt(context, *find_placeholders(context), *audio_placeholders)


def _dmel(context: InputContext) -> torch.Tensor | None:
    """Return the integer spectrogram that the processor computes from the extractor's."""
    frames = (
        audio.extractor_outputs(context).get("input_features")
        if audio.needs_clip(context, "")
        else None
    )
    return None if frames is None else ids(*frames.shape)


def _pad_to_groups(name: str, make: Callable[[InputContext], Any]) -> Rules:
    """Return a rule that pads frames to whole groups of the encoder, as the processor does."""

    def padded(context: InputContext) -> Any:
        value = make(context)
        if value is None:
            return None
        group = context.setting("subsampling_factor", kind="audio", default=8)
        padding = -value.shape[1] % group
        return torch.cat([value, value.new_zeros(value.shape[0], padding, *value.shape[2:])], 1)

    return {name: padded}


def _hidden(context: InputContext, length: int) -> torch.Tensor:
    return context.floats(context.batch, length, context.config.hidden_size)


def _speech_states(context: InputContext) -> torch.Tensor:
    return _hidden(context, math.ceil(audio.clip_seconds(context) * 50))


def _waveform(context: InputContext) -> torch.Tensor:
    samples = round(audio.clip_seconds(context) * 24_000)
    return context.floats(context.batch, context.config.channels, samples)


def _vibe_latents(context: InputContext) -> torch.Tensor:
    hop = math.prod(context.config.upsampling_ratios)
    frames = math.ceil(audio.clip_seconds(context) * 24_000 / hop)
    return context.floats(context.batch, context.config.hidden_size, frames)


def _clvp_speech(context: InputContext) -> torch.Tensor:
    return context.floats(*audio.extractor_outputs(context)["input_features"].shape)


def _camera_images(context: InputContext) -> torch.Tensor:
    """Return one image per camera of a robot; here it has one camera."""
    size = context.config.vlm_config.vision_config.image_size
    return context.floats(context.batch, 1, 3, size, size)


def _prompt_for_robot(context: InputContext) -> torch.Tensor:
    vision = context.config.vlm_config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    token = context.config.vlm_config.image_token_id
    return text.prompt(context, Placeholder(token, patches))


def _action_embeds(context: InputContext) -> torch.Tensor:
    """Return embeddings of the state and a chunk of actions."""
    width = context.config.dit_config.hidden_size
    return context.floats(context.batch, 1 + context.config.chunk_size, width)


def _robot_values(*keys: str) -> Callable[[InputContext], torch.Tensor]:
    """Return a rule for values of a robot, of the config's shape."""

    def make(context: InputContext) -> torch.Tensor:
        return context.floats(context.batch, *(getattr(context.config, key) for key in keys))

    return make


def _in_training(make: Callable[[InputContext], Any]) -> Callable[[InputContext], Any]:
    """Return a rule for labels that a model requires in training, and does not take otherwise."""
    return lambda context: make(context) if context.options.trains else None


def _spectrogram_labels(context: InputContext) -> torch.Tensor:
    batch, phonemes = context.inputs["input_ids"].shape
    bins = context.setting("num_mel_bins", kind="model")
    return context.floats(batch, phonemes * FRAMES_PER_PHONEME, bins)


def _phoneme_labels(context: InputContext) -> torch.Tensor:
    return context.floats(*context.inputs["input_ids"].shape, 1)


def _codebooks(key: str, extra: int = 0) -> Callable[[InputContext], torch.Tensor]:
    """Return a rule for token ids with an axis of codebooks."""

    def make(context: InputContext) -> torch.Tensor:
        length = text.prompt(context).shape[1]
        return ids(context.batch, length, context.setting(key, kind="decoder") + extra)

    return make


def _prompt_for_gemma3n(context: InputContext) -> torch.Tensor | None:
    """Return a prompt with the fixed number of placeholders that clip features are padded to."""
    config = context.config
    has_clip = "input_features" in context.inputs
    audio_placeholders = [
        Placeholder(config.audio_token_id, config.audio_soft_tokens_per_image)
    ] * has_clip
    other_placeholders = [
        p for p in find_placeholders(context) if p.token != getattr(config, "audio_token_id", None)
    ]
    return text.prompt(context, *other_placeholders, *audio_placeholders)


CLASSES: dict[str, Rules] = {
    # Its main input is token ids; it does not declare the modality of its clip.
    "ClvpModelForConditionalGeneration": {"input_features": _clvp_speech},
    # A clip is an earlier utterance, which is optional.
    "CsmForConditionalGeneration": {"input_values": _omit},
    # The base model takes the outputs of its pre-nets: states of the encoder's width.
    "SpeechT5Model": {
        "input_values": _speech_states,
        "attention_mask": _omit,
        "decoder_input_values": _speech_states,
    },
    # Documents that it has a mask for compatibility only, and fails with one.
    "MossTranscribeDiarizeAudioModel": {"attention_mask": _omit},
    # Parts of a codec whose samples and latents are called hidden states.
    "VibeVoiceAcousticTokenizerEncoderModel": {"hidden_states": _waveform},
    "VibeVoiceAcousticTokenizerDecoderModel": {"hidden_states": _vibe_latents},
    # Has another name for its spectrogram, and a mask that is True for padding.
    "Gemma3nModel": {"input_ids": _prompt_for_gemma3n},
    "Gemma3nForConditionalGeneration": {"input_ids": _prompt_for_gemma3n},
    "Gemma3nAudioEncoder": {
        "audio_mel": _clvp_speech,
        "audio_mel_mask": lambda s: ~audio.extractor_outputs(s)["input_features_mask"],
    },
    # Takes the states of the recognizer: one for each 80 ms.
    "Nemotron3_5TranscribeWordTimestampModel": {
        "inputs_embeds": lambda s: _hidden(s, math.ceil(audio.clip_seconds(s) * 12.5)),
    },
}

FAMILIES: dict[str, Rules] = {
    "fastspeech2_conformer": {
        "spectrogram_labels": _in_training(_spectrogram_labels),
        "duration_labels": _in_training(
            lambda s: full(s.inputs["input_ids"].shape, FRAMES_PER_PHONEME)
        ),
        "pitch_labels": _in_training(_phoneme_labels),
        "energy_labels": _in_training(_phoneme_labels),
    },
    # No method that computes the features of a clip, or one that needs the prompt.
    "qwen2_audio": {"input_ids": _prompt_with_tower_count},
    "musicflamingo": {"input_ids": _prompt_with_tower_count},
    "phi4_multimodal": {"input_ids": _prompt_for_phi4},
    "vibevoice": {"input_ids": _prompt_for_vibevoice},
    "voxtral_realtime": {"input_ids": _prompt_per_frame_group},
    # Either text or speech, not both.
    "seamless_m4t": {"input_features": _omit},
    "seamless_m4t_v2": {"input_features": _omit},
    # A position has a token of each codebook, and in one of the two a text token.
    "kyutai_speech_to_text": {"input_ids": _codebooks("num_codebooks", extra=1)},
    "dia": {"decoder_input_ids": _codebooks("num_channels")},
    # A separate axis for cameras, and a state and actions instead of an answer.
    "pi0": {
        "pixel_values": _camera_images,
        "pixel_attention_mask": lambda s: full((s.batch, 1), True, torch.bool),
        "input_ids": _prompt_for_robot,
        "action_embeds": _action_embeds,
        "state": _robot_values("max_state_dim"),
        "noise": _robot_values("chunk_size", "max_action_dim"),
        "timestep": _robot_values(),
    },
    # Takes an integer spectrogram under another name.
    "inkling": {
        "input_ids": _prompt_for_inkling,
        "audio_input_ids": _dmel,
        "audio_input_ids_mask": lambda s: audio.extractor_outputs(s).get("input_features_mask"),
    },
    "nemotron3_5_transcribe": {
        **_pad_to_groups("input_features", audio.input_features),
        **_pad_to_groups("input_features_mask", audio.mask_rule("input_features_mask")),
    },
}
