"""Models of sound and action whose inputs no general rule can tell, each with the reason."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from graphflops.models.inputs import audio, text
from graphflops.models.inputs.context import Subject
from graphflops.models.inputs.placeholders import Placeholder, placeholders
from graphflops.models.inputs.tensors import filled, ids

Rules = dict[str, Callable[[Subject], Any]]


def _without(subject: Subject) -> None:
    """The model does without."""
    del subject


def _prompt_counted_by_tower(subject: Subject) -> torch.Tensor | None:
    """A prompt with as many placeholders as the audio tower says it leaves of a clip."""
    masks = ("input_features_mask", "feature_attention_mask")
    name = next((name for name in masks if name in subject.made), None)
    tower = next((m for n, m in subject.model.named_modules() if n.endswith("audio_tower")), None)
    mask = None if name is None else audio.mask(name)(subject.of_one)
    if mask is None or tower is None:
        return text.input_ids(subject)
    _, left = tower._get_feat_extract_output_lengths(mask.sum(-1))
    return text.prompt(subject, Placeholder(subject.config.audio_token_id, int(left[0])))


def _prompt_for_phi4(subject: Subject) -> torch.Tensor | None:
    sizes = audio.along("audio_embed_sizes")(subject.of_one)
    if sizes is None:
        return text.input_ids(subject)
    token = subject.config.audio_config.audio_token_id
    return text.prompt(subject, Placeholder(token, int(sizes[0])))


def _prompt_for_vibevoice(subject: Subject) -> torch.Tensor | None:
    clip = subject.made.get("input_values")
    if clip is None:
        return text.input_ids(subject)
    rows = math.ceil(clip.shape[-1] / subject.config.audio_config.hop_length)
    return text.prompt(subject, Placeholder(subject.config.audio_token_id, rows))


def _prompt_along_clip(subject: Subject) -> torch.Tensor:
    """One token for every group of frames: their features are added to each other."""
    frames = subject.made["input_features"].shape[-1]
    return ids(subject.batch, frames // subject.config.audio_length_per_tok)


def _prompt_for_inkling(subject: Subject) -> torch.Tensor | None:
    frames = _dmel(subject)
    heard = () if frames is None else (Placeholder(subject.config.audio_token_id, frames.shape[1]),)
    return text.prompt(subject, *placeholders(subject), *heard)


def _dmel(subject: Subject) -> torch.Tensor | None:
    """A spectrogram of whole numbers, which the processor makes of the extractor's."""
    frames = audio.clip(subject).get("input_features") if audio.hears(subject, "") else None
    return None if frames is None else ids(*frames.shape)


def _whole_groups(name: str, make: Callable[[Subject], Any]) -> Rules:
    """Frames in whole groups of what the encoder takes together: the processor pads them."""

    def padded(subject: Subject) -> Any:
        value = make(subject)
        if value is None:
            return None
        group = subject.setting("subsampling_factor", kind="audio", default=8)
        missing = -value.shape[1] % group
        return torch.cat([value, value.new_zeros(value.shape[0], missing, *value.shape[2:])], 1)

    return {name: padded}


def _hidden(subject: Subject, length: int) -> torch.Tensor:
    return subject.floats(subject.batch, length, subject.config.hidden_size)


def _speech_states(subject: Subject) -> torch.Tensor:
    return _hidden(subject, math.ceil(audio.seconds(subject) * 50))


def _waveform(subject: Subject) -> torch.Tensor:
    samples = round(audio.seconds(subject) * 24_000)
    return subject.floats(subject.batch, subject.config.channels, samples)


def _vibe_latents(subject: Subject) -> torch.Tensor:
    hop = math.prod(subject.config.upsampling_ratios)
    frames = math.ceil(audio.seconds(subject) * 24_000 / hop)
    return subject.floats(subject.batch, subject.config.hidden_size, frames)


def _clvp_speech(subject: Subject) -> torch.Tensor:
    return subject.floats(*audio.clip(subject)["input_features"].shape)


def _cameras(subject: Subject) -> torch.Tensor:
    """An image of each camera: a robot has one in front here."""
    size = subject.config.vlm_config.vision_config.image_size
    return subject.floats(subject.batch, 1, 3, size, size)


