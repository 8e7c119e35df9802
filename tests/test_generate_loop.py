"""Generations as ``generate`` runs them, against a real run of it on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf
from graphflops.capture.generation import capture_decode

Case = tuple[Any, dict[str, Any]]
NEW = 4
TEXT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "pad_token_id": 0,
    "bos_token_id": 1,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "image_size": 8,
    "patch_size": 4,
}
T5 = {
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 48,
    "num_layers": 2,
    "num_heads": 4,
    "vocab_size": 100,
    "decoder_start_token_id": 0,
    "pad_token_id": 0,
}
MPT = {"d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 100, "max_seq_len": 64}


def built(kind: str, **settings: Any) -> Any:
    """A small model with random weights, whose generation no token ends."""
    model_class = getattr(transformers, kind)
    config = model_class.config_class(**settings)
    # Attention is written out: the counter sees no fused kernel on the CPU.
    model = model_class._from_config(config, attn_implementation="eager").eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


def prompt(length: int, *, image: int = 0) -> dict[str, torch.Tensor]:
    """Two sequences of tokens, of which some after the first stand for an image."""
    tokens = torch.randint(3, 90, (2, length))
    tokens[:, 1 : 1 + image] = 99
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def text(kind: str, **settings: Any) -> Callable[[], Case]:
    return lambda: (built(kind, **settings), prompt(7))


def padded() -> Case:
    model, inputs = built("LlamaForCausalLM", **TEXT), prompt(7)
    inputs["attention_mask"][0, :3] = 0
    return model, inputs


def qwen2_vl(*left_out: str) -> Callable[[], Case]:
    def make() -> Case:
        vision = {"depth": 2, "embed_dim": 16, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
        vision |= {"patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
        rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
        model = built(
            "Qwen2VLForConditionalGeneration",
            vision_config=vision,
            text_config={**TEXT, "rope_parameters": rope},
            image_token_id=99,
            vision_start_token_id=98,
            vision_end_token_id=97,
            video_token_id=96,
        )
        inputs = prompt(8, image=4)
        inputs["input_ids"][:, 0] = 98
        # 4 x 4 patches of 4 x 4 pixels in 2 frames, merged by four.
        inputs["pixel_values"] = torch.randn(2 * 16, 3 * 2 * 4 * 4)
        inputs["image_grid_thw"] = torch.tensor([[1, 4, 4]] * 2)
        inputs["mm_token_type_ids"] = inputs["input_ids"].eq(99).long()
        return model, {name: value for name, value in inputs.items() if name not in left_out}

    return make


def mllama() -> Case:
    vision: dict[str, Any] = {**VISION, "num_global_layers": 1, "attention_heads": 2}
    vision |= {"vision_output_dim": 32, "max_num_tiles": 1, "supported_aspect_ratios": [[1, 1]]}
    model = built(
        "MllamaForConditionalGeneration",
        vision_config=vision | {"intermediate_layers_indices": [0]},
        text_config={**TEXT, "num_hidden_layers": 3, "cross_attention_layers": [1]},
        image_token_index=99,
    )
    return model, prompt(8) | {
        "pixel_values": torch.randn(2, 1, 1, 3, 8, 8),
        "aspect_ratio_ids": torch.ones(2, 1, dtype=torch.int64),
        "aspect_ratio_mask": torch.ones(2, 1, 1, dtype=torch.int64),
        "cross_attention_mask": torch.ones(2, 8, 1, 1, dtype=torch.int64),
    }


def moonshine() -> Case:
    sides = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {"num_hidden_layers": 2, "num_attention_heads": 4}.items()
    }
    model = built(
        "MoonshineForConditionalGeneration",
        hidden_size=32,
        intermediate_size=48,
        vocab_size=100,
        pad_token_id=0,
        **sides,
    )
    return model, {"input_values": torch.randn(2, 2000)}


def recurrent_gemma() -> Case:
    own = {"lru_width": 32, "attention_window_size": 8, "head_dim": 8}
    return built("RecurrentGemmaForCausalLM", **TEXT | {"num_hidden_layers": 3}, **own), prompt(3)


def switch_transformers() -> Case:
    sparse = {"num_experts": 2, "num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1}
    kind = "SwitchTransformersForConditionalGeneration"
    return built(kind, **T5, num_decoder_layers=2, **sparse), prompt(7)


DBRX: dict[str, Any] = {"d_model": 32, "n_heads": 4, "n_layers": 2, "vocab_size": 100}
DBRX |= {
    "attn_config": {"kv_n_heads": 2, "rope_theta": 10000.0, "clip_qkv": 8.0},
    "ffn_config": {"ffn_hidden_size": 16, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 32},
}
JETMOE = TEXT | {"num_key_value_heads": 4, "kv_channels": 8}
JETMOE |= {"num_local_experts": 4, "num_experts_per_tok": 2}


def dbrx() -> Case:
    # The counter's hooks fail on weights that are handed over, and have no gradient here.
    return built("DbrxForCausalLM", **DBRX).requires_grad_(False), prompt(7)


MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "vocab_size": 100}
PIXELS = {"pixel_values": (2, 3, 8, 8)}


def images(**shapes: tuple[int, ...]) -> dict[str, torch.Tensor]:
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def blip() -> Case:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    text_config = sizes | {"num_attention_heads": 2, "vocab_size": 100, "encoder_hidden_size": 16}
    text_config |= {"bos_token_id": 1, "sep_token_id": 90, "pad_token_id": 0}
    model = built(
        "BlipForConditionalGeneration",
        text_config=text_config,
        vision_config=VISION | {"num_attention_heads": 2},
    )
    # Its generate() sets the number of a token that ends the text.
    return model, prompt(7) | images(**PIXELS)


OPT: dict[str, Any] = {
    "model_type": "opt",
    "hidden_size": 16,
    "ffn_dim": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
OPT |= {"vocab_size": 100, "word_embed_proj_dim": 16, "max_position_embeddings": 64}


def blip_2(text_config: dict[str, Any]) -> Case:
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 2}
    model = built(
        "Blip2ForConditionalGeneration",
        vision_config=VISION | {"num_attention_heads": 2},
        qformer_config=sizes | {"encoder_hidden_size": 16, "vocab_size": 100},
        text_config=text_config | {"pad_token_id": 0, "bos_token_id": 1},
        num_query_tokens=4,
        image_token_index=99,
    )
    model.language_model.generation_config.eos_token_id = None
    model.requires_grad_(False)  # the counter's hooks fail on the first weights
    return model, prompt(8, image=4) | images(**PIXELS)


def kosmos_2() -> Case:
    text_config = {"embed_dim": 16, "ffn_dim": 24, "layers": 2, "attention_heads": 2}
    text_config |= {"vocab_size": 100, "max_position_embeddings": 64, "pad_token_id": 0}
    model = built(
        "Kosmos2ForConditionalGeneration",
        text_config=text_config,
        vision_config=VISION | {"num_attention_heads": 2},
        latent_query_num=4,
    )
    model.text_model.generation_config.eos_token_id = None
    inputs = prompt(8, image=4)
    inputs["image_embeds_position_mask"] = inputs["input_ids"].eq(99).long()
    model.requires_grad_(False)
    return model, inputs | images(**PIXELS)


CASES: dict[str, Callable[[], Case]] = {
    "a part that generates, after an encoder of images": blip,
    "a part that generates from embeddings": lambda: blip_2(OPT),
    "a part that is an encoder-decoder": lambda: blip_2({**T5, "model_type": "t5"}),
    "a part that generates, and a forward with a cache": kosmos_2,
    "a state from a loop over the prompt": text("FalconMambaForCausalLM", **MAMBA),
    "padding on the left": padded,
    "positions on three axes": qwen2_vl(),
    "the same without a mask": qwen2_vl("attention_mask"),
    "a mask of what each token sees of an image": mllama,
    "an encoder that says what is padding": moonshine,
    "an encoder that knows no cache": switch_transformers,
    "state that is kept in modules": recurrent_gemma,
    # Which tokens an expert gets, the weights decide; of how many in all, the router.
    "experts that a loop visits": dbrx,
    "experts by the sizes of their groups": text("JetMoeForCausalLM", **JETMOE),
    "no cache, by its config": text("MptForCausalLM", **MPT),
    # It returns no cache, and fills the one that it is given.
    "a cache that is only given": text("BertLMHeadModel", **TEXT),
}


@pytest.mark.parametrize("name", CASES)
def test_as_a_real_run(name: str) -> None:
    model, inputs = CASES[name]()
    assert 2 * gf.count_generation(model, inputs, max_new_tokens=NEW).macs == generated(
        model, inputs
    )


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("Gemma2ForCausalLM", {**TEXT, "head_dim": 8, "sliding_window": 8}),
        ("T5ForConditionalGeneration", T5),
    ],
)
def test_a_static_cache_as_in_a_real_run(kind: str, settings: dict[str, Any]) -> None:
    model, inputs = built(kind, **settings), prompt(7)
    run = generated(model, inputs, cache_implementation="static", disable_compile=True)
    found = gf.count_generation(model, inputs, max_new_tokens=NEW, cache="static")
    assert 2 * found.macs == run


def generated(model: Any, inputs: dict[str, Any], **options: Any) -> int:
    """FLOPs of the contractions that a real run of ``generate`` computes."""
    length = {"min_new_tokens": NEW, "max_new_tokens": NEW, "do_sample": False}
    with FlopCounterMode(display=False) as run, torch.no_grad():
        model.generate(**inputs, **length, **options)
    return int(run.get_total_flops())


def test_a_model_without_a_cache_says_so_and_keeps_one_if_told() -> None:
    model, inputs = built("MptForCausalLM", **MPT), prompt(7)
    found = gf.count_generation(model, inputs, max_new_tokens=NEW)
    assert found.cache == "none, a step reads all tokens again"
    assert "Give use_cache=True" in found.all_notes[0]
    caching = {**inputs, "use_cache": True}
    cached = gf.count_generation(model, caching, max_new_tokens=NEW)
    assert cached.cache == "dynamic"
    assert not any("keeps no cache" in note for note in cached.all_notes)
    assert 2 * cached.macs == generated(model, caching)


def test_sizes_that_no_graph_of_the_prompt_holds_for_are_refused_at_once() -> None:
    model = built("MistralForCausalLM", **TEXT, sliding_window=8)
    # Steps on both sides of the window, and a prompt that is shorter.
    found = gf.count_generation(model, {"input_ids": prompt(3)["input_ids"]}, max_new_tokens=20)
    with pytest.raises(gf.ModelSpecError, match="holds where P < 7, so not for B = 2, P = 20"):
        found.subs(P=20)


def test_a_cache_grows_by_a_token_where_the_first_step_has_a_graph_of_its_own() -> None:
    """The scan of a hybrid needs the length of its prompt; two of four layers attend."""
    scan = {"mamba_d_state": 4, "mamba_dt_rank": 4, "use_mamba_kernels": False}
    layers = {"num_hidden_layers": 4, "attn_layer_period": 2, "attn_layer_offset": 1}
    model = built("JambaForCausalLM", **TEXT | layers, **scan, num_experts=1)
    found = gf.count_generation(model, prompt(7), max_new_tokens=6)
    assert len(found.decode_graphs) == 2
    keys_and_values, kv_heads, head_dim, float32 = 2, 2, 8, 4
    assert found.kv_cache_bytes_per_token == 2 * keys_and_values * kv_heads * head_dim * float32


def _states(model: Any, inputs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each step that is captured: whether it starts from the state of a call before."""
    starts: list[bool] = []

    def capture(prompt: Any, cached: int, symbols: Any, state: Any = None, **options: Any) -> Any:
        starts.append(state is not None)
        return capture_decode(prompt, cached, symbols, state, **options)

    monkeypatch.setattr("graphflops.counting.generation.capture_decode", capture)
    found = gf.count_generation(model, inputs, max_new_tokens=NEW)
    assert 2 * found.macs == generated(model, inputs)
    return starts


def test_a_step_starts_from_state_in_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = recurrent_gemma()
    assert all(_states(model, inputs, monkeypatch))


def test_a_step_starts_from_a_pass_where_a_model_keeps_tensors_out_of_sight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, inputs = recurrent_gemma()
    kept: list[torch.Tensor] = []
    model.model.layers[0].register_forward_hook(lambda _, __, output: kept.append(output))
    assert not any(_states(model, inputs, monkeypatch))


def test_a_part_that_continues_other_tokens_than_the_whole_says_is_refused() -> None:
    model, inputs = blip_2({**T5, "model_type": "t5"})
    model.config.is_encoder_decoder = False
    with pytest.raises(gf.ModelSpecError, match="differ in is_encoder_decoder"):
        gf.count_generation(model, inputs, max_new_tokens=NEW)
