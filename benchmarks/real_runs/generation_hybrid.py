"""Generations of models with a state: state-space, linear attention, convolutions; and hybrids."""

from __future__ import annotations

from typing import Any

from benchmarks.real_runs.generation import Build
from benchmarks.real_runs.tiny import TEXT, VOCABULARY, WIDTH, WINDOW, case

_HEAD = {**TEXT, "head_dim": 8}
_STATE = {"hidden_size": WIDTH, "num_hidden_layers": 2, "vocab_size": VOCABULARY, "state_size": 4}
_FOUR_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 4, "mamba_chunk_size": 4}
_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "layer_types": ["linear_attention", "full_attention"],
}

_SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "mamba": ("MambaForCausalLM", _STATE),
    "falcon_mamba": ("FalconMambaForCausalLM", _STATE),
    "mamba2": (
        "Mamba2ForCausalLM",
        {**_STATE, "num_heads": 8, "head_dim": 8, "n_groups": 2, "chunk_size": 4},
    ),
    "rwkv": (
        "RwkvForCausalLM",
        {
            "hidden_size": WIDTH,
            "num_hidden_layers": 2,
            "vocab_size": VOCABULARY,
            "attention_hidden_size": WIDTH,
            "context_length": 256,
        },
    ),
    "recurrent_gemma": (
        "RecurrentGemmaForCausalLM",
        {**_HEAD, "num_hidden_layers": 3, "lru_width": WIDTH, "attention_window_size": WINDOW},
    ),
    "jamba": (
        "JambaForCausalLM",
        {
            **TEXT,
            "num_hidden_layers": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 4,
            "use_mamba_kernels": False,
            "mamba_d_state": 4,
            "mamba_dt_rank": 4,
        },
    ),
    "bamba": (
        "BambaForCausalLM",
        {**TEXT, **_MAMBA, "attn_layer_indices": [1], "mamba_n_groups": 1},
    ),
    "zamba": (
        "ZambaForCausalLM",
        {
            **TEXT,
            "num_hidden_layers": 5,
            "layers_block_type": ["mamba", "hybrid", "mamba", "mamba", "hybrid"],
            "mamba_d_state": 4,
            "n_mamba_heads": 2,
            "mamba_dt_rank": 4,
            "use_mamba_kernels": False,
            "attention_head_dim": 16,
            "num_key_value_heads": 4,
        },
    ),
    "zamba2": (
        "Zamba2ForCausalLM",
        {
            **TEXT,
            "num_hidden_layers": 5,
            "hybrid_layer_ids": [1, 4],
            "mamba_d_state": 4,
            "layer_types": ["mamba", "hybrid", "mamba", "mamba", "hybrid"],
            "n_mamba_heads": 8,
            "mamba_headdim": 8,
            "mamba_ngroups": 1,
            "chunk_size": 4,
            "num_mem_blocks": 1,
            "use_mem_rope": True,
            "adapter_rank": 8,
        },
    ),
    "falcon_h1": (
        "FalconH1ForCausalLM",
        {
            **_HEAD,
            "mamba_d_ssm": WIDTH,
            "mamba_n_heads": 4,
            "mamba_d_head": 8,
            "mamba_d_state": 4,
            "mamba_chunk_size": 4,
        },
    ),
    "nemotron_h": (
        "NemotronHForCausalLM",
        {
            **_HEAD,
            "layers_block_type": ["mamba", "attention", "moe"],
            "mamba_num_heads": 8,
            "mamba_head_dim": 8,
            "n_groups": 2,
            "ssm_state_size": 4,
            "chunk_size": 4,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
            "moe_shared_expert_intermediate_size": 16,
        },
    ),
    "granitemoehybrid": (
        "GraniteMoeHybridForCausalLM",
        {
            **TEXT,
            **_MAMBA,
            "layer_types": ["mamba", "attention"],
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 16,
        },
    ),
    "qwen3_next": (
        "Qwen3NextForCausalLM",
        {
            **_HEAD,
            **_DELTA,
            **_FOUR_EXPERTS,
            "moe_intermediate_size": 16,
            "shared_expert_intermediate_size": 16,
        },
    ),
    "qwen3_5_text": ("Qwen3_5ForCausalLM", {**_HEAD, **_DELTA}),
    "olmo_hybrid": ("OlmoHybridForCausalLM", {**_HEAD, **_DELTA}),
    "kimi_linear": (
        "KimiLinearForCausalLM",
        {
            **_HEAD,
            "num_key_value_heads": 4,
            "layer_types": _DELTA["layer_types"],
            "linear_num_heads": 4,
            "linear_head_dim": 8,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 4,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 16,
        },
    ),
    "minimax": (
        "MiniMaxForCausalLM",
        {**_HEAD, "num_local_experts": 4, "block_size": 4, "layer_types": _DELTA["layer_types"]},
    ),
    "lfm2": ("Lfm2ForCausalLM", {**TEXT, "layer_types": ["conv", "full_attention"]}),
    "lfm2_moe": (
        "Lfm2MoeForCausalLM",
        {
            **TEXT,
            **_FOUR_EXPERTS,
            "layer_types": ["conv", "full_attention"],
            "moe_intermediate_size": 16,
            "num_dense_layers": 1,
        },
    ),
}

CASES: dict[str, Build] = {name: case(*settings) for name, settings in _SETTINGS.items()}
