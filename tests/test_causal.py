"""The convention ``causal``: ``exact`` without the products of scores that a mask hides."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
import transformers
from calls import Call, meta
from torch import nn

import graphflops as gf
from graphflops import conventions

LAYERS, HEADS, WIDTH, TOKENS = 3, 4, 8, 9
HIDDEN = TOKENS * (TOKENS - 1) // 2
"""Scores above the diagonal."""


def llama(attention: str = "sdpa") -> nn.Module:
    config = transformers.LlamaConfig(
        hidden_size=HEADS * WIDTH,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        vocab_size=64,
        attn_implementation=attention,
    )
    with torch.device("meta"):
        model: nn.Module = transformers.LlamaForCausalLM(config).eval()
    return model


def ids(tokens: int = TOKENS) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.zeros(2, tokens, dtype=torch.int64)}


MACS = 2 * LAYERS * HEADS * HIDDEN * 2 * WIDTH
"""Of two sequences: each hidden score is a product of rows of Q and K, and one with a row of V."""


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_forward_pass(attention: str) -> None:
    exact = gf.count(llama(attention), kwargs=ids())
    causal = gf.count(llama(attention), kwargs=ids(), convention="causal")
    assert causal.convention == "causal"
    assert causal.macs == exact.macs - MACS
    assert causal.flops == exact.flops - 2 * MACS
    assert causal.total.flops_masked == 0
    assert causal.bytes_read == exact.bytes_read
    node = causal.by_module()["model.layers.1.self_attn"]
    assert node.macs == exact.by_module()["model.layers.1.self_attn"].macs - MACS // LAYERS


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_training_step(attention: str) -> None:
    model = llama(attention).train()
    exact = gf.count_training(model, kwargs=ids())
    causal = gf.count_training(model, kwargs=ids(), convention="causal")
    assert causal.model_flops == exact.model_flops - 3 * 2 * MACS
    assert (
        causal.mfu(1.0, 1e9)
        == exact.mfu(1.0, 1e9, causal=True)
        == causal.mfu(1.0, 1e9, causal=True)
    )
    assert causal.hfu(1.0, 1e9) == exact.hfu(1.0, 1e9, causal=True)
    assert "causal convention" in causal.table()
    found = exact.compare_conventions("causal")
    assert sum(row.flops for row in found.operators) == -3 * 2 * MACS


def test_symbolic_sizes() -> None:
    axes = {"input_ids": {0: "B", 1: "S"}}
    report = gf.count(llama(), kwargs=ids(), dynamic_shapes=axes, convention="causal")
    concrete = gf.count(llama(), kwargs=ids(), convention="causal")
    assert report.subs(B=2, S=TOKENS).total == concrete.total


@pytest.mark.parametrize("cache", ["dynamic", "static"])
def test_a_generation(cache: Literal["dynamic", "static"]) -> None:
    counted = {
        name: gf.count_generation(
            llama(),
            ids(6),
            max_new_tokens=4,
            cache=cache,
            convention=name,
        )
        for name in ("exact", "causal")
    }
    exact, causal = counted["exact"].total, counted["causal"].total
    hidden = 6 * 5 // 2 if cache == "dynamic" else None  # a step hides nothing of a dynamic cache
    if hidden is not None:
        assert exact.flops_masked == 2 * LAYERS * HEADS * hidden * 2 * 2 * WIDTH
    assert causal.flops == exact.flops - exact.flops_masked
    assert causal.macs == exact.macs - exact.flops_masked // 2


def attend(query: torch.Tensor) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, query, query, is_causal=True)


def test_explain_and_a_comparison_say_what_is_left_out() -> None:
    report = gf.count(Call(attend), (meta(2, 5, 8),), convention="causal")
    assert report.macs == 2 * 15 * (8 + 8)
    left_out = "The products of masked scores, flops_masked, are left out."
    assert left_out in report.explain(report.records[0])
    (row,) = report.compare_conventions("exact").operators
    assert row.flops == 2 * 2 * 10 * (8 + 8)
    other = gf.count(Call(torch.tanh), (meta(2, 5, 8),), convention="causal")
    assert left_out not in other.explain(other.records[0])


def test_it_is_saved_and_loaded(tmp_path: object) -> None:
    report = gf.count(llama(), kwargs=ids(), convention="causal")
    path = f"{tmp_path}/report.json"
    gf.save(report, path)
    loaded = gf.load(path)
    assert isinstance(loaded, gf.Report)
    assert (loaded.convention, loaded.total) == ("causal", report.total)
    assert loaded.compare_conventions("exact").theirs.flops == gf.count(llama(), kwargs=ids()).flops


def test_handlers_of_ones_own_are_reduced_too() -> None:
    mine = gf.Registry("mine")

    @mine.register("aten::scaled_dot_product_attention")
    def attention() -> gf.OpCost:
        """Ten MACs, of which four are masked."""
        return gf.OpCost(flops=20, macs=10, flops_masked=8)

    report = gf.count(Call(attend), (meta(2, 5, 8),), convention="causal", registry=mine)
    assert (report.flops, report.macs) == (12, 6)


def test_entries_that_come_later_are_seen() -> None:
    registry = gf.Registry("mine")
    reduced = registry.without_masked("reduced")
    call = gf.OpCall(op="mylib::late")
    assert reduced.lookup(call) is None
    registry.register("mylib::late")(lambda: gf.OpCost())
    assert reduced.lookup(call) is not None
    assert conventions.get("causal").lookup(gf.OpCall(op="aten::mm")) is conventions.exact().lookup(
        gf.OpCall(op="aten::mm")
    )


def test_scores_with_attention_sinks_hide_as_much_in_backward() -> None:
    config = transformers.GptOssConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        num_key_value_heads=2,
        head_dim=WIDTH,
        num_local_experts=4,
        vocab_size=64,
        sliding_window=4,
        use_cache=False,
    )
    with torch.device("meta"):
        step = gf.count_training(transformers.GptOssForCausalLM(config).train(), kwargs=ids())
    # One layer sees the last four tokens, the other all; each score is in two products of 8.
    windowed = HIDDEN + sum(max(0, row - 3) for row in range(TOKENS))
    forward = 2 * HEADS * (HIDDEN + windowed) * 2 * 2 * WIDTH
    assert step.forward.total.flops_masked == forward
    assert step.backward.total.flops_masked == 2 * forward
