"""Generations of speech and audio models: an encoder of sound, or sound among the tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.real_runs.generation import Build
from benchmarks.real_runs.generation_encoder_decoder import BART
from benchmarks.real_runs.tiny import (
    IMAGE_TOKEN,
    TEXT,
    VOCABULARY,
    WIDTH,
    case,
    with_images,
    without,
)

_SPEECH = without(BART, "max_position_embeddings")
_START = {"decoder_start_token_id": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def _spectrogram(batch: int, _: int) -> dict[str, Any]:
    start = torch.full((batch, 3), 2)
    return {"input_features": torch.randn(batch, 8, 40), "decoder_input_ids": start}


def _frames(batch: int, length: int) -> dict[str, Any]:
    mask = torch.ones(batch, 4 * length, dtype=torch.long)
    return {"input_features": torch.randn(batch, 4 * length, 8), "attention_mask": mask}


def _wave(batch: int, _: int) -> dict[str, Any]:
    return {"input_values": torch.randn(batch, 2000)}


def _sound(frames: int, name: str = "feature_attention_mask") -> Callable[..., Any]:
    def more(batch: int, _: dict[str, Any]) -> dict[str, Any]:
        mask = torch.ones(batch, frames, dtype=torch.long)
        return {"input_features": torch.randn(batch, 8, frames), name: mask}

    return more


_ENCODER = {
    "d_model": 16,
    "encoder_layers": 2,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "num_mel_bins": 8,
    "max_source_positions": 16,
}
_AUDIO = {"audio_token_id": IMAGE_TOKEN, "audio_token_index": IMAGE_TOKEN}
_SPEECHT5 = {
    "hidden_size": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": VOCABULARY,
    "conv_dim": [16, 16],
    "conv_stride": [5, 2],
    "conv_kernel": [10, 3],
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    **_START,
}

_SETTINGS: dict[str, tuple[str, dict[str, Any], Callable[..., Any], bool]] = {
    "whisper": (
        "WhisperForConditionalGeneration",
        {**_SPEECH, "max_source_positions": 20, "max_target_positions": 64, "num_mel_bins": 8},
        _spectrogram,
        False,
    ),
    "speech_to_text": (
        "Speech2TextForConditionalGeneration",
        {
            **_SPEECH,
            "max_source_positions": 64,
            "max_target_positions": 64,
            "input_feat_per_channel": 8,
            "conv_channels": 16,
            "num_conv_layers": 2,
        },
        _frames,
        False,
    ),
    "moonshine": (
        "MoonshineForConditionalGeneration",
        {
            "hidden_size": WIDTH,
            "intermediate_size": 48,
            "encoder_num_hidden_layers": 2,
            "decoder_num_hidden_layers": 2,
            "encoder_num_attention_heads": 4,
            "decoder_num_attention_heads": 4,
            "vocab_size": VOCABULARY,
            "pad_head_dim_to_multiple_of": None,
            **_START,
        },
        _wave,
        False,
    ),
    "speecht5": ("SpeechT5ForSpeechToText", _SPEECHT5, _wave, False),
    "qwen2_audio": (
        "Qwen2AudioForConditionalGeneration",
        {**_AUDIO, "audio_config": _ENCODER, "text_config": {"model_type": "qwen2", **TEXT}},
        with_images(8, _sound(32)),
        True,
    ),
    "voxtral": (
        "VoxtralForConditionalGeneration",
        {
            **_AUDIO,
            "projector_hidden_act": "gelu",
            "text_config": {"model_type": "llama", **TEXT},
            "audio_config": {
                "hidden_size": 16,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_mel_bins": 8,
                "max_source_positions": 16,
            },
        },
        with_images(4, lambda batch, _: {"input_features": torch.randn(batch, 8, 32)}),
        True,
    ),
}

CASES: dict[str, Build] = {
    name: case(model, settings, inputs, is_text=is_text)
    for name, (model, settings, inputs, is_text) in _SETTINGS.items()
}
