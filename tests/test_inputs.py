"""Prompts and images that are made up, against what a user would write by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import graphflops as gf
from graphflops.models import Options, Workload, resolve
from graphflops.models.workload import InputSpec


def made(name: str, **options: Any) -> Workload:
    return resolve(f"hf:{name}", Options(**options))


def pixels(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def tokens(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def prompt(image_token: int, image_tokens: int) -> torch.Tensor:
    """``<image> x n`` and 128 tokens of text, any of them but the placeholder."""
    return torch.tensor([[image_token] * image_tokens + [0] * 128])


ONE_LAYER = {"num_hidden_layers": 1}
BOTH = {"vision_config.num_hidden_layers": 2, "text_config.num_hidden_layers": 1}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    # Text: 128 tokens.
    "bert": (ONE_LAYER, {"input_ids": tokens(1, 128)}),
    # Encoder and decoder: a prompt each.
    "t5": ({"num_layers": 1}, {"input_ids": tokens(1, 128), "decoder_input_ids": tokens(1, 128)}),
    # A document: a box for each token.
    "layoutlm": (ONE_LAYER, {"input_ids": tokens(1, 128), "bbox": tokens(1, 128, 4)}),
    # An image of the config's size; a scene for a detector; a film.
    "vit": (ONE_LAYER, {"pixel_values": pixels(1, 3, 224, 224)}),
    "rt_detr": ({"decoder_layers": 1}, {"pixel_values": pixels(1, 3, 640, 640)}),
    "videomae": (ONE_LAYER, {"pixel_values": pixels(1, 16, 3, 224, 224)}),
    # An image and a caption: CLIP's text tower has 77 positions.
    "clip": ({}, {"pixel_values": pixels(1, 3, 224, 224), "input_ids": tokens(1, 77)}),
    # 336 pixels are 24 x 24 patches of 14, each a token of the prompt.
    "llava": (
        BOTH,
        {"pixel_values": pixels(1, 3, 336, 336), "input_ids": prompt(32000, 24 * 24)},
    ),
    # The same with a head, which passes on sizes of images that its tower does not ask for.
    "llava@LlavaForConditionalGeneration": (
        BOTH,
        {"pixel_values": pixels(1, 3, 336, 336), "input_ids": prompt(32000, 24 * 24)},
    ),
    # 448 x 448 pixels in 16 x 16 patches of 28, shuffled 2 x 2 into a token.
    "internvl": (
        BOTH | {"text_config.num_hidden_layers": 1},
        {"pixel_values": pixels(1, 3, 448, 448), "input_ids": prompt(151667, 256)},
    ),
    # A page: its patches are put behind the words, masked as they are.
    "udop": (
        {"num_layers": 1, "num_decoder_layers": 1},
        {
            "pixel_values": pixels(1, 3, 224, 224),
            "input_ids": tokens(1, 128),
            "attention_mask": torch.ones(1, 128, dtype=torch.int64),
            "decoder_input_ids": tokens(1, 128),
            "bbox": tokens(1, 128, 4),
        },
    ),
    # A film with its sound, in whole hops of 10 seconds at 48 kHz, and a text about it.
    "pe_audio_video": (
        {"text_config.num_hidden_layers": 1},
        {
            "pixel_values_videos": pixels(1, 8, 3, 336, 336),
            "input_values": pixels(1, 1, 480_000),
            "padding_mask": torch.ones(1, 480_000, dtype=torch.int32),
            "input_ids": tokens(1, 128),
        },
    ),
    # A screenshot: row and column of each patch, and its 16 x 16 pixels in 3 colours.
    "pix2struct_vision_model": (ONE_LAYER, {"flattened_patches": pixels(1, 2048, 2 + 768)}),
    # Patches in one row: 16 x 16 of 2 frames x 14 x 14 pixels x 3 colours; which image has which.
    "qwen2_5_vl_vision": (
        {"depth": 1},
        {"hidden_states": pixels(256, 2 * 14 * 14 * 3), "grid_thw": torch.tensor([[1, 16, 16]])},
    ),
    # Patches in a row for every image, and how many rows and columns they make.
    "siglip2_vision_model": (
        ONE_LAYER,
        {
            "pixel_values": pixels(1, 14 * 14, 16 * 16 * 3),
            "pixel_attention_mask": torch.ones(1, 14 * 14, dtype=torch.int64),
            "spatial_shapes": torch.tensor([[14, 14]]),
        },
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_inputs_are_what_a_user_would_write(name: str) -> None:
    overrides, expected = CASES[name]
    inputs = dict(made(name, overrides=overrides).kwargs)
    assert inputs.pop("use_cache", False) is False
    assert inputs.keys() == expected.keys()
    for key, tensor in expected.items():
        assert (inputs[key].shape, inputs[key].dtype) == (tensor.shape, tensor.dtype), key
        if not tensor.is_meta:
            assert torch.equal(inputs[key], tensor), key


def test_sizes_asked_for() -> None:
    inputs = made("llava", overrides=BOTH, batch_size=2, seq_len=700).kwargs
    assert inputs["pixel_values"].shape == (2, 3, 336, 336)
    assert inputs["input_ids"].shape == (2, 700)
    assert inputs["input_ids"].eq(32000).sum(1).tolist() == [576, 576]
    # Positions of another grid are stretched, as the model offers.
    larger = made("vit", overrides=ONE_LAYER, image_size=384)
    assert larger.kwargs["pixel_values"].shape == (1, 3, 384, 384)
    assert larger.kwargs["interpolate_pos_encoding"] is True
    assert gf.count(larger.model, kwargs=larger.kwargs).complete
    packed = made("qwen2_5_vl_vision", overrides={"depth": 1}, image_size=448, batch_size=2)
    assert packed.kwargs["grid_thw"].tolist() == [[1, 32, 32], [1, 32, 32]]


def test_what_is_made_fits_what_is_given() -> None:
    given = {"pixel_values": InputSpec(shape=(1, 50, 30 * 30 * 3), dtype=None)}
    inputs = made("fuyu", overrides={"text_config.num_hidden_layers": 1}, inputs=given).kwargs
    assert inputs["pixel_values"].shape == (1, 50, 2700)
    assert inputs["input_ids"].shape == (1, 50 + 128)


def test_a_default_config_that_contradicts_itself_is_counted_without_its_image() -> None:
    # Its tower gives 3,584 features where its prompt has 8,192.
    workload = made("qwen2_vl", overrides={"text_config.num_hidden_layers": 1})
    assert set(workload.kwargs) == {"input_ids", "use_cache"}
    (note,) = workload.notes
    assert "features are 3584 wide" in note
    matched = {"text_config.num_hidden_layers": 1, "vision_config.hidden_size": 8192}
    workload = made("qwen2_vl", overrides=matched)
    assert workload.notes == ()
    assert workload.kwargs["image_grid_thw"].tolist() == [[1, 16, 16]]
    # 2 x 2 patches make a token; 1 marks those of the image.
    assert workload.kwargs["mm_token_type_ids"].sum() == 8 * 8


def test_a_packed_tower_attends_within_its_images() -> None:
    """Two images cost twice one: scores between them would show."""
    options: dict[str, Any] = {"overrides": {"depth": 1, "fullatt_block_indexes": [0]}}
    one, two = (made("qwen2_5_vl_vision", batch_size=n, **options) for n in (1, 2))
    counts = [gf.count(w.model, kwargs=w.kwargs) for w in (one, two)]
    assert counts[1].macs == 2 * counts[0].macs
    # 256 patches, 16 heads of 224: queries by keys, and scores by values.
    attention = counts[0].by_operator()["aten::scaled_dot_product_attention"]
    assert attention.macs == 2 * 16 * 256 * 256 * 224


@pytest.mark.parametrize(
    ("name", "cuts", "shapes"),
    [
        # Positions along two axes, whose product is the length: it pads in evaluation alone.
        ("reformer", {"attn_layers": ["local"]}, {"input_ids": (1, 64 * 64)}),
        (
            "fastspeech2_conformer",
            {"encoder_layers": 1, "decoder_layers": 1},
            {
                "input_ids": (1, 128),
                "lang_ids": (1,),
                "spectrogram_labels": (1, 128 * 7, 80),
                "duration_labels": (1, 128),
                "pitch_labels": (1, 128, 1),
                "energy_labels": (1, 128, 1),
            },
        ),
    ],
)
def test_inputs_that_a_model_requires_in_training(
    name: str, cuts: dict[str, Any], shapes: dict[str, tuple[int, ...]]
) -> None:
    workload = made(name, overrides=cuts, trains=True)
    assert {
        key: tuple(value.shape)
        for key, value in workload.kwargs.items()
        if isinstance(value, torch.Tensor)
    } == shapes
    assert gf.count_training(workload.model.train(), kwargs=workload.kwargs).complete


def test_token_types_in_training_are_those_of_text() -> None:
    cuts = {"text_config.num_hidden_layers": 1}
    types = made("molmo2", overrides=cuts, trains=True).kwargs["mm_token_type_ids"]
    assert types.tolist() == [[0] * 128]
    assert "mm_token_type_ids" not in made("molmo2", overrides=cuts).kwargs


def test_features_come_from_the_method_that_takes_the_inputs() -> None:
    # The head has none: a method of the base model tells how many features an image has.
    workload = made("minicpm_ocr", generates=True)
    image_token = workload.model.config.image_token_id
    assert int((workload.kwargs["input_ids"] == image_token).sum()) == 49
