"""Savings by FSDP and checkpoints: against steps with checkpoints, and by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphflops as gf
from graphflops.models import Options, resolve
from graphflops.models.prepare_training import TrainingOptions, prepare_training

SMALL = {"num_hidden_layers": 6, "hidden_size": 128, "num_attention_heads": 4}
SMALL_GPT2 = {"n_layer": 6, "n_embd": 128, "n_head": 4, "vocab_size": 1000}
WIDTH, LAYERS, RANKS = 100, 6, 4
WEIGHT = 4 * WIDTH * WIDTH


def memory(name: str, *, checkpoint: bool, **options: Any) -> gf.MemoryReport:
    overrides = SMALL_GPT2 if name == "hf:gpt2" else SMALL
    workload = resolve(name, Options(overrides=overrides, **options))
    workload = prepare_training(workload, TrainingOptions(checkpoint=checkpoint))
    step = gf.count_training(workload.model, workload.args, workload.kwargs, optimizer="adamw")
    return step.memory


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hf:gpt2", {"seq_len": 256, "batch_size": 4}),
        ("hf:bert", {"seq_len": 256, "batch_size": 8}),
        ("hf:vit", {"batch_size": 8}),
    ],
)
def test_checkpoints_against_a_step_that_has_them(name: str, options: dict[str, Any]) -> None:
    plain = memory(name, checkpoint=False, **options)
    saved = plain.savings()
    assert saved.layers == 6
    exact = memory(name, checkpoint=True, **options).peak
    assert plain.peak - saved.checkpointing == pytest.approx(exact, rel=1e-5)
    assert saved.checkpointing > 0.5 * plain.peak


def test_place_of_the_peak_in_repeated_layers() -> None:
    workload = prepare_training(
        resolve("hf:vit", Options(overrides=SMALL)), TrainingOptions(checkpoint=False)
    )
    found = [
        gf.count_training(
            workload.model, workload.args, workload.kwargs, optimizer="sgd", reuse_layers=reuse
        ).memory
        for reuse in (True, False)
    ]
    assert found[0].timeline == found[1].timeline
    assert [memory.peak_call and memory.peak_call.module_path for memory in found] == [
        "layers.5.mlp.fc2"
    ] * 2


def layers() -> nn.Sequential:
    return nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)))


def test_sharding_by_hand() -> None:
    x = torch.empty(1, WIDTH)
    step = gf.count_training(layers(), (x,), optimizer="adam").memory.with_implementation("foreach")
    # At the step of the optimizer: weights, gradients, two moments, and the root of one.
    assert step.peak == pytest.approx(5 * LAYERS * WEIGHT, rel=0.01)
    saved = step.savings(RANKS)
    # Then no layer is gathered; where one is, no root is there yet.
    gathered = 3 * WEIGHT * (RANKS - 1) / RANKS
    expected = max(5 * LAYERS * WEIGHT / RANKS, 4 * LAYERS * WEIGHT / RANKS + gathered)
    assert step.peak - saved.sharding == pytest.approx(expected, rel=0.01)
    assert saved.checkpointing == 0


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(WIDTH, WIDTH),
        nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH + 1)),
    ],
)
def test_nothing_is_repeated(model: nn.Module) -> None:
    saved = gf.count_training(model, (torch.empty(1, WIDTH),)).memory.savings()
    assert (saved.sharding, saved.checkpointing, saved.layers) == (0, 0, 0)


def test_bad_input() -> None:
    x = torch.empty(1, WIDTH)
    with pytest.raises(gf.GraphFlopsError, match="ask the report of a training step"):
        gf.count(layers(), (x,)).memory.savings()
    with pytest.raises(gf.GraphFlopsError, match="Give at least 1"):
        gf.count_training(layers(), (x,)).memory.savings(0)
