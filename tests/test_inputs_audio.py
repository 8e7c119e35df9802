"""Clips and series that are made up, against what a user would write."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from graphflops.errors import ModelSpecError
from graphflops.models import Options, resolve

CPU = torch.device("cpu")
AUDIO_TOKEN = 7


def made(name: str, **options: Any) -> dict[str, Any]:
    return dict(resolve(f"hf:{name}", Options(**options)).kwargs)


def floating(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def qwen2_audio_prompt(audio_tokens: int) -> torch.Tensor:
    """``<audio> x 750`` and 128 tokens of text, any of them."""
    return torch.tensor([[AUDIO_TOKEN] * audio_tokens + [0] * 128])


SHALLOW_QWEN2_AUDIO = {"audio_config.encoder_layers": 1, "audio_token_index": AUDIO_TOKEN}

# By hand, from the documentation of each model: 10 seconds of sound, or the model's window.
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # 30 seconds of 100 frames; the decoder's prompt.
    "whisper": (
        {"encoder_layers": 1, "decoder_layers": 1},
        {
            "input_features": floating(1, 80, 3000),
            "decoder_input_ids": torch.zeros(1, 128, dtype=torch.int64),
        },
    ),
    # Its base checkpoints were trained without a mask.
    "wav2vec2": ({"num_hidden_layers": 1}, {"input_values": floating(1, 16_000 * 10)}),
    "encodec": (
        {},
        {
            "input_values": floating(1, 1, 24_000 * 10),
            "padding_mask": torch.ones(1, 24_000 * 10, dtype=torch.int32),
        },
    ),
    # Two convolutions and a pool leave a quarter of 3,000 frames.
    "qwen2_audio": (
        SHALLOW_QWEN2_AUDIO,
        {
            "input_features": floating(1, 128, 3000),
            "feature_attention_mask": torch.ones(1, 3000, dtype=torch.int32),
            "input_ids": qwen2_audio_prompt(750),
        },
    ),
    "patchtst": ({"num_hidden_layers": 1}, {"past_values": floating(1, 32, 1)}),
    "timesfm": (
        {"num_hidden_layers": 1},
        {
            "past_values": floating(1, 512),
            "past_values_padding": torch.zeros(1, 512, dtype=torch.int64),
            "freq": torch.zeros(1, 1, dtype=torch.int64),
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_what_a_user_would_write(name: str) -> None:
    overrides, expected = CASES[name]
    inputs = made(name, overrides=overrides)
    assert inputs.pop("use_cache", False) is False
    assert inputs.keys() == expected.keys()
    for key, tensor in expected.items():
        assert (inputs[key].shape, inputs[key].dtype) == (tensor.shape, tensor.dtype), key
        assert inputs[key].device == tensor.device
        if tensor.device == CPU:
            same = inputs[key] == tensor
            if key == "input_ids":
                same = same | ((tensor != AUDIO_TOKEN) & (inputs[key] != AUDIO_TOKEN))
            assert same.all(), key


def test_a_clip_has_the_seconds_and_the_examples_asked_for() -> None:
    inputs = made("wav2vec2", audio_seconds=2.5, batch_size=3)
    assert inputs["input_values"].shape == (3, 40_000)


def test_a_shorter_clip_is_padded_to_the_window_and_leaves_fewer_features() -> None:
    inputs = made("qwen2_audio", overrides=SHALLOW_QWEN2_AUDIO, audio_seconds=10)
    assert inputs["input_features"].shape == (1, 128, 3000)
    mask = inputs["feature_attention_mask"]
    assert mask[0, :1000].all()
    assert not mask[0, 1000:].any()
    assert (inputs["input_ids"] == AUDIO_TOKEN).sum() == 250


def test_a_clip_longer_than_the_window_is_refused() -> None:
    with pytest.raises(ModelSpecError, match=r"--audio-seconds 31 .* at most 30\."):
        made("whisper", audio_seconds=31)


def test_a_config_that_lacks_the_token_for_a_clip_goes_without_and_says_so() -> None:
    overrides = {"audio_config.num_hidden_layers": 1, "text_config.num_hidden_layers": 1}
    workload = resolve("hf:voxtral", Options(overrides=overrides))
    assert "input_features" not in workload.kwargs
    assert workload.notes == ("There is no clip: the config has no audio_token_id.",)


def test_a_trajectory_counts_its_steps() -> None:
    inputs = made("decision_transformer", seq_len=5, overrides={"n_layer": 1})
    assert inputs["states"].shape == (1, 5, 17)
    assert inputs["actions"].shape == (1, 5, 4)
    assert inputs["timesteps"].tolist() == [[0, 1, 2, 3, 4]]
