"""Whole models: contractions against FlopCounterMode on meta, to the last digit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import ARCHITECTURES, Case
from torch._subclasses import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf
from graphflops.models import Options, resolve

EXAMPLES = Path(__file__).parents[1] / "examples"


def flop_counter(case: Case) -> int:
    """FlopCounterMode's figure.

    On meta, because on a CPU it misses attention; under fake tensors, because transformers
    looks at values of masks, which meta tensors refuse.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with torch.no_grad(), mode, FlopCounterMode(display=False) as counter:
        case.model(**case.inputs)
    return int(counter.get_total_flops())


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_contractions_equal_flop_counter_mode(name: str) -> None:
    case = ARCHITECTURES[name]()
    expected = flop_counter(case)
    report = gf.count(case.model, kwargs=case.inputs)
    assert 2 * report.macs == expected
    assert report.complete, report.unsupported_ops()
    assert report.flops > 2 * report.macs
    own = sum((node.own for node in report.root.walk()), start=gf.OpCost())
    assert own == report.total == sum(report.by_operator().values(), start=gf.OpCost())
    assert report.params == sum(p.numel() for p in case.model.parameters())


def test_llama_3_8b() -> None:
    options = Options(seq_len=2048)
    workload = resolve(f"hf:{EXAMPLES}/configs/llama-3-8b", options)
    report = gf.count(workload.model, kwargs=workload.kwargs)
    # FlopCounterMode's figure on meta.
    assert 2 * report.macs == 32_938_104_193_024
    # By hand: per token and layer q, k, v, o and three MLP projections; two attention
    # products of 32 heads of 128 over 2,048 keys; the head.
    layer = 4096 * (4096 + 1024 + 1024 + 4096 + 3 * 14336) + 2 * 2048 * 32 * 128
    assert report.macs == 2048 * (32 * layer + 4096 * 128256)
    assert report.params == 8_030_261_248
    assert report.complete


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_cost_the_same_however_they_are_run(name: str) -> None:
    case = ARCHITECTURES[name]()
    batched = gf.count(case.model, kwargs=case.inputs)
    case.model.set_experts_implementation("grouped_mm")  # type: ignore[operator]
    grouped = gf.count(case.model, kwargs=case.inputs)
    assert "aten::_grouped_mm" in grouped.by_operator()
    assert grouped.macs == batched.macs
    assert grouped.complete


@pytest.mark.slow
def test_llava_onevision_7b() -> None:
    workload = resolve(f"{EXAMPLES}/llava_onevision.py:prefill", Options())
    report = gf.count(workload.model, kwargs=workload.kwargs)
    assert report.complete
    assert round(report.params / 10**9, 2) == 8.03
    # The published report, per Linear: 26 SigLIP layers over 16 crops of 729 patches.
    macs = {path: cost.macs for path, cost in report.by_module().items()}
    patches, tokens = 16 * 27 * 27, 7405
    prefix = "model.vision_tower.encoder.layers.0"
    assert macs[f"{prefix}.mlp.fc1"] == patches * 1152 * 4304
    assert macs["model.multi_modal_projector.linear_2"] == patches * 3584 * 3584
    assert macs["model.language_model.layers.27.mlp.up_proj"] == tokens * 3584 * 18944
    assert macs["lm_head"] == 3584 * 152128
