"""Modules that were never called are told in few words, and not where their weights were used."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import graphflops as gf
from graphflops.render.tables import coverage


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.dropout = nn.Dropout(0.1)
        self.gates = nn.ModuleList([nn.ReLU(), nn.ReLU()])

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(x)


def lines(model: nn.Module, *shape: int) -> dict[str, str]:
    return dict(coverage(gf.count(model.eval(), torch.empty(shape))))


def test_equal_ones_are_folded() -> None:
    model = nn.Sequential(*(Layer() for _ in range(24)))
    assert lines(model, 2, 4)["Never called"] == (
        "24 x Dropout: 0-23.dropout, 24 x ModuleList: 0-23.gates"
    )


def test_a_gap_and_other_classes() -> None:
    layers = [Layer() for _ in range(4)]
    layers[1].dropout = nn.Identity()  # type: ignore[assignment]  # another class
    model = nn.Sequential(*layers)
    assert lines(model, 2, 4)["Never called"] == (
        "3 x Dropout: *.dropout, 4 x ModuleList: 0-3.gates, 1.dropout"
    )


def test_weights_that_a_function_takes_are_no_idle_ones() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)
    found = lines(model, 2, 5, 16)
    assert "Never called" not in found
    assert found["Weights used"] == (
        "3 x NonDynamicallyQuantizableLinear: layers.0-2.self_attn.out_proj: not called, "
        "functions took their weights"
    )
    # The same of an exported graph, whose weights have other names.
    program = torch.export.export(model.eval(), (torch.empty(2, 5, 16),))
    exported = dict(coverage(gf.count(program)))
    assert exported["Weights used"].startswith("3 x module: layers.0-2.self_attn.out_proj: not c")


class Borrows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({"used": nn.Linear(4, 2), "idle": nn.Linear(4, 2)})

    def forward(self, x: torch.Tensor) -> Any:
        return x @ self.heads["used"].weight.T  # type: ignore[operator]  # a tensor


def test_what_stands_beside_them_is_still_named() -> None:
    report = gf.count(Borrows(), torch.empty(3, 4))
    assert report.macs == 3 * 4 * 2
    found = dict(coverage(report))
    assert found["Never called"] == "heads.idle"
    assert found["Weights used"].startswith("heads.used: not called")
    assert report.uncalled_modules() == {"heads", "heads.used", "heads.idle"}
