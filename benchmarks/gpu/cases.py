"""The models that are measured: configurations, construction and inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

IMAGE = 224


@dataclass(frozen=True, kw_only=True)
class Case:
    """A model and how it is called.

    Attributes:
        library: Where its class comes from.
        model: Its class, or the function or name that makes it.
        family: What its inputs are: ``causal``, ``masked``, ``seq2seq``, ``audio``, ``vision``
            (transformers) or ``images`` (one positional tensor).
        config_class: The transformers configuration's class.
        config: Its arguments, or those of the function.
        tiny: What a dry run changes in them.
        side: The side of an image in pixels.
        tiny_side: The same in a dry run.
    """

    library: str
    model: str
    family: str
    config_class: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    tiny: Mapping[str, Any] = field(default_factory=dict)
    side: int = IMAGE
    tiny_side: int = 32

    def sizes(self, *, tiny: bool) -> dict[str, Any]:
        """Arguments of the configuration or function."""
        return {**self.config, **self.tiny} if tiny else dict(self.config)


def _rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta}


_TINY_DECODER = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
_TINY_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
_VISION = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": IMAGE,
    "patch_size": 16,
    "num_channels": 3,
}
_TINY_VISION = {**_TINY_ENCODER, "image_size": 32}
_WHISPER_LAYERS = {
    "encoder_layers": 12,
    "decoder_layers": 12,
    "encoder_attention_heads": 12,
    "decoder_attention_heads": 12,
    "encoder_ffn_dim": 3072,
    "decoder_ffn_dim": 3072,
}
_TINY_WHISPER_LAYERS = {
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
}


def _language(
    model: str, config_class: str, family: str, config: Mapping[str, Any], tiny: Mapping[str, Any]
) -> Case:
    return Case(
        library="transformers",
        model=model,
        config_class=config_class,
        family=family,
        config=config,
        tiny=tiny,
    )


def _images(model: str, library: str = "torchvision", **others: Any) -> Case:
    arguments = {"num_classes": 1000, **others.pop("config", {})}
    return Case(library=library, model=model, family="images", config=arguments, **others)


_DECODERS = {
    "gpt2": _language(
        "GPT2LMHeadModel",
        "GPT2Config",
        "causal",
        config={
            "vocab_size": 50257,
            "n_positions": 1024,
            "n_embd": 768,
            "n_layer": 12,
            "n_head": 12,
        },
        tiny={"vocab_size": 128, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4},
    ),
    "llama_1b": _language(
        "LlamaForCausalLM",
        "LlamaConfig",
        "causal",
        config={
            "vocab_size": 128256,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "max_position_embeddings": 131072,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": True,
            "rope_parameters": _rope(500000.0),
        },
        tiny=_TINY_DECODER,
    ),
    "llama_8b": _language(
        "LlamaForCausalLM",
        "LlamaConfig",
        "causal",
        config={
            "vocab_size": 128256,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 8192,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "rope_parameters": _rope(500000.0),
        },
        tiny=_TINY_DECODER,
    ),
    "qwen3_0.6b": _language(
        "Qwen3ForCausalLM",
        "Qwen3Config",
        "causal",
        config={
            "vocab_size": 151936,
            "hidden_size": 1024,
            "intermediate_size": 3072,
            "num_hidden_layers": 28,
            "num_attention_heads": 16,
            "num_key_value_heads": 8,
            "head_dim": 128,
            "max_position_embeddings": 40960,
            "rms_norm_eps": 1e-6,
            "tie_word_embeddings": True,
            "rope_parameters": _rope(1000000.0),
        },
        tiny=_TINY_DECODER,
    ),
    "mixtral_small": _language(
        "MixtralForCausalLM",
        "MixtralConfig",
        "causal",
        config={
            "vocab_size": 32000,
            "hidden_size": 1024,
            "intermediate_size": 3584,
            "num_hidden_layers": 8,
            "num_attention_heads": 16,
            "num_key_value_heads": 4,
            "head_dim": 64,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-5,
            "tie_word_embeddings": False,
            "rope_parameters": _rope(1000000.0),
        },
        tiny={**_TINY_DECODER, "num_local_experts": 4},
    ),
    "mamba_130m": _language(
        "MambaForCausalLM",
        "MambaConfig",
        "causal",
        config={
            "vocab_size": 50280,
            "hidden_size": 768,
            "state_size": 16,
            "num_hidden_layers": 24,
            "expand": 2,
            "conv_kernel": 4,
            "time_step_rank": 48,
            "tie_word_embeddings": True,
        },
        tiny={"vocab_size": 128, "hidden_size": 32, "num_hidden_layers": 2, "time_step_rank": 2},
    ),
}
_ENCODERS = {
    "bert": _language(
        "BertForMaskedLM",
        "BertConfig",
        "masked",
        config={
            "vocab_size": 30522,
            "hidden_size": 768,
            "intermediate_size": 3072,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "max_position_embeddings": 512,
        },
        tiny={**_TINY_ENCODER, "vocab_size": 128},
    ),
    "t5_base": _language(
        "T5ForConditionalGeneration",
        "T5Config",
        "seq2seq",
        config={
            "vocab_size": 32128,
            "d_model": 768,
            "d_kv": 64,
            "d_ff": 3072,
            "num_layers": 12,
            "num_decoder_layers": 12,
            "num_heads": 12,
            "pad_token_id": 0,
            "decoder_start_token_id": 0,
        },
        tiny={
            "vocab_size": 128,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_heads": 4,
        },
    ),
    "whisper_small": _language(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        "audio",
        config={
            "vocab_size": 51865,
            "d_model": 768,
            **_WHISPER_LAYERS,
            "num_mel_bins": 80,
            "max_source_positions": 1500,
            "max_target_positions": 448,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        tiny={
            "vocab_size": 128,
            "d_model": 32,
            **_TINY_WHISPER_LAYERS,
            "max_source_positions": 50,
        },
    ),
    "vit_b16": _language(
        "ViTForImageClassification",
        "ViTConfig",
        "vision",
        config={**_VISION, "num_labels": 1000},
        tiny=_TINY_VISION,
    ),
    "siglip_b16": _language(
        "SiglipVisionModel", "SiglipVisionConfig", "vision", config=_VISION, tiny=_TINY_VISION
    ),
}
_CONVOLUTIONAL = {
    "resnet50": _images("resnet50"),
    "resnet152": _images("resnet152"),
    "vgg16": _images("vgg16"),
    "densenet121": _images("densenet121"),
    "mobilenet_v3_large": _images("mobilenet_v3_large"),
    "efficientnet_b0": _images("efficientnet_b0"),
    "swin_t": _images("swin_t"),
    "convnext_tiny": _images("convnext_tiny", library="timm"),
    "inception_v3": Case(
        library="torchvision",
        model="inception_v3",
        family="images",
        config={"num_classes": 1000, "aux_logits": True, "init_weights": False},
        side=299,
        tiny_side=299,
    ),
}
CASES: dict[str, Case] = {**_DECODERS, **_ENCODERS, **_CONVOLUTIONAL}


def build(
    case: Case, *, dtype: torch.dtype, device: torch.device, attention: str, tiny: bool
) -> nn.Module:
    """Make a model on a device with random weights in a dtype.

    Args:
        case: The model.
        dtype: That of its parameters and floating-point buffers.
        device: Where it is made.
        attention: transformers' attention implementation, or ``default`` for its own choice.
        tiny: Whether a dry run's sizes are used.
    """
    torch.manual_seed(0)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            return _construct(case, attention, case.sizes(tiny=tiny))
    finally:
        torch.set_default_dtype(previous)


def _construct(case: Case, attention: str, sizes: dict[str, Any]) -> nn.Module:
    library: Any = import_module(case.library)
    model: nn.Module
    if case.library == "transformers":
        choice = {} if attention == "default" else {"attn_implementation": attention}
        config = getattr(library, case.config_class)(**sizes, **choice)
        model = getattr(library, case.model)(config)
    elif case.library == "timm":
        model = library.create_model(case.model, pretrained=False, **sizes)
    else:
        model = getattr(library.models, case.model)(weights=None, **sizes)
    return model


def inputs_of(  # noqa: PLR0913 - what an input depends on
    case: Case,
    *,
    batch: int,
    length: int,
    dtype: torch.dtype,
    device: torch.device,
    tiny: bool,
    labels: bool,
) -> dict[str, Tensor]:
    """Random inputs of a model.

    Args:
        case: The model.
        batch: How many samples.
        length: Tokens of each, or the side of an image.
        dtype: That of images and spectrograms.
        device: Where they are made.
        tiny: Whether the model has a dry run's sizes.
        labels: Whether labels of its loss are among them.
    """
    torch.manual_seed(1)
    sizes = case.sizes(tiny=tiny)

    def tokens(count: int) -> Tensor:
        return torch.randint(3, sizes["vocab_size"], (batch, count), device=device)

    def floats(*shape: int) -> Tensor:
        return torch.randn(batch, *shape, dtype=dtype, device=device)

    match case.family:
        case "causal" | "masked":
            made = {"input_ids": tokens(length)}
            return made | ({"labels": tokens(length)} if labels else {})
        case "seq2seq":
            target = "labels" if labels else "decoder_input_ids"
            return {"input_ids": tokens(length), target: tokens(max(length // 4, 1))}
        case "audio":
            target = "labels" if labels else "decoder_input_ids"
            frames = 2 * sizes["max_source_positions"]
            return {
                "input_features": floats(sizes["num_mel_bins"], frames),
                target: tokens(length),
            }
    made = {"pixel_values": floats(3, length, length)}
    classes = sizes.get("num_labels", sizes.get("num_classes"))
    if labels and classes:
        made["labels"] = torch.randint(0, classes, (batch,), device=device)
    return made
