"""Small models of many architectures on the meta device, with inputs written by hand.

Depth and vocabulary are cut; the shapes that make an architecture what it is stay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import transformers


class Case(NamedTuple):
    """A model and the keyword inputs of one forward pass, all on meta."""

    model: torch.nn.Module
    inputs: dict[str, Any]


DEPTH = 2
"""Layers of each; for a while more of them, in :func:`at_depth`."""


@contextlib.contextmanager
def at_depth(layers: int) -> Iterator[None]:
    """Build models of so many layers until the block ends."""
    global DEPTH  # noqa: PLW0603 - every builder reads it
    before, DEPTH = DEPTH, layers
    try:
        yield
    finally:
        DEPTH = before


def _tokens(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.int64, device="meta")


def _floats(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, device="meta")


def _build(class_name: str, config: Any) -> torch.nn.Module:
    with torch.device("meta"):
        model: torch.nn.Module = getattr(transformers, class_name)._from_config(config)
    return model.eval()


def _decoder(class_name: str, config_name: str, **overrides: Any) -> Case:
    config = getattr(transformers, config_name)(num_hidden_layers=DEPTH, **overrides)
    inputs = {"input_ids": _tokens(2, 12), "use_cache": False}
    return Case(_build(class_name, config), inputs)


def _encoder(class_name: str, config_name: str, **overrides: Any) -> Case:
    config = getattr(transformers, config_name)(num_hidden_layers=DEPTH, **overrides)
    return Case(_build(class_name, config), {"input_ids": _tokens(2, 12)})


def _vision(class_name: str, config_name: str, **overrides: Any) -> Case:
    config = getattr(transformers, config_name)(**overrides)
    return Case(_build(class_name, config), {"pixel_values": _floats(2, 3, 224, 224)})


def _seq2seq(class_name: str, config_name: str, **overrides: Any) -> Case:
    config = getattr(transformers, config_name)(**overrides)
    inputs = {"input_ids": _tokens(2, 12), "decoder_input_ids": _tokens(2, 7), "use_cache": False}
    return Case(_build(class_name, config), inputs)


def _moe(class_name: str, config_name: str, **overrides: Any) -> Case:
    # Looping over the experts that were hit needs values; the batched form does not.
    case = _decoder(class_name, config_name, **overrides)
    case.model.set_experts_implementation("batched_mm")  # type: ignore[operator]
    return case


def _clip() -> Case:
    config = transformers.CLIPConfig(
        text_config={"num_hidden_layers": DEPTH}, vision_config={"num_hidden_layers": DEPTH}
    )
    inputs = {"input_ids": _tokens(2, 12), "pixel_values": _floats(2, 3, 224, 224)}
    return Case(_build("CLIPModel", config), inputs)


def _whisper() -> Case:
    config = transformers.WhisperConfig(encoder_layers=DEPTH, decoder_layers=DEPTH)
    inputs = {
        "input_features": _floats(2, config.num_mel_bins, 3000),
        "decoder_input_ids": _tokens(2, 7),
        "use_cache": False,
    }
    return Case(_build("WhisperForConditionalGeneration", config), inputs)


def _wav2vec2() -> Case:
    config = transformers.Wav2Vec2Config(num_hidden_layers=DEPTH)
    return Case(_build("Wav2Vec2Model", config), {"input_values": _floats(2, 4000)})


ARCHITECTURES: dict[str, Callable[[], Case]] = {
    "llama": lambda: _decoder("LlamaForCausalLM", "LlamaConfig", num_key_value_heads=8),
    "qwen2": lambda: _decoder("Qwen2ForCausalLM", "Qwen2Config"),
    "qwen3": lambda: _decoder("Qwen3ForCausalLM", "Qwen3Config"),
    "gemma3_text": lambda: _decoder("Gemma3ForCausalLM", "Gemma3TextConfig"),
    "phi3": lambda: _decoder("Phi3ForCausalLM", "Phi3Config", pad_token_id=0),
    "opt": lambda: _decoder("OPTForCausalLM", "OPTConfig"),
    "gpt2": lambda: _decoder("GPT2LMHeadModel", "GPT2Config"),
    "gpt_neox": lambda: _decoder("GPTNeoXForCausalLM", "GPTNeoXConfig"),
    "mistral": lambda: _decoder("MistralForCausalLM", "MistralConfig"),
    "mixtral": lambda: _moe("MixtralForCausalLM", "MixtralConfig"),
    "qwen3_moe": lambda: _moe("Qwen3MoeForCausalLM", "Qwen3MoeConfig"),
    "mamba": lambda: _encoder("MambaForCausalLM", "MambaConfig", use_cache=False),
    "bert": lambda: _encoder("BertModel", "BertConfig"),
    "roberta": lambda: _encoder("RobertaModel", "RobertaConfig"),
    "distilbert": lambda: _encoder("DistilBertModel", "DistilBertConfig"),
    "albert": lambda: _encoder("AlbertModel", "AlbertConfig"),
    "electra": lambda: _encoder("ElectraModel", "ElectraConfig"),
    "t5": lambda: _seq2seq("T5ForConditionalGeneration", "T5Config", num_layers=DEPTH),
    "bart": lambda: _seq2seq(
        "BartForConditionalGeneration", "BartConfig", encoder_layers=DEPTH, decoder_layers=DEPTH
    ),
    "vit": lambda: _vision("ViTModel", "ViTConfig", num_hidden_layers=DEPTH),
    "deit": lambda: _vision("DeiTModel", "DeiTConfig", num_hidden_layers=DEPTH),
    "dinov2": lambda: _vision("Dinov2Model", "Dinov2Config", num_hidden_layers=DEPTH),
    "convnext": lambda: _vision("ConvNextModel", "ConvNextConfig", depths=[1, 1, DEPTH, 1]),
    "resnet": lambda: _vision("ResNetModel", "ResNetConfig"),
    "regnet": lambda: _vision("RegNetModel", "RegNetConfig", depths=[1, 1, DEPTH, 1]),
    "mobilenet_v2": lambda: _vision("MobileNetV2Model", "MobileNetV2Config"),
    "swin": lambda: _vision("SwinModel", "SwinConfig", depths=[1, DEPTH], num_heads=[3, 6]),
    "segformer": lambda: _vision("SegformerModel", "SegformerConfig"),
    "clip": _clip,
    "whisper": _whisper,
    "wav2vec2": _wav2vec2,
}
