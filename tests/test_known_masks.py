"""Masks that hide nothing: a real run drops them, and so does a count that knows their values."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import graphflops as gf
from graphflops.capture.fake.mask_elements.expressions import index
from graphflops.capture.fake.mask_elements.ranges import decide_conditions
from graphflops.models.optional_dependencies import repair_torchvision

repair_torchvision()
transformers = pytest.importorskip("transformers")

TOKENS, NEW = 12, 3
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "pad_token_id": 0,
}
IDS = torch.ones(1, TOKENS, dtype=torch.int64)
PADDED = torch.ones(1, TOKENS, dtype=torch.int64)
PADDED[0, :3] = 0


def build(name: str) -> nn.Module:
    with torch.device("meta"):
        config = getattr(transformers, f"{name}Config")(**SIZES)
        model: nn.Module = getattr(transformers, f"{name}ForCausalLM")._from_config(config)
    return model.eval()


def attention(report: Any) -> list[Any]:
    name = "aten::scaled_dot_product_attention"
    return [record.call for record in report.records if record.call.op == name]


def test_a_mask_of_ones_that_the_model_makes_for_a_static_cache() -> None:
    model = build("BioGpt")
    report = gf.count_generation(model, {"input_ids": IDS}, max_new_tokens=NEW, cache="static")
    # Each query of the prompt meets its keys, not the 14 places of the cache.
    assert [call.inputs["key"].shape[-2] for call in attention(report.prefill)] == [TOKENS] * 2
    assert [call.inputs["key"].shape[-2] for call in attention(report.decode.subs(K=TOKENS))] == [
        TOKENS + NEW - 1
    ] * 2


@pytest.mark.parametrize(("mask", "is_kept"), [(torch.ones_like(IDS), False), (PADDED, True)])
def test_a_mask_that_is_given(mask: torch.Tensor, is_kept: bool) -> None:
    report = gf.count(build("Llama"), kwargs={"input_ids": IDS, "attention_mask": mask})
    calls = attention(report)
    assert ["attn_mask" in call.inputs for call in calls] == [is_kept] * 2
    assert [call.attrs.get("is_causal", False) for call in calls] == [not is_kept] * 2


def test_a_mask_is_kept_where_its_values_are_not_known() -> None:
    mask = torch.empty(1, TOKENS, dtype=torch.int64, device="meta")
    report = gf.count(build("Llama"), kwargs={"input_ids": IDS, "attention_mask": mask})
    assert ["attn_mask" in call.inputs for call in attention(report)] == [True] * 2


def test_an_export_keeps_a_mask_for_other_values_of_it() -> None:
    inputs = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}
    report = gf.count(build("Llama"), kwargs=inputs, capture="export")
    assert ["attn_mask" in call.inputs for call in attention(report)] == [True] * 2


N = sympy.Symbol("N", positive=True, integer=True)


@pytest.mark.parametrize(
    ("condition", "shape", "expected"),
    [
        (index(0) < N, (N,), sympy.true),
        (index(0) < N, (N + 1,), None),
        (index(0) + N < N, (5,), sympy.false),
        (index(1) - index(0) <= N - 1, (N, 3), sympy.true),
        (sympy.Eq(index(0), N), (N,), None),
        (sympy.Eq(N * (N + 1), N**2 + N), (), sympy.true),
        (sympy.Ne(N + 1, N), (), sympy.true),
        (index(0) * N < N * N, (N,), None),
        (index(0) - 4 * sympy.floor(index(0) / 4) < 4, (4,), None),
    ],
)
def test_conditions_with_symbolic_sizes(condition: Any, shape: Any, expected: Any) -> None:
    assert decide_conditions(condition, shape) == (condition if expected is None else expected)


@given(
    slopes=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    bound=st.integers(-9, 9),
    shape=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    name=st.sampled_from(["Lt", "Le", "Gt", "Ge", "Eq", "Ne"]),
)
def test_a_decided_condition_has_that_value_everywhere(
    slopes: tuple[int, int], bound: int, shape: tuple[int, int], name: str
) -> None:
    relation = getattr(sympy, name)
    condition = relation(slopes[0] * index(1) + slopes[1] * index(0), bound)
    decided = decide_conditions(condition, shape)
    values = {
        bool(relation(slopes[0] * row + slopes[1] * column, bound))
        for row in range(shape[0])
        for column in range(shape[1])
    }
    if decided in {sympy.true, sympy.false}:
        assert values == {bool(decided)}
    else:
        assert len(values) == 2 or name in {"Eq", "Ne"}
