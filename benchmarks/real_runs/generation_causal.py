"""Generations of decoders: attention in all its forms, experts, shared and compressed caches."""

from __future__ import annotations

from typing import Any

from benchmarks.real_runs.generation import Build
from benchmarks.real_runs.tiny import TEXT, VOCABULARY, WIDTH, WINDOW, case, without

_HEAD = {**TEXT, "head_dim": 8}
_ALL_HEADS = without(TEXT, "num_key_value_heads")
_WINDOW = {"sliding_window": WINDOW}
_BOTH = ["sliding_attention", "full_attention"]
_GPT: dict[str, Any] = {
    "n_embd": WIDTH,
    "n_layer": 2,
    "n_head": 4,
    "vocab_size": VOCABULARY,
    "n_positions": 256,
}
_GPT |= {"bos_token_id": 1, "eos_token_id": None}
_FOUR_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_LOCAL_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
_LATENT = {
    **TEXT,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 8,
}
_ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "topk_group": 1,
}

_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", TEXT),
    "qwen2": ("Qwen2ForCausalLM", TEXT),
    "qwen2, window": (
        "Qwen2ForCausalLM",
        {**TEXT, **_WINDOW, "use_sliding_window": True, "max_window_layers": 1},
    ),
    "qwen2_moe": (
        "Qwen2MoeForCausalLM",
        {
            **TEXT,
            **_FOUR_EXPERTS,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "qwen3": ("Qwen3ForCausalLM", _HEAD),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {**_HEAD, **_FOUR_EXPERTS, "moe_intermediate_size": 16}),
    "mixtral": ("MixtralForCausalLM", {**TEXT, **_LOCAL_EXPERTS}),
    "mistral": ("MistralForCausalLM", {**TEXT, **_WINDOW}),
    "ministral": ("MinistralForCausalLM", {**_HEAD, **_WINDOW, "layer_types": _BOTH}),
    "deepseek_v2": ("DeepseekV2ForCausalLM", {**_LATENT, **_ROUTED, "n_group": 1}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", {**_LATENT, **_ROUTED, "n_group": 2}),
    "longcat_flash": (
        "LongcatFlashForCausalLM",
        {
            **_LATENT,
            "num_layers": 2,
            "ffn_hidden_size": 48,
            "expert_ffn_hidden_size": 16,
            "n_routed_experts": 4,
            "zero_expert_num": 2,
            "moe_topk": 2,
            "head_dim": 4,
        },
    ),
    "minicpm3": ("MiniCPM3ForCausalLM", _LATENT),
    "gemma": ("GemmaForCausalLM", _HEAD),
    "gemma2": ("Gemma2ForCausalLM", {**_HEAD, **_WINDOW}),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        {**_HEAD, **_WINDOW, "num_hidden_layers": 3, "layer_types": [*_BOTH, "sliding_attention"]},
    ),
    "gemma3n_text": (
        "Gemma3nForCausalLM",
        {
            **_HEAD,
            **_WINDOW,
            "num_hidden_layers": 4,
            "layer_types": [*_BOTH, *_BOTH],
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 8,
            "laurel_rank": 4,
            "vocab_size_per_layer_input": VOCABULARY,
            "altup_num_inputs": 2,
            "intermediate_size": [48] * 4,
            "activation_sparsity_pattern": [0.0] * 4,
        },
    ),
    "vaultgemma": ("VaultGemmaForCausalLM", {**_HEAD, **_WINDOW, "layer_types": _BOTH}),
    "gpt2": ("GPT2LMHeadModel", _GPT),
    "gpt_bigcode": ("GPTBigCodeForCausalLM", _GPT),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        {
            "hidden_size": WIDTH,
            "num_layers": 2,
            "num_heads": 4,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 256,
            "window_size": WINDOW,
            "attention_types": [[["global", "local"], 1]],
        },
    ),
    "gpt_neox": ("GPTNeoXForCausalLM", _ALL_HEADS),
    "gptj": ("GPTJForCausalLM", {**_GPT, "rotary_dim": 4}),
    "codegen": ("CodeGenForCausalLM", {**_GPT, "n_ctx": 256, "rotary_dim": 4}),
    "openai-gpt": ("OpenAIGPTLMHeadModel", _GPT),
    "ctrl": ("CTRLLMHeadModel", {**_GPT, "dff": 48}),
    "opt": (
        "OPTForCausalLM",
        {
            **without(TEXT, "intermediate_size", "num_key_value_heads"),
            "ffn_dim": 48,
            "word_embed_proj_dim": 16,
        },
    ),
    "xglm": (
        "XGLMForCausalLM",
        {
            "d_model": WIDTH,
            "ffn_dim": 48,
            "num_layers": 2,
            "attention_heads": 4,
            "vocab_size": VOCABULARY,
            "max_position_embeddings": 256,
            "pad_token_id": 0,
        },
    ),
    "biogpt": ("BioGptForCausalLM", _ALL_HEADS),
    "bloom": (
        "BloomForCausalLM",
        {"hidden_size": WIDTH, "n_layer": 2, "n_head": 4, "vocab_size": VOCABULARY},
    ),
    "mpt": (
        "MptForCausalLM",
        {
            "d_model": WIDTH,
            "n_heads": 4,
            "n_layers": 2,
            "vocab_size": VOCABULARY,
            "max_seq_len": 256,
        },
    ),
    "falcon": (
        "FalconForCausalLM",
        {**without(TEXT, "intermediate_size", "num_key_value_heads"), "alibi": False},
    ),
    "falcon, alibi": (
        "FalconForCausalLM",
        {
            **without(TEXT, "intermediate_size", "num_key_value_heads"),
            "alibi": True,
            "new_decoder_architecture": False,
            "multi_query": False,
        },
    ),
    "phi": ("PhiForCausalLM", TEXT),
    "phi3": ("Phi3ForCausalLM", {**TEXT, **_WINDOW}),
    "phimoe": ("PhimoeForCausalLM", {**TEXT, **_WINDOW, **_LOCAL_EXPERTS}),
    "persimmon": ("PersimmonForCausalLM", _ALL_HEADS),
    "stablelm": ("StableLmForCausalLM", TEXT),
    "starcoder2": ("Starcoder2ForCausalLM", {**TEXT, **_WINDOW}),
    "cohere": ("CohereForCausalLM", TEXT),
    "cohere2": ("Cohere2ForCausalLM", {**_HEAD, **_WINDOW, "layer_types": _BOTH}),
    "olmo": ("OlmoForCausalLM", TEXT),
    "olmo2": ("Olmo2ForCausalLM", TEXT),
    "olmo3": ("Olmo3ForCausalLM", {**TEXT, **_WINDOW, "layer_types": _BOTH}),
    "olmoe": ("OlmoeForCausalLM", {**TEXT, **_FOUR_EXPERTS}),
    "smollm3": ("SmolLM3ForCausalLM", TEXT),
    "granite": ("GraniteForCausalLM", TEXT),
    "granitemoe": ("GraniteMoeForCausalLM", {**TEXT, **_LOCAL_EXPERTS}),
    "glm": ("GlmForCausalLM", _HEAD),
    "glm4": ("Glm4ForCausalLM", _HEAD),
    "glm4_moe": ("Glm4MoeForCausalLM", {**_HEAD, **_ROUTED, "n_group": 1}),
    "ernie4_5": ("Ernie4_5ForCausalLM", TEXT),
    "exaone4": ("Exaone4ForCausalLM", {**TEXT, **_WINDOW, "layer_types": _BOTH}),
    "hunyuan_v1_dense": ("HunYuanDenseV1ForCausalLM", _HEAD),
    "helium": ("HeliumForCausalLM", _HEAD),
    "arcee": ("ArceeForCausalLM", TEXT),
    "apertus": ("ApertusForCausalLM", TEXT),
    "nemotron": ("NemotronForCausalLM", TEXT),
    "seed_oss": ("SeedOssForCausalLM", _HEAD),
    "bitnet": ("BitNetForCausalLM", TEXT),
    "diffllama": ("DiffLlamaForCausalLM", TEXT),
    "doge": ("DogeForCausalLM", TEXT),
    "dbrx": (
        "DbrxForCausalLM",
        {
            "d_model": WIDTH,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 256,
            "vocab_size": VOCABULARY,
            "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
            "ffn_config": {
                "ffn_hidden_size": 16,
                "moe_num_experts": 4,
                "moe_top_k": 2,
                "hidden_size": WIDTH,
            },
        },
    ),
    "gpt_oss": ("GptOssForCausalLM", {**_HEAD, **_WINDOW, **_LOCAL_EXPERTS, "layer_types": _BOTH}),
    "llama4_text": (
        "Llama4ForCausalLM",
        {
            **_HEAD,
            "intermediate_size_mlp": 48,
            "num_local_experts": 4,
            "attention_chunk_size": 8,
            "layer_types": ["chunked_attention", "full_attention"],
        },
    ),
    "jetmoe": (
        "JetMoeForCausalLM",
        {
            **TEXT,
            "num_key_value_heads": 4,
            "kv_channels": 8,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
        },
    ),
    "bert, as a decoder": ("BertLMHeadModel", {**_ALL_HEADS, "is_decoder": True}),
    "xlnet": (
        "XLNetLMHeadModel",
        {"d_model": WIDTH, "n_layer": 2, "n_head": 4, "d_inner": 48, "vocab_size": VOCABULARY},
    ),
    "modernbert-decoder": (
        "ModernBertDecoderForCausalLM",
        {
            **_ALL_HEADS,
            "local_attention": 2 * WINDOW,
            "layer_types": _BOTH,
            "cls_token_id": 1,
            "sep_token_id": 2,
        },
    ),
}

CASES: dict[str, Build] = {name: case(*settings) for name, settings in _SETTINGS.items()}
