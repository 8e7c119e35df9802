"""``graphflops graph``: the questions to a graph, as a user asks them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers
from commands import Run
from torch import nn

import graphflops as gf


class Branches(nn.Module):
    """Two branches of unlike cost, one thing computed twice, one never used, one constant."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(8, 32), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.sum()
        branches: torch.Tensor = self.wide(x).exp() + self.narrow(x) * self.narrow(x)
        return branches + self.wide.bias.exp()


@pytest.fixture
def saved(tmp_path: Path) -> str:
    path = tmp_path / "report.json"
    gf.save(gf.count(Branches(), (torch.ones(4, 8),)), path)
    return str(path)


def test_path(run: Run, saved: str) -> None:
    # By hand: 2 x 4 x 8 x 32 and 4 x 32 of the wide linear, its exp and both additions 4 x 32; 2 x
    # 4 x 8 + 4 of each narrow linear, their product 4, the sum 32, exp of the bias 32.
    _, out, _ = run("graph", "path", saved)
    lines = out.splitlines()
    assert lines[0].split() == [
        "Critical",
        "path",
        "2.56",
        "KFLOPs",
        "of",
        "2.76",
        "KFLOPs",
        "in",
        "4",
        "of",
        "9",
        "calls",
    ]
    assert [line.split()[1] for line in lines[6:]] == ["wide", "(model)", "(model)", "(model)"]


def test_stages(run: Run, saved: str) -> None:
    _, out, _ = run("graph", "stages", saved, "-n", "2")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["0", "1"]
    code, _, err = run("graph", "stages", saved, "-n", "20")
    assert code == 2
    assert "9 items cannot be cut into 20 stages" in err


def test_waste(run: Run, saved: str) -> None:
    _, out, _ = run("graph", "waste", saved)
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[:3]] == [
        ["computed", "twice"],
        ["never", "used"],
        ["constant", "1"],
    ]
    assert lines[6].split() == ["computed", "twice", "narrow:", "linear_2", "aten::linear", "68",
                                "narrow:", "linear_1"]  # fmt: skip


def test_a_generation_has_many_graphs(run: Run, tmp_path: Path) -> None:
    config = transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16)
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(config).eval()
    inputs = {"input_ids": torch.zeros(1, 4, dtype=torch.int64)}
    report = gf.count_generation(model, inputs, max_new_tokens=3)
    gf.save(report, tmp_path / "generation.json")
    code, _, err = run("graph", "path", str(tmp_path / "generation.json"))
    assert code == 2
    assert "the report of a generation, which has a graph for each step" in err
