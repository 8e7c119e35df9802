"""Graphs of whole models: run against the model, counted again, edges against a run."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from architectures import ARCHITECTURES

import graphflops as gf
from benchmarks import fuzz_checks, graph_checks
from benchmarks.real_runs.generation_cases import CASES
from graphflops.capture.transformers_compat import register_caches
from graphflops.runtime.patches import QUIET

pytestmark = pytest.mark.filterwarnings("ignore")

QUICK = (
    *("causal/llama", "causal/gpt2", "causal/gemma2", "causal/mixtral", "causal/bloom"),
    *("hybrid/mamba2", "hybrid/recurrent_gemma", "hybrid/jamba", "encoder-decoder/t5"),
    *("encoder-decoder/bart", "vision/llava", "audio/whisper"),
)
DATA_DEPENDENT = {
    "causal/dbrx": "as many experts are taken as inputs choose",
    "causal/jetmoe": "likewise",
    "encoder-decoder/switch_transformers": "likewise",
    "vision/gemma3": "its masks are made under vmap",
    "vision/pix2struct": "the prompt is refused by the model",
}
"""Models whose graph is not that of every input."""


def problems(name: str) -> list[str]:
    with QUIET.holding():
        torch.manual_seed(0)
        case = CASES[name]()
        model = case.model.eval()
        register_caches(model)
        inputs: dict[str, Any] = dict(case.inputs(1, 9))
        if model.config.is_encoder_decoder:
            inputs.setdefault("decoder_input_ids", torch.ones(1, 5, dtype=torch.int64))
        report = gf.count(model, (), inputs, on_unknown="ignore")
        return list(graph_checks.problems(report, model, (), inputs))


@pytest.mark.parametrize("name", QUICK)
def test_the_graph_is_the_model(name: str) -> None:
    assert problems(name) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CASES.keys() - {*QUICK} - DATA_DEPENDENT.keys()))
def test_the_graph_is_the_model_in_all_real_cases(name: str) -> None:
    assert problems(name) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_graph_counts_as_the_model(name: str) -> None:
    case = ARCHITECTURES[name]()
    report = gf.count(case.model, kwargs=case.inputs)
    assert list(graph_checks.problems(report, case.model, (), case.inputs)) == []


@pytest.mark.slow
def test_five_hundred_generated_models() -> None:
    found = (fuzz_checks.examine(f"forward:{n}", frozenset({"graph"})) for n in range(500))
    assert [(one.name, one.failures) for one in found if one.failures] == []
