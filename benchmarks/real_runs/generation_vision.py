"""Generations of vision-language models: the tower runs once, in prefill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.real_runs.generation import Build, Inputs
from benchmarks.real_runs.tiny import (
    BEFORE,
    IMAGE_TOKEN,
    TEXT,
    VISION,
    VOCABULARY,
    WIDTH,
    WINDOW,
    case,
    pixels,
    text,
    with_images,
    without,
)

PATCHES = 4
_HEAD = {**TEXT, "head_dim": 8}
_PLACE = {"image_token_id": IMAGE_TOKEN, "image_token_index": IMAGE_TOKEN}
_LARGER = {**VISION, "image_size": 16}
_IMAGES = with_images(PATCHES, pixels(3, 8, 8))
_LARGER_IMAGES = with_images(PATCHES, pixels(3, 16, 16))


def _config(model_type: str, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"model_type": model_type, **settings, **more}


def _types(wanted: bool) -> Inputs:
    """Images with the types of all tokens, ones where they stand for an image or none."""

    def more(batch: int, prompt: dict[str, Any]) -> dict[str, Any]:
        at_images = prompt["input_ids"] == IMAGE_TOKEN
        types = at_images.long() if wanted else torch.zeros_like(prompt["input_ids"])
        return {"pixel_values": torch.randn(batch, 3, 8, 8), "token_type_ids": types}

    return with_images(PATCHES, more)


def _in_tiles(batch: int, _: dict[str, Any]) -> dict[str, Any]:
    """One tile for each sequence, with a mask of its pixels."""
    mask = torch.ones(batch, 1, 16, 16, dtype=torch.long)
    return {"pixel_values": torch.randn(batch, 1, 3, 16, 16), "pixel_attention_mask": mask}


def _in_patches(width: int, rows: int = 16) -> Inputs:
    """Images as rows of patches, a grid that says how they lie, and where tokens are images."""

    def more(batch: int, prompt: dict[str, Any]) -> dict[str, Any]:
        prompt["input_ids"][:, BEFORE - 1] = IMAGE_TOKEN - 1  # a vision part begins
        return {
            "pixel_values": torch.randn(batch * rows, width),
            "image_grid_thw": torch.tensor([[1, 4, 4]] * batch),
            "mm_token_type_ids": (prompt["input_ids"] == IMAGE_TOKEN).long(),
        }

    return with_images(PATCHES, more)


def _sizes(batch: int, _: dict[str, Any]) -> dict[str, Any]:
    return {
        "pixel_values": torch.randn(batch, 3, 3, 8, 8),
        "image_sizes": torch.tensor([[8, 16]] * batch),
    }


def _crossed(batch: int, length: int) -> dict[str, Any]:
    """Images that the text attends to from apart."""
    return text(batch, length) | {
        "pixel_values": torch.randn(batch, 1, 1, 3, 8, 8),
        "aspect_ratio_ids": torch.ones(batch, 1, dtype=torch.long),
        "aspect_ratio_mask": torch.ones(batch, 1, 1, dtype=torch.long),
        "cross_attention_mask": torch.ones(batch, length, 1, 1, dtype=torch.long),
    }


def _beside(batch: int, length: int) -> dict[str, Any]:
    return text(batch, length) | {"pixel_values": torch.randn(batch, 3, 8, 8)}


def _kosmos(batch: int, prompt: dict[str, Any]) -> dict[str, Any]:
    mask = (prompt["input_ids"] == IMAGE_TOKEN).long()
    return {"image_embeds_position_mask": mask, "pixel_values": torch.randn(batch, 3, 8, 8)}


_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
_QWEN = {
    "image_token_id": IMAGE_TOKEN,
    "vision_start_token_id": IMAGE_TOKEN - 1,
    "vision_end_token_id": IMAGE_TOKEN - 2,
    "video_token_id": IMAGE_TOKEN - 3,
}
_QWEN_TEXT = {**TEXT, "rope_parameters": _ROPE}
_QWEN_TOWER = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 24,
    "out_hidden_size": WIDTH,
    "num_heads": 2,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}
_OPT = {**without(TEXT, "intermediate_size", "num_key_value_heads"), "ffn_dim": 48}
_OPT |= {"word_embed_proj_dim": WIDTH}
_QUERIES = {**without(VISION, "image_size", "patch_size"), "encoder_hidden_size": 16}
_CLIP = _config("clip_vision_model", VISION)
_SIGLIP = _config("siglip_vision_model", VISION)
_LLAMA = _config("llama", TEXT)
_GEMMA_3 = _config(
    "gemma3_text",
    _HEAD,
    sliding_window=WINDOW,
    layer_types=["sliding_attention", "full_attention"],
)

_SETTINGS: dict[str, tuple[str, dict[str, Any], Callable[..., Any]]] = {
    "llava": (
        "LlavaForConditionalGeneration",
        {**_PLACE, "vision_config": _CLIP, "text_config": _LLAMA},
        _IMAGES,
    ),
    "vipllava": (
        "VipLlavaForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": _CLIP,
            "text_config": _LLAMA,
            "vision_feature_layers": [-1, -2],
        },
        _IMAGES,
    ),
    "llava_next": (
        "LlavaNextForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": _CLIP,
            "text_config": _LLAMA,
            "image_grid_pinpoints": [[8, 16], [16, 8], [16, 16]],
        },
        with_images(14, _sizes),
    ),
    "llava, a window": (
        "LlavaForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": _CLIP,
            "text_config": _config("mistral", TEXT, sliding_window=WINDOW),
        },
        _IMAGES,
    ),
    "paligemma": (
        "PaliGemmaForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": {**_SIGLIP, "projection_dim": WIDTH},
            "text_config": _config("gemma", _HEAD),
            "projection_dim": WIDTH,
            "hidden_size": WIDTH,
        },
        _types(wanted=False),
    ),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": _SIGLIP,
            "text_config": _GEMMA_3,
            "mm_tokens_per_image": PATCHES,
        },
        _types(wanted=True),
    ),
    "aya_vision": (
        "AyaVisionForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": _config("siglip_vision_model", _LARGER),
            "text_config": _config(
                "cohere2",
                _HEAD,
                sliding_window=WINDOW,
                layer_types=["sliding_attention", "full_attention"],
            ),
            "downsample_factor": 2,
        },
        _LARGER_IMAGES,
    ),
    "idefics3": (
        "Idefics3ForConditionalGeneration",
        {**_PLACE, "vision_config": _LARGER, "text_config": _LLAMA, "scale_factor": 2},
        with_images(PATCHES, _in_tiles),
    ),
    "idefics2": (
        "Idefics2ForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": _LARGER,
            "text_config": _config("mistral", TEXT),
            "perceiver_config": {
                "resampler_n_latents": PATCHES,
                "resampler_depth": 1,
                "resampler_n_heads": 2,
                "resampler_head_dim": 8,
                "num_key_value_heads": 1,
                "hidden_size": WIDTH,
            },
        },
        with_images(PATCHES, _in_tiles),
    ),
    "smolvlm": (
        "SmolVLMForConditionalGeneration",
        {**_PLACE, "vision_config": _LARGER, "text_config": _LLAMA, "scale_factor": 2},
        with_images(PATCHES, _in_tiles),
    ),
    "internvl": (
        "InternVLForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": {**VISION, "image_size": [16, 16], "patch_size": [4, 4]},
            "text_config": _config("qwen2", TEXT),
            "downsample_ratio": 0.5,
        },
        _LARGER_IMAGES,
    ),
    "got_ocr2": (
        "GotOcr2ForConditionalGeneration",
        {
            **_PLACE,
            "text_config": _config("qwen2", TEXT),
            "vision_config": {
                "hidden_size": 16,
                "output_channels": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 64,
                "patch_size": 8,
                "mlp_dim": 24,
                "window_size": 4,
                "global_attn_indexes": [1],
            },
        },
        with_images(PATCHES, pixels(3, 64, 64)),
    ),
    "qwen2_vl": (
        "Qwen2VLForConditionalGeneration",
        {
            **_QWEN,
            "text_config": _QWEN_TEXT,
            "vision_config": {
                "depth": 2,
                "embed_dim": 16,
                "hidden_size": WIDTH,
                "num_heads": 2,
                "mlp_ratio": 2,
                "patch_size": 4,
                "spatial_merge_size": 2,
                "temporal_patch_size": 2,
            },
        },
        _in_patches(3 * 2 * 16),
    ),
    "qwen2_5_vl": (
        "Qwen2_5_VLForConditionalGeneration",
        {
            **_QWEN,
            "text_config": _QWEN_TEXT,
            "vision_config": {**_QWEN_TOWER, "window_size": 8, "fullatt_block_indexes": [1]},
        },
        _in_patches(3 * 2 * 16),
    ),
    "qwen3_vl": (
        "Qwen3VLForConditionalGeneration",
        {
            **_QWEN,
            "text_config": {**_QWEN_TEXT, "head_dim": 8},
            "vision_config": {
                **_QWEN_TOWER,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
        },
        _in_patches(3 * 2 * 16),
    ),
    "blip": (
        "BlipForConditionalGeneration",
        {
            "vision_config": VISION,
            "projection_dim": 16,
            "text_config": {
                **without(TEXT, "num_key_value_heads", "eos_token_id"),
                "encoder_hidden_size": 16,
                "sep_token_id": 2,
                "is_decoder": True,
            },
        },
        _beside,
    ),
    "blip-2": (
        "Blip2ForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": VISION,
            "qformer_config": {**_QUERIES, "vocab_size": 50},
            "text_config": _config("opt", _OPT),
            "num_query_tokens": PATCHES,
        },
        _IMAGES,
    ),
    "instructblip": (
        "InstructBlipForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": VISION,
            "qformer_config": {**_QUERIES, "vocab_size": 100},
            "text_config": _config("opt", _OPT),
            "num_query_tokens": PATCHES,
        },
        with_images(
            PATCHES,
            lambda batch, _: {
                "pixel_values": torch.randn(batch, 3, 8, 8),
                "qformer_input_ids": torch.ones(batch, 5, dtype=torch.long),
                "qformer_attention_mask": torch.ones(batch, 5, dtype=torch.long),
            },
        ),
    ),
    "git": (
        "GitForCausalLM",
        {**without(TEXT, "num_key_value_heads"), "vision_config": VISION},
        _beside,
    ),
    "kosmos-2": (
        "Kosmos2ForConditionalGeneration",
        {
            "vision_config": VISION,
            "latent_query_num": PATCHES,
            "text_config": {
                "embed_dim": WIDTH,
                "ffn_dim": 48,
                "layers": 2,
                "attention_heads": 4,
                "vocab_size": VOCABULARY,
                "max_position_embeddings": 128,
            },
        },
        with_images(PATCHES, _kosmos),
    ),
    "mllama": (
        "MllamaForConditionalGeneration",
        {
            **_PLACE,
            "vision_config": {
                "hidden_size": 16,
                "intermediate_size": 24,
                "num_hidden_layers": 2,
                "num_global_layers": 1,
                "attention_heads": 2,
                "image_size": 8,
                "patch_size": 4,
                "vision_output_dim": WIDTH,
                "intermediate_layers_indices": [0],
                "max_num_tiles": 1,
                "supported_aspect_ratios": [[1, 1]],
            },
            "text_config": {**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1]},
        },
        _crossed,
    ),
    "pix2struct": (
        "Pix2StructForConditionalGeneration",
        {
            "vision_config": {
                "hidden_size": 16,
                "patch_embed_hidden_size": 768,
                "d_ff": 24,
                "d_kv": 8,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
            },
            "text_config": {
                "hidden_size": WIDTH,
                "d_kv": 8,
                "d_ff": 48,
                "num_layers": 2,
                "num_heads": 4,
                "vocab_size": VOCABULARY,
                "decoder_start_token_id": 0,
            },
        },
        lambda batch, _: {
            "flattened_patches": torch.rand(batch, 9, 770),
            "attention_mask": torch.ones(batch, 9),
        },
    ),
}

_NO_PROMPT = {"pix2struct"}

CASES: dict[str, Build] = {
    name: case(model, settings, inputs, is_text=name not in _NO_PROMPT)
    for name, (model, settings, inputs) in _SETTINGS.items()
}
