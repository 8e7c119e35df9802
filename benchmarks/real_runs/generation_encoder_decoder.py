"""Generations of encoder-decoders: the encoder runs once, its keys and values stay."""

from __future__ import annotations

from typing import Any

import torch

from benchmarks.real_runs.generation import Build, Generating
from benchmarks.real_runs.tiny import TEXT, VISION, VOCABULARY, WIDTH, build, text, without

_START = {"decoder_start_token_id": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_T5 = {
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": VOCABULARY,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
}
BART: dict[str, Any] = {
    "d_model": WIDTH,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 128,
    **_START,
}
"""Sizes in the names of BART and its descendants."""


def _case(name: str, settings: dict[str, Any]) -> Build:
    return lambda: Generating(model=build(name, settings), inputs=text, text=False)


def _with_decoder_prompt() -> Generating:
    def inputs(batch: int, length: int) -> dict[str, Any]:
        return text(batch, length) | {"decoder_input_ids": torch.full((batch, 3), 2)}

    model = build("BartForConditionalGeneration", BART)
    return Generating(model=model, inputs=inputs, text=False)


def _started(model: Any) -> Any:
    for config in (model.config, model.generation_config):
        config.decoder_start_token_id, config.pad_token_id = 2, 0
    return model


def _two_berts() -> Generating:
    import transformers

    sizes = without(TEXT, "num_key_value_heads")
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.BertConfig(**sizes),
        transformers.BertConfig(**sizes, is_decoder=True, add_cross_attention=True),
    )
    model = _started(build("EncoderDecoderModel", {}, config))
    return Generating(model=model, inputs=text, text=False)


def _image_to_text() -> Generating:
    import transformers

    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(
        transformers.ViTConfig(**VISION),
        transformers.GPT2Config(
            n_embd=WIDTH,
            n_layer=2,
            n_head=4,
            vocab_size=VOCABULARY,
            n_positions=64,
            add_cross_attention=True,
            is_decoder=True,
        ),
    )
    model = _started(build("VisionEncoderDecoderModel", {}, config))

    def inputs(batch: int, _: int) -> dict[str, Any]:
        return {"pixel_values": torch.randn(batch, 3, 8, 8)}

    return Generating(model=model, inputs=inputs, text=False)


_GEMMA = {
    **without(TEXT, "eos_token_id"),
    "head_dim": 8,
    "sliding_window": 8,
    "layer_types": ["sliding_attention", "full_attention"],
}

_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("T5ForConditionalGeneration", _T5),
    "t5, more layers in the encoder": (
        "T5ForConditionalGeneration",
        {**_T5, "num_layers": 3, "num_decoder_layers": 2},
    ),
    "mt5": ("MT5ForConditionalGeneration", _T5),
    "umt5": ("UMT5ForConditionalGeneration", _T5),
    "longt5": (
        "LongT5ForConditionalGeneration",
        {**_T5, "encoder_attention_type": "local", "local_radius": 3},
    ),
    "longt5, global": (
        "LongT5ForConditionalGeneration",
        {
            **_T5,
            "encoder_attention_type": "transient-global",
            "local_radius": 3,
            "global_block_size": 4,
        },
    ),
    "switch_transformers": (
        "SwitchTransformersForConditionalGeneration",
        {
            **_T5,
            "num_experts": 2,
            "num_decoder_layers": 2,
            "num_sparse_encoder_layers": 1,
            "num_sparse_decoder_layers": 1,
        },
    ),
    "bart": ("BartForConditionalGeneration", BART),
    "mbart": ("MBartForConditionalGeneration", BART),
    "plbart": ("PLBartForConditionalGeneration", BART),
    "mvp": ("MvpForConditionalGeneration", BART),
    "marian": ("MarianMTModel", BART),
    "pegasus": ("PegasusForConditionalGeneration", BART),
    "pegasus_x": (
        "PegasusXForConditionalGeneration",
        {**BART, "num_global_tokens": 4, "block_size": 4},
    ),
    "blenderbot": ("BlenderbotForConditionalGeneration", BART),
    "blenderbot-small": ("BlenderbotSmallForConditionalGeneration", BART),
    "m2m_100": ("M2M100ForConditionalGeneration", BART),
    "fsmt": (
        "FSMTForConditionalGeneration",
        {
            **without(BART, "vocab_size"),
            "langs": ["en", "de"],
            "src_vocab_size": VOCABULARY,
            "tgt_vocab_size": VOCABULARY,
        },
    ),
    "nllb-moe": (
        "NllbMoeForConditionalGeneration",
        {**BART, "num_experts": 4, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
    ),
    "led": (
        "LEDForConditionalGeneration",
        {
            **without(BART, "max_position_embeddings"),
            "max_encoder_position_embeddings": 128,
            "max_decoder_position_embeddings": 128,
            "attention_window": [4, 4],
        },
    ),
    "bigbird_pegasus": (
        "BigBirdPegasusForConditionalGeneration",
        {**BART, "attention_type": "original_full"},
    ),
    "prophetnet": (
        "ProphetNetForConditionalGeneration",
        {
            "hidden_size": WIDTH,
            "encoder_ffn_dim": 48,
            "decoder_ffn_dim": 48,
            **_START,
            "num_encoder_layers": 2,
            "num_decoder_layers": 2,
            "num_encoder_attention_heads": 4,
            "num_decoder_attention_heads": 4,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 64,
        },
    ),
    "t5gemma": (
        "T5GemmaForConditionalGeneration",
        {
            "encoder": _GEMMA,
            "decoder": {**_GEMMA, "cross_attention_hidden_size": WIDTH},
            "vocab_size": VOCABULARY,
        },
    ),
}

CASES: dict[str, Build] = {
    **{name: _case(*settings) for name, settings in _SETTINGS.items()},
    "bart, a decoder prompt": _with_decoder_prompt,
    "encoder-decoder": _two_berts,
    "vision-encoder-decoder": _image_to_text,
}