def _prompt_for_robot(subject: Subject) -> torch.Tensor:
    vision = subject.config.vlm_config.vision_config
    patches = (vision.image_size // vision.patch_size) ** 2
    token = subject.config.vlm_config.image_token_id
    return text.prompt(subject, Placeholder(token, patches))


def _action_embeds(subject: Subject) -> torch.Tensor:
    """The state, and a chunk of actions."""
    wide = subject.config.dit_config.hidden_size
    return subject.floats(subject.batch, 1 + subject.config.chunk_size, wide)


def _robot(*keys: str) -> Callable[[Subject], torch.Tensor]:
    """Numbers of a robot, as many as the config says."""

    def make(subject: Subject) -> torch.Tensor:
        return subject.floats(subject.batch, *(getattr(subject.config, key) for key in keys))

    return make


def _codebooks(key: str, extra: int = 0) -> Callable[[Subject], torch.Tensor]:
    """Token ids with an axis for codebooks."""

    def make(subject: Subject) -> torch.Tensor:
        length = text.prompt(subject).shape[1]
        return ids(subject.batch, length, subject.setting(key, kind="decoder") + extra)

    return make


def _prompt_for_gemma3n(subject: Subject) -> torch.Tensor | None:
    """Every clip has the same number of placeholders: features are padded to it."""
    config = subject.config
    clips = "input_features" in subject.made
    heard = [Placeholder(config.audio_token_id, config.audio_soft_tokens_per_image)] * clips
    seen = [p for p in placeholders(subject) if p.token != getattr(config, "audio_token_id", None)]
    return text.prompt(subject, *seen, *heard)


CLASSES: dict[str, Rules] = {
    # Its main input are token ids; the clip is a second one that it says nothing of.
    "ClvpModelForConditionalGeneration": {"input_features": _clvp_speech},
    # A clip is an earlier utterance, of which there need be none.
    "CsmForConditionalGeneration": {"input_values": _without},
    # The base model takes what its pre-nets make: states of the encoder's width.
    "SpeechT5Model": {
        "input_values": _speech_states,
        "attention_mask": _without,
        "decoder_input_values": _speech_states,
    },
    # Says of itself that it takes a mask for compatibility only, and fails on it.
    "MossTranscribeDiarizeAudioModel": {"attention_mask": _without},
    # Parts of a codec that call samples and latents hidden states.
    "VibeVoiceAcousticTokenizerEncoderModel": {"hidden_states": _waveform},
    "VibeVoiceAcousticTokenizerDecoderModel": {"hidden_states": _vibe_latents},
    # Names its spectrogram, and marks padding where all others mark what is none.
    "Gemma3nModel": {"input_ids": _prompt_for_gemma3n},
    "Gemma3nForConditionalGeneration": {"input_ids": _prompt_for_gemma3n},
    "Gemma3nAudioEncoder": {
        "audio_mel": _clvp_speech,
        "audio_mel_mask": lambda s: ~audio.clip(s)["input_features_mask"],
    },
    # Takes the states of the recognizer: one for 80 ms.
    "Nemotron3_5TranscribeWordTimestampModel": {
        "inputs_embeds": lambda s: _hidden(s, math.ceil(audio.seconds(s) * 12.5)),
    },
}

FAMILIES: dict[str, Rules] = {
    # No method that makes features of a clip, or one that wants to see the prompt.
    "qwen2_audio": {"input_ids": _prompt_counted_by_tower},
    "musicflamingo": {"input_ids": _prompt_counted_by_tower},
    "phi4_multimodal": {"input_ids": _prompt_for_phi4},
    "vibevoice": {"input_ids": _prompt_for_vibevoice},
    "voxtral_realtime": {"input_ids": _prompt_along_clip},
    # Either text or speech, not both.
    "seamless_m4t": {"input_features": _without},
    "seamless_m4t_v2": {"input_features": _without},
    # A token is one of text and one of each codebook, or one of each.
    "kyutai_speech_to_text": {"input_ids": _codebooks("num_codebooks", extra=1)},
    "dia": {"decoder_input_ids": _codebooks("num_channels")},
    # Cameras in an axis of their own, and a state and actions instead of an answer.
    "pi0": {
        "pixel_values": _cameras,
        "pixel_attention_mask": lambda s: filled((s.batch, 1), True, torch.bool),
        "input_ids": _prompt_for_robot,
        "action_embeds": _action_embeds,
        "state": _robot("max_state_dim"),
        "noise": _robot("chunk_size", "max_action_dim"),
        "timestep": _robot(),
    },
    # Hears a spectrogram of whole numbers under a name of its own.
    "inkling": {
        "input_ids": _prompt_for_inkling,
        "audio_input_ids": _dmel,
        "audio_input_ids_mask": lambda s: audio.clip(s).get("input_features_mask"),
    },
    "nemotron3_5_transcribe": {
        **_whole_groups("input_features", audio.input_features),
        **_whole_groups("input_features_mask", audio.mask("input_features_mask")),
    },
}
