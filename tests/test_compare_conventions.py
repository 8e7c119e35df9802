"""Where two conventions part: rows by operator, by module, and the reasons."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from calls import Call, meta
from torch import nn

import graphflops as gf
from graphflops import conventions
from graphflops.analysis.compare_conventions import Difference
from graphflops.reports.comparison import ConventionComparison

SMALL = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(144), nn.Linear(144, 2)
)


@pytest.fixture(scope="module")
def reports() -> dict[str, gf.Report]:
    image = meta(2, 3, 8, 8)
    return {name: gf.count(SMALL, (image,), convention=name) for name in conventions.names()}


def _sum(rows: tuple[Difference, ...]) -> Any:
    return sum(row.flops for row in rows)


@pytest.mark.parametrize("other", conventions.names())
@pytest.mark.parametrize("name", conventions.names())
def test_differences_sum_to_the_difference_of_the_totals(
    name: str, other: str, reports: dict[str, gf.Report]
) -> None:
    found = reports[name].compare_conventions(other)
    total = reports[other].flops - reports[name].flops
    assert _sum(found.operators) == _sum(found.modules) == total
    assert (found.ours, found.theirs) == (reports[name].total, reports[other].total)
    # There is no attention, in which exact and causal differ.
    alike = name == other or {name, other} == {"exact", "causal"}
    assert bool(found.operators) != alike
    sizes = [abs(row.flops) for row in found.operators]
    assert sizes == sorted(sizes, reverse=True)
    assert all(f"{name}: " in row.reason and f"{other}: " in row.reason for row in found.operators)
    assert ("agree on every call" in str(found)) == alike


def test_a_reconciliation_names_operators_modules_and_reasons() -> None:
    model, kwargs = ARCHITECTURES["llama"]()
    report = gf.count(model, (), kwargs)
    found = report.compare_conventions("calflops")
    total = gf.count(model, (), kwargs, convention="calflops").flops - report.flops
    assert _sum(found.operators) == _sum(found.modules) == total
    attention = next(r for r in found.operators if "attention" in r.op)
    assert attention.theirs.flops == 0
    assert "not among the callables that calflops wraps" in attention.reason
    assert "softmax(Q K^T" in attention.reason
    written = found.table()
    assert "self_attn" in written
    # Layers that are alike share a row.
    assert "layers.*." in written
    assert "layers.0." not in written
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert sum(int(row["flops_difference"]) for row in rows) == total
    assert json.loads(json.dumps(found.to_dict()))["totals"]["flops_difference"] == total
    assert "| module" in found.table("github")


def test_one_operator_has_a_row_for_each_reason() -> None:
    model = Call(lambda x: F.softmax(x, -1) + x.softmax(-1))
    found = gf.count(model, (meta(3, 5),)).compare_conventions("calflops")
    softmax = [row for row in found.operators if row.op == "aten::softmax"]
    assert [row.theirs.flops for row in softmax] == [0, 15]
    assert "called as method_descriptor.softmax" in softmax[0].reason


@torch.library.custom_op("test_reconcile::unpriced", mutates_args=())
def unpriced(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


unpriced.register_fake(torch.empty_like)


def test_what_has_no_price_is_said() -> None:
    report = gf.count(Call(unpriced), (meta(4, 4),), on_unknown="ignore", convention="torch")
    assert not report.complete
    assert isinstance(report.compare_conventions("calflops"), ConventionComparison)
