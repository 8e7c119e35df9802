"""Training steps of models of libraries, tiny: their losses, checkpoints and adapters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.real_runs.training import Build, Step, step

WIDTH, LAYERS, VOCABULARY = 32, 2, 100
BATCH, LENGTH = 2, 9
_SIZES: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
_DECODER: dict[str, Any] = _SIZES | {"num_key_value_heads": 2}
_SEQ2SEQ: dict[str, Any] = {
    "d_model": WIDTH,
    **{
        f"{part}_{what}": size
        for part in ("encoder", "decoder")
        for what, size in (("layers", LAYERS), ("attention_heads", 4), ("ffn_dim", 48))
    },
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 64,
}
_VISION: dict[str, Any] = {
    **{name: _SIZES[name] for name in list(_SIZES)[:4]},
    "image_size": 16,
    "patch_size": 4,
}
_PLAIN: dict[str, Any] = {"use_cache": False}


def _tokens(length: int = LENGTH) -> torch.Tensor:
    return torch.randint(3, VOCABULARY, (BATCH, length))


def _language() -> dict[str, Any]:
    tokens = _tokens()
    return {"input_ids": tokens, "labels": tokens}


def _image(size: int = 16, **more: Any) -> dict[str, Any]:
    return {"pixel_values": torch.randn(BATCH, 3, size, size), **more}


def _classes() -> dict[str, Any]:
    return {"labels": torch.randint(0, 2, (BATCH,))}


def _pairs() -> dict[str, Any]:
    return {"input_ids": _tokens(7), "return_loss": True, **_image()}


def model(name: str, **settings: Any) -> Any:
    """A tiny model of a class of transformers, in training mode."""
    import transformers

    model_class = getattr(transformers, name)
    return model_class._from_config(model_class.config_class(**settings)).train()


def _hf(
    name: str,
    inputs: Callable[[], dict[str, Any]] = _language,
    *,
    prepare: Callable[[Any], Any] = lambda built: built,
    more: dict[str, Any] | None = None,
    **settings: Any,
) -> Build:
    def build() -> Step:
        built = prepare(model(name, **settings))
        return Step(model=built, kwargs=inputs() | (more or {}))

    return build


def _checkpoints(reentrant: bool) -> Callable[[Any], Any]:
    def prepare(built: Any) -> Any:
        options = {"use_reentrant": reentrant}
        if hasattr(built, "activation_checkpointing_enable"):
            built.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        else:
            built.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        return built

    return prepare


def _inputs_ask(built: Any) -> Any:
    """Checkpoints of the reentrant kind below frozen embeddings, as fine-tuning scripts have."""
    built.enable_input_require_grads()
    built.get_input_embeddings().requires_grad_(False)
    return _checkpoints(reentrant=True)(built)


_LLAMA = functools.partial(_hf, "LlamaForCausalLM", more=_PLAIN, **_DECODER)
_BERT = functools.partial(_hf, "BertForMaskedLM", **_SIZES)
_VIT = functools.partial(_hf, "ViTForImageClassification", lambda: _image(**_classes()), **_VISION)
_T5 = functools.partial(
    _hf,
    "T5ForConditionalGeneration",
    more=_PLAIN,
    d_model=WIDTH,
    d_kv=8,
    d_ff=48,
    num_layers=LAYERS,
    num_heads=4,
    vocab_size=VOCABULARY,
    decoder_start_token_id=0,
)
_EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2}
_WAVES: dict[str, Any] = {
    **_SIZES,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 3),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
}

TRANSFORMERS: dict[str, Build] = {
    "llama": _LLAMA(),
    "llama, eager attention": _LLAMA(attn_implementation="eager"),
    "llama, with a cache": _hf("LlamaForCausalLM", **_DECODER),
    "llama, 6 layers": _hf("LlamaForCausalLM", more=_PLAIN, **{**_DECODER, "num_hidden_layers": 6}),
    "llama, checkpoints": _LLAMA(prepare=_checkpoints(reentrant=False)),
    "llama, reentrant checkpoints": _LLAMA(prepare=_checkpoints(reentrant=True)),
    "llama, frozen embeddings that ask": _LLAMA(prepare=_inputs_ask),
    "bert": _BERT(),
    "bert, checkpoints": _BERT(prepare=_checkpoints(reentrant=False)),
    "bert, reentrant checkpoints": _BERT(prepare=_checkpoints(reentrant=True)),
    "vit": _VIT(),
    "vit, checkpoints": _VIT(prepare=_checkpoints(reentrant=False)),
    "t5": _T5(),
    "t5, checkpoints": _T5(prepare=_checkpoints(reentrant=False)),
    "t5, reentrant checkpoints": _T5(prepare=_checkpoints(reentrant=True)),
    "gpt2": _hf(
        "GPT2LMHeadModel",
        more=_PLAIN,
        n_embd=WIDTH,
        n_layer=LAYERS,
        n_head=4,
        vocab_size=VOCABULARY,
    ),
    "bart": _hf("BartForConditionalGeneration", more=_PLAIN, **_SEQ2SEQ),
    "mixtral": _hf("MixtralForCausalLM", more=_PLAIN, **_DECODER, **_EXPERTS),
    "mixtral, with the router's loss": _hf(
        "MixtralForCausalLM", more=_PLAIN | {"output_router_logits": True}, **_DECODER, **_EXPERTS
    ),
    "gemma3": _hf(
        "Gemma3ForCausalLM",
        more=_PLAIN,
        **_DECODER,
        head_dim=8,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "mamba": _hf(
        "MambaForCausalLM",
        more=_PLAIN,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        vocab_size=VOCABULARY,
        state_size=4,
    ),
    "albert": _hf("AlbertForMaskedLM", **_SIZES, embedding_size=16),
    "deberta v2": _hf(
        "DebertaV2ForMaskedLM", **_SIZES, relative_attention=True, pos_att_type=["p2c", "c2p"]
    ),
    "xlnet": _hf(
        "XLNetLMHeadModel",
        d_model=WIDTH,
        n_layer=LAYERS,
        n_head=4,
        d_inner=48,
        vocab_size=VOCABULARY,
    ),
    "clip": _hf("CLIPModel", _pairs, projection_dim=16, text_config=_SIZES, vision_config=_VISION),
    "convnext": _hf(
        "ConvNextForImageClassification",
        lambda: _image(32, **_classes()),
        hidden_sizes=[8, 16],
        depths=[2, 2],
        num_stages=2,
    ),
    "resnet": _hf(
        "ResNetForImageClassification",
        lambda: _image(32, **_classes()),
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[2, 2],
    ),
    "swin": _hf(
        "SwinForImageClassification",
        lambda: _image(32, **_classes()),
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    "segformer": _hf(
        "SegformerForSemanticSegmentation",
        lambda: _image(32, labels=torch.randint(0, 2, (BATCH, 32, 32))),
        hidden_sizes=[8, 16, 16, 16],
        num_attention_heads=[1, 2, 2, 2],
        depths=[1, 1, 1, 1],
        decoder_hidden_size=16,
        drop_path_rate=0.0,
    ),
    "mobilenet v2": _hf("MobileNetV2ForImageClassification", lambda: _image(32, **_classes())),
    "vit mae": _hf(
        "ViTMAEForPreTraining",
        _image,
        **_VISION,
        decoder_hidden_size=16,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=24,
    ),
    "wav2vec2": _hf(
        "Wav2Vec2ForCTC",
        lambda: {"input_values": torch.randn(BATCH, 800), "labels": _tokens(4)},
        **_WAVES,
    ),
    "whisper": _hf(
        "WhisperForConditionalGeneration",
        lambda: {"input_features": torch.randn(BATCH, 8, 40), "labels": _tokens(5)},
        more=_PLAIN,
        max_source_positions=20,
        max_target_positions=32,
        num_mel_bins=8,
        **{name: value for name, value in _SEQ2SEQ.items() if name != "max_position_embeddings"},
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    ),
}


def _peft(name: str, more: dict[str, Any] | None = None, **settings: Any) -> Build:
    """An adapter on a llama."""

    def adapt(built: Any) -> Any:
        import peft

        config = getattr(peft, name)(task_type="CAUSAL_LM", **settings)
        return peft.get_peft_model(built, config)

    return _LLAMA(prepare=adapt, more=_PLAIN | (more or {}))


def _lora_with_checkpoints(reentrant: bool) -> Build:
    def adapt(built: Any) -> Any:
        import peft

        built.enable_input_require_grads()
        config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        return peft.get_peft_model(_checkpoints(reentrant)(built), config)

    return _LLAMA(prepare=adapt)


def _lora_convolution() -> Step:
    import peft

    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 3))
    config = peft.LoraConfig(r=2, target_modules=["0", "3"])
    return step(peft.get_peft_model(net, config), torch.randn(2, 4, 6, 6))


_TWO: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"]}

ADAPTERS: dict[str, Build] = {
    "LoRA": _peft("LoraConfig", r=4, **_TWO),
    "LoRA, all linear, dropout": _peft(
        "LoraConfig", r=4, target_modules="all-linear", lora_dropout=0.1
    ),
    "LoRA, embeddings too": _peft("LoraConfig", r=4, target_modules=["q_proj", "embed_tokens"]),
    "LoRA, a module saved": _peft("LoraConfig", r=4, modules_to_save=["lm_head"], **_TWO),
    "LoRA, biases": _peft("LoraConfig", r=4, bias="all", **_TWO),
    "LoRA, checkpoints": _lora_with_checkpoints(reentrant=False),
    "LoRA, reentrant checkpoints": _lora_with_checkpoints(reentrant=True),
    "LoRA, convolution": _lora_convolution,
    "DoRA": _peft("LoraConfig", r=4, use_dora=True, **_TWO),
    "LoHa": _peft("LoHaConfig", r=4, **_TWO),
    "LoKr": _peft("LoKrConfig", r=4, **_TWO),
    "AdaLoRA": _peft("AdaLoraConfig", init_r=4, total_step=10, **_TWO),
    "IA3": _peft(
        "IA3Config", target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]
    ),
    "VeRA": _peft("VeraConfig", r=4, target_modules=["q_proj"]),
    "BOFT": _peft("BOFTConfig", boft_block_size=4, target_modules=["q_proj"]),
    "OFT": _peft("OFTConfig", r=0, oft_block_size=8, target_modules=["q_proj"]),
    "layer norms": _peft("LNTuningConfig"),
    "prompt tuning": _peft("PromptTuningConfig", num_virtual_tokens=4),
    "prefix tuning": _peft("PrefixTuningConfig", num_virtual_tokens=4),
    "p-tuning": _peft("PromptEncoderConfig", num_virtual_tokens=4, encoder_hidden_size=16),
}


def _timm(name: str, size: int = 64, *, checkpoints: bool = False, **settings: Any) -> Build:
    def build() -> Step:
        import timm

        built = timm.create_model(name, **settings).train()
        if checkpoints:
            built.set_grad_checkpointing()
        return step(built, torch.randn(2, 3, size, size))

    return build


def _torchvision(name: str, size: int = 64, **settings: Any) -> Build:
    def build() -> Step:
        import torchvision

        built = torchvision.models.get_model(name, weights=None, **settings).train()
        return step(built, torch.randn(2, 3, size, size))

    return build


def _densenet() -> Step:
    import torchvision

    net = torchvision.models.DenseNet(8, (2, 2), 16, memory_efficient=True)
    return step(net.train(), torch.randn(2, 3, 32, 32))


VISION: dict[str, Build] = {
    "timm resnet18": _timm("resnet18"),
    "timm resnet18, checkpoints": _timm("resnet18", checkpoints=True),
    "timm vit": _timm("vit_tiny_patch16_224", img_size=64, depth=3),
    "timm vit, checkpoints": _timm("vit_tiny_patch16_224", img_size=64, depth=3, checkpoints=True),
    "timm mobilenetv3": _timm("mobilenetv3_small_050"),
    "timm convnext": _timm("convnext_atto"),
    "timm resnext": _timm("resnext50_32x4d", 32),
    "torchvision resnet18": _torchvision("resnet18"),
    "torchvision shufflenet": _torchvision("shufflenet_v2_x0_5"),
    "torchvision googlenet": _torchvision("googlenet", 96, aux_logits=True, init_weights=False),
    "torchvision densenet, checkpoints": _densenet,
    "torchvision lraspp": _torchvision("lraspp_mobilenet_v3_large", weights_backbone=None),
}
