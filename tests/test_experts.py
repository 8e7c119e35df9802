"""Experts in a loop: what they cost together does not depend on which of them tokens go to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from calls import meta
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf

TOKENS, CHOSEN, EXPERTS, WIDE = 12, 2, 4, 8


class Mixture(nn.Module):
    """Tokens go to the experts with the largest scores, which a loop visits by name."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDE, EXPERTS)
        self.experts = nn.ModuleDict({f"expert_{i}": nn.Linear(WIDE, WIDE) for i in range(EXPERTS)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.router(x).topk(CHOSEN).indices
        mask = nn.functional.one_hot(chosen, num_classes=EXPERTS).permute(2, 1, 0)
        y = torch.zeros_like(x)
        for expert in mask.sum((1, 2)).gt(0).nonzero():
            _, tokens = torch.where(mask[expert].squeeze(0))
            y.index_add_(0, tokens, self.experts[f"expert_{expert[0]}"](x[tokens]))
        return y


def test_a_loop_over_the_experts_that_tokens_hit() -> None:
    model = Mixture()
    report = gf.count(model, (meta(TOKENS, WIDE),))
    assert report.complete
    assert report.macs == TOKENS * EXPERTS * WIDE + TOKENS * CHOSEN * WIDE**2
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(TOKENS, WIDE))
    assert counter.get_total_flops() == 2 * report.macs
    assert report.capture.method == "eager tracing, experts chosen evenly"
    (note,) = report.capture.notes
    assert "go to all in turn" in note
    # 12 tokens x 2 choices over 4 experts.
    experts = [r.call for r in report.records if r.call.op == "aten::linear"][1:]
    assert [call.outputs[0].shape for call in experts] == [(6, WIDE)] * EXPERTS


@pytest.fixture
def small() -> dict[str, Any]:
    return {"vocab_size": 16, "hidden_size": 32, "intermediate_size": 8, "num_hidden_layers": 1} | {
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "pad_token_id": 0,
    }


def test_transformers_multiplies_all_experts_at_once(small: dict[str, Any]) -> None:
    config = transformers.OpenAIPrivacyFilterConfig(
        **small, num_local_experts=6, num_experts_per_tok=3
    )
    model = transformers.AutoModel.from_config(config).eval()
    ids = torch.zeros(1, TOKENS, dtype=torch.int64)
    report = gf.count(model, (), {"input_ids": ids})
    assert report.capture.method == "eager tracing, experts grouped"
    assert report.capture.notes == ()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(input_ids=ids)
    assert counter.get_total_flops() == 2 * report.macs
    assert model.config._experts_implementation == "eager"


def test_experts_with_a_capacity_get_no_more_than_fits() -> None:
    config = transformers.SwitchTransformersConfig(
        vocab_size=16,
        d_model=8,
        d_kv=4,
        d_ff=16,
        num_layers=2,
        num_heads=2,
        num_experts=4,
        num_sparse_encoder_layers=1,
        num_decoder_layers=1,
        num_sparse_decoder_layers=1,
        expert_capacity=2,
    )
    model = transformers.AutoModel.from_config(config).eval()
    ids = torch.zeros(1, TOKENS, dtype=torch.int64)
    report = gf.count(
        model, (), {"input_ids": ids, "attention_mask": ids + 1, "decoder_input_ids": ids}
    )
    # 12 tokens in turn would be 3 for each of 4 experts, and 2 are its capacity.
    rows = [
        call.outputs[0].shape[-2]
        for call in (r.call for r in report.records)
        if call.op == "aten::linear" and "expert_" in call.module_path
    ]
    # Of 2 products each, in a layer of the encoder and one of the decoder.
    assert rows == [2] * 4 * 2 * 2


class Grouped(nn.Module):
    """Tokens sorted by expert, and multiplied group by group, as many as chose each."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDE, EXPERTS, bias=False)
        self.experts = nn.ModuleList([nn.Linear(WIDE, WIDE) for _ in range(EXPERTS)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.router(x).topk(CHOSEN, dim=1).indices
        zeros = torch.zeros(x.shape[0], EXPERTS)
        sizes = zeros.scatter(1, chosen, 1).long().sum(0).tolist()
        order = chosen.flatten().sort().indices // CHOSEN
        groups = x[order].split(sizes)  # type: ignore[no-untyped-call]  # torch's gap
        return torch.cat([expert(g) for expert, g in zip(self.experts, groups, strict=True)])


def test_groups_as_large_as_the_experts_are_chosen() -> None:
    model = Grouped()
    report = gf.count(model, (meta(TOKENS, WIDE),))
    assert report.macs == TOKENS * EXPERTS * WIDE + TOKENS * CHOSEN * WIDE**2
    with FlopCounterMode(display=False) as counter:
        model(torch.randn(TOKENS, WIDE))
    assert counter.get_total_flops() == 2 * report.macs
    assert "experts chosen evenly" in report.capture.method


class Spare(Mixture):
    """One-hot rows with a class more, of which there is no expert."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        chosen = self.router(x).topk(CHOSEN, dim=-1).indices
        mask = nn.functional.one_hot(chosen, num_classes=EXPERTS + 1).permute(2, 1, 0)
        y = torch.zeros_like(x)
        for expert in mask.sum((1, 2)).gt(0).nonzero():
            _, tokens = torch.where(mask[expert].squeeze(0))
            y.index_add_(0, tokens, self.experts[f"expert_{expert[0]}"](x[tokens]))
        return y


def test_no_token_chooses_a_class_without_an_expert() -> None:
    report = gf.count(Spare(), (meta(TOKENS, WIDE),))
    assert report.macs == TOKENS * EXPERTS * WIDE + TOKENS * CHOSEN * WIDE**2
    assert report.capture.method == "eager tracing, experts chosen evenly"
