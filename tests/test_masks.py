"""What masks of attention hide, against masks that are built on the CPU."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import graphflops as gf
from graphflops.capture.fake import constant_propagation
from graphflops.models.optional_dependencies import repair_torchvision

repair_torchvision()
transformers = pytest.importorskip("transformers")

LAYERS, HEADS, WIDTH, TOKENS = 4, 4, 8, 21
BASE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "vocab_size": 100,
    "head_dim": WIDTH,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
WINDOW = {"sliding_window": 8}
CHUNKS = {
    "attention_chunk_size": 8,
    "num_local_experts": 2,
    "intermediate_size_mlp": 64,
    "layer_types": ["chunked_attention"] * 3 + ["full_attention"],
}


def causal(row: int, column: int) -> bool:
    return column <= row


def window(row: int, column: int) -> bool:
    return row - 8 < column <= row


def chunk(row: int, column: int) -> bool:
    return column <= row and column // 8 == row // 8


def near(row: int, column: int) -> bool:
    return abs(row - column) <= 4


def everywhere(row: int, column: int) -> bool:
    return row + column >= 0


MODELS: dict[str, tuple[dict[str, Any], list[Any]]] = {
    "Llama": ({}, [causal] * 4),
    "Mistral": (WINDOW, [window] * 4),
    "Gemma2": (WINDOW, [window, causal] * 2),
    "Qwen2": (WINDOW | {"use_sliding_window": True, "max_window_layers": 2}, [causal, window] * 2),
    "Llama4Text": (CHUNKS, [chunk] * 3 + [causal]),
    "GptOss": (
        WINDOW | {"num_local_experts": 4, "num_experts_per_tok": 2, "eos_token_id": 1},
        [window, causal] * 2,
    ),
    "ModernBert": (
        {"local_attention": 8, "global_attn_every_n_layers": 2, "cls_token_id": 1}
        | {"sep_token_id": 1},
        [everywhere, near] * 2,
    ),
}
EAGER_ONLY = {"Gemma2", "GptOss"}


def build(name: str, attention: str) -> nn.Module:
    settings, _ = MODELS[name]
    config = getattr(transformers, f"{name}Config")(**BASE | settings)
    config._attn_implementation = attention
    with torch.device("meta"):
        model: nn.Module = getattr(transformers, f"{name}Model")(config)
    return model.eval()


def hidden_flops(rules: list[Any], batch: int = 2) -> int:
    places = [(row, column) for row in range(TOKENS) for column in range(TOKENS)]
    hidden = sum(not rule(*place) for rule in rules for place in places)
    # Two products with vectors of WIDTH, 2 FLOPs each.
    return batch * HEADS * hidden * 2 * 2 * WIDTH


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", MODELS)
def test_models_hide_what_their_positions_say(name: str, attention: str) -> None:
    if attention == "sdpa" and name in EAGER_ONLY:
        pytest.skip("transformers has it in eager form only")
    model, ids = build(name, attention), {"input_ids": torch.zeros(2, TOKENS, dtype=torch.int64)}
    expected = hidden_flops(MODELS[name][1])
    assert gf.count(model, kwargs=ids).total.flops_masked == expected
    # As with prompts whose masks are too large to be computed.
    with mock.patch.object(constant_propagation, "MAX_VALUE_NUMEL", 60):
        assert gf.count(model, kwargs=ids).total.flops_masked == expected
    axes = {"input_ids": {0: "B", 1: "S"}}
    symbolic = gf.count(model, kwargs=ids, dynamic_shapes=axes)
    assert symbolic.subs(B=2, S=TOKENS).total.flops_masked == expected


def test_a_window_of_eight_over_32_tokens() -> None:
    config = transformers.MistralConfig(**BASE | WINDOW | {"num_hidden_layers": 2})
    with torch.device("meta"):
        model = transformers.MistralForCausalLM(config).eval()
        ids = torch.zeros(2, 32, dtype=torch.int64)
    hidden = 32 * 31 // 2 + 24 * 25 // 2  # above the diagonal, and before the window
    masked = gf.count(model, (ids,)).total.flops_masked
    assert masked == 2 * 2 * 4 * hidden * 2 * 2 * 8 == 407_552


def test_padding_hides_too() -> None:
    ids, padding = torch.zeros(2, 9, dtype=torch.int64), torch.ones(2, 9, dtype=torch.int64)
    padding[0, :3] = 0
    model = build("Llama", "sdpa")
    inputs = {"input_ids": ids, "attention_mask": padding}
    seen = sum(column <= row and column >= 3 for row in range(9) for column in range(9))
    hidden = (81 - seen) + 36
    expected = LAYERS * HEADS * hidden * 2 * 2 * WIDTH
    assert gf.count(model, kwargs=inputs).total.flops_masked == expected
    with mock.patch.object(constant_propagation, "MAX_VALUE_NUMEL", 40):
        assert gf.count(model, kwargs=inputs).total.flops_masked == expected


def test_what_is_not_known_is_said() -> None:
    model, ids = build("Llama", "sdpa"), torch.zeros(2, 9, dtype=torch.int64)
    unknown = torch.ones(2, 9, dtype=torch.int64, device="meta")
    report = gf.count(model, kwargs={"input_ids": ids, "attention_mask": unknown})
    assert report.total.flops_masked == LAYERS * HEADS * 2 * 36 * 2 * 2 * WIDTH
    assert any("flops_masked has what is known" in note for note in report.capture.notes)


class Masked(nn.Module):
    """Attention under a mask that is made of two rows of numbers."""

    def forward(self, query: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> Any:
        seen = (rows[:, None] == columns[None, :]) | (rows[:, None] > columns[None, :] + 5)
        return F.scaled_dot_product_attention(query, query, query, attn_mask=seen & (rows > 1))


def test_any_numbers() -> None:
    rows, columns = torch.randint(0, 12, (50,)), torch.randint(0, 12, (50,))
    query = torch.zeros(3, 50, 8, device="meta")
    seen = ((rows[:, None] == columns) | (rows[:, None] > columns + 5)) & (rows > 1)
    with mock.patch.object(constant_propagation, "MAX_VALUE_NUMEL", 60):
        report = gf.count(Masked(), (query, rows, columns))
    assert report.total.flops_masked == 3 * int((~seen).sum()) * 2 * 2 * 8


class Filled(nn.Module):
    """Attention under a mask of distances, compared with a tensor of one number."""

    def forward(self, query: torch.Tensor) -> Any:
        positions = torch.arange(query.shape[-2])
        distance = positions[:, None] - positions[None, :]
        seen = torch.min(distance, torch.full_like(distance, 3)) >= 0
        return F.scaled_dot_product_attention(query, query, query, attn_mask=seen)


def test_a_tensor_of_one_number_is_too_large_to_be_computed() -> None:
    with mock.patch.object(constant_propagation, "MAX_VALUE_NUMEL", 60):
        report = gf.count(Filled(), (torch.zeros(3, 50, 8),))
    assert report.total.flops_masked == 3 * (50 * 49 // 2) * 2 * 2 * 8


def test_backward_of_attention_written_out() -> None:
    model = build("Llama", "eager").train()
    step = gf.count_training(model, (torch.zeros(2, 9, dtype=torch.int64),))
    forward = LAYERS * HEADS * 2 * 36 * 2 * 2 * WIDTH
    assert step.forward.total.flops_masked == forward
    assert step.backward.total.flops_masked == 2 * forward


@pytest.mark.slow  # a window that a generation crosses: a minute
def test_generation_in_closed_form() -> None:
    config = transformers.MistralConfig(**BASE | WINDOW)
    with torch.device("meta"):
        model = transformers.MistralForCausalLM(config).eval()
        prompt = {"input_ids": torch.zeros(2, 6, dtype=torch.int64)}
    each = 2 * LAYERS * HEADS * 2 * 2 * WIDTH
    dynamic = gf.count_generation(model, prompt, max_new_tokens=9)
    assert dynamic.total.flops_masked == each * 15
    # Of a static cache of 8 places a step after 6 tokens does not see the last.
    static = gf.count_generation(model, prompt, max_new_tokens=9, cache="static")
    assert static.decode.subs(K=6).total.flops_masked == each * 1


class Packed(nn.Module):
    def forward(self, x: torch.Tensor, starts: torch.Tensor) -> Any:
        from torch.nn.attention.varlen import varlen_attn

        return varlen_attn(x, x, x, starts, starts, 5, 5)


def test_packed_sequences_count_by_their_lengths() -> None:
    x, starts = torch.zeros(8, 2, 16, dtype=torch.float16), torch.tensor([0, 3, 8])
    report = gf.count(Packed(), (x, starts.int()))
    assert report.total.macs == (3 * 3 + 5 * 5) * 2 * (16 + 16)
    unknown = gf.count(Packed(), (x, starts.int().to("meta")))
    assert unknown.total.macs == 2 * 5 * 5 * 2 * (16 + 16)
    assert any("as long as the longest" in note for note in unknown.capture.notes)
