"""What a report answers and how it is written."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import jsonschema
import pytest
import torch
from architectures import ARCHITECTURES
from calls import Call
from torch import nn

import graphflops as gf
from graphflops.render import data
from graphflops.render.tables import call_table
from graphflops.render.units import parameters, percent, quantity


class Layer(nn.Module):
    """A linear layer and an activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(8, width, bias=False)
        self.back = nn.Linear(width, 8, bias=False)

    def forward(self, x: torch.Tensor) -> Any:
        return self.back(torch.relu(self.linear(x)))


class Net(nn.Module):
    """Three equal layers, one wider one, one never called."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(Layer(16), Layer(16), Layer(16), Layer(32))
        self.head = nn.Linear(8, 10)
        self.spare = nn.Linear(3, 3)
        self.head.weight.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.layers(x))


@pytest.fixture(scope="module")
def report() -> gf.Report:
    return gf.count(Net().eval(), (torch.empty(5, 8),))


@torch.library.custom_op("test_report::unpriced", mutates_args=())
def unpriced(x: torch.Tensor) -> torch.Tensor:
    return x.clone()


unpriced.register_fake(torch.empty_like)


@pytest.fixture(scope="module")
def incomplete() -> gf.Report:
    return gf.count(Call(lambda x: unpriced(x) @ x), (torch.empty(4, 4),), on_unknown="ignore")


TREE = """\
Net(
  1.38 K = 100% Params, 6.8 KMACs = 100% MACs, 14.05 KFLOPs = 100% FLOPs
  (layers): Sequential(
    1.28 K = 92.6194% Params, 6.4 KMACs = 94.1176% MACs, 13.2 KFLOPs = 93.9502% FLOPs
    (0-2): 3 x Layer(
      256 = 18.5239% Params, 1.28 KMACs = 18.8235% MACs, 2.64 KFLOPs = 18.79% FLOPs
      (linear): Linear(128 = 9.2619% Params, 640 MACs = 9.4118% MACs, 1.28 KFLOPs = 9.1103% FLOPs, in_features=8, out_features=16, bias=False)
      (back): Linear(128 = 9.2619% Params, 640 MACs = 9.4118% MACs, 1.28 KFLOPs = 9.1103% FLOPs, in_features=16, out_features=8, bias=False)
    )
    (3): Layer(
      512 = 37.0478% Params, 2.56 KMACs = 37.6471% MACs, 5.28 KFLOPs = 37.5801% FLOPs
      (linear): Linear(256 = 18.5239% Params, 1.28 KMACs = 18.8235% MACs, 2.56 KFLOPs = 18.2206% FLOPs, in_features=8, out_features=32, bias=False)
      (back): Linear(256 = 18.5239% Params, 1.28 KMACs = 18.8235% MACs, 2.56 KFLOPs = 18.2206% FLOPs, in_features=32, out_features=8, bias=False)
    )
  )
  (head): Linear(90 = 6.5123% Params, 400 MACs = 5.8824% MACs, 850 FLOPs = 6.0498% FLOPs, in_features=8, out_features=10, bias=True)
  (spare): Linear(12 Params, not called, in_features=3, out_features=3, bias=True)
)"""

NARROW, WIDE, HEAD = 2 * 5 * 8 * 16, 2 * 5 * 8 * 32, 5 * 8 * 10


def test_totals(report: gf.Report) -> None:
    assert report.macs == 3 * NARROW + WIDE + HEAD
    # Twice that, a comparison for each relu, an addition for each bias of the head.
    assert report.flops == 2 * report.macs + 5 * (3 * 16 + 32) + 5 * 10
    assert report.params == 3 * 2 * 8 * 16 + 2 * 8 * 32 + 8 * 10 + 10 + 3 * 3 + 3
    assert report.params_trainable == report.params - 8 * 10
    assert report.complete
    assert report.transcendentals == 0


def test_queries(report: gf.Report) -> None:
    assert report.by_module()["layers.1"].macs == NARROW
    assert report.by_module()["layers"].macs == 3 * NARROW + WIDE
    assert set(report.by_operator()) == {"aten::linear", "aten::relu"}
    assert report.by_operator()["aten::relu"].flops == 5 * (3 * 16 + 32)
    inside = report.by_module_and_operator()
    assert inside["layers.3"]["aten::linear"].macs == WIDE
    assert inside[""]["aten::linear"].macs == report.macs
    assert inside["spare"] == {}
    assert report.uncalled_modules() == {"spare"}
    assert report.unsupported_ops() == {}


def test_totals_of_a_tree_are_own_plus_children(report: gf.Report) -> None:
    for node in report.root.walk():
        assert node.total == sum((child.total for child in node.children), start=node.own)


def test_an_unknown_call_makes_totals_lower_bounds(incomplete: gf.Report) -> None:
    assert not incomplete.complete
    assert incomplete.unsupported_ops() == {"test_report::unpriced": 1}
    text = incomplete.to_text()
    assert "at least" in text
    assert "1 unsupported (test_report::unpriced x 1)" in text
    (unknown,) = [r for r in incomplete.to_dict(ops=True)["ops"] if r["status"] == "unknown"]
    assert unknown["flops"] is None


def test_the_tree_is_written_like_a_module(report: gf.Report) -> None:
    assert report.tree() == TREE


def test_depth_cuts_the_tree_and_the_tables(report: gf.Report) -> None:
    assert report.tree(0).count("\n") == 0
    assert "Layer(" not in report.tree(1)
    assert "layers.0" not in report.table(1)
    assert "layers.0" in report.table(2)
    assert len(report.to_csv(1).splitlines()) == 1 + 4


def test_layers_that_differ_are_not_folded() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False))
    tree = gf.count(net, (torch.empty(1, 4),)).tree()
    assert "(0-1): 2 x Linear" in tree
    assert "(2): Linear" in tree


@pytest.mark.parametrize("ops", [False, True])
def test_json_follows_the_shipped_schema(
    report: gf.Report, incomplete: gf.Report, ops: bool
) -> None:
    for one in (report, incomplete):
        found = json.loads(one.to_json(ops=ops))
        jsonschema.validate(found, data.schema())
        assert found["totals"]["flops"] == one.flops
        assert found["coverage"]["complete"] is one.complete
        assert ("ops" in found) is ops
        if ops:
            assert sum(op["flops"] or 0 for op in found["ops"]) == one.flops
    broken = {**report.to_dict(), "convention": 3}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, data.schema())


def test_symbolic_costs_become_strings_in_json() -> None:
    batch = torch.export.Dim("batch", min=2)
    symbolic = gf.count(nn.Linear(3, 4), (torch.empty(5, 3),), dynamic_shapes=({0: batch},))
    found = json.loads(symbolic.to_json(ops=True))
    jsonschema.validate(found, data.schema())
    assert isinstance(found["totals"]["flops"], str)
    (symbol,) = symbolic.flops.free_symbols  # type: ignore[union-attr]  # an expression here
    assert symbolic.total.subs(**{symbol.name: 7}).macs == 7 * 3 * 4
    assert str(symbol) in symbolic.table()
    assert str(symbol) in symbolic.tree()
    with pytest.raises(gf.UnboundSymbolError, match="cannot sort by flops"):
        symbolic.sorted_records("flops")


def test_csv_has_one_line_per_module_with_plain_numbers(report: gf.Report) -> None:
    rows = {row["path"]: row for row in csv.DictReader(io.StringIO(report.to_csv()))}
    assert len(rows) == len(list(report.root.walk()))
    assert int(rows[""]["flops"]) == report.flops
    assert rows["layers.3"]["class"] == "Layer"
    calls = list(csv.DictReader(io.StringIO(data.calls_csv(list(report.records)))))
    assert sum(int(row["flops"]) for row in calls) == report.flops
    assert calls[0]["inputs"] == "input:float32[5x8]; weight:float32[16x8]"


def test_tables_in_every_style(report: gf.Report) -> None:
    assert repr(report) == report.table(1)
    assert "1 MAC = 2 FLOPs" in report.table()
    assert "(estimate: 2 x forward)" in report.table()
    assert "| layers" in report.to_markdown()
    assert "<table>" in report._repr_html_()
    assert "layers" in report._repr_html_()
    assert "5x8, 16x8 -> 5x16" in call_table(report.records)


def test_the_most_expensive_calls_come_first(report: gf.Report) -> None:
    first, second = report.sorted_records("macs", top=2)
    assert {first.call.module_path, second.call.module_path} == {"layers.3.linear", "layers.3.back"}
    assert report.sorted_records() == list(report.records)


def test_tied_weights_count_once_and_lookups_cost_nothing() -> None:
    case = ARCHITECTURES["gpt2"]()
    report = gf.count(case.model, kwargs=case.inputs)
    nodes = {node.path: node for node in report.root.walk()}
    head, embedding = nodes["lm_head"], nodes["transformer.wte"]
    assert head.params_total == embedding.params_total == 50257 * 768
    assert report.params == nodes["transformer"].params_total
    assert head.total.macs == 2 * 12 * 768 * 50257
    assert embedding.total.flops == 0


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        # As published reports write them.
        (4_789_700_000_000, "MACs", "4.79 TMACs"),
        (290_960_000, "MACs", "290.96 MMACs"),
        (12_340_000, "FLOPs", "12.34 MFLOPs"),
        (49_100_000_000, "MACs", "49.1 GMACs"),
        (0, "FLOPs", "0 FLOPs"),
        (896, "", "896"),
        (2304, "", "2.3 K"),
        (3 * 10**15, "FLOPs", "3 PFLOPs"),
    ],
)
def test_quantities(value: int, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_parameters_come_in_billions() -> None:
    assert parameters(8_030_261_248) == "8.03 B"
    assert (percent(1, 4), percent(0, 0)) == ("25%", "0%")


def test_a_parameter_that_is_an_expanded_view_has_the_bytes_it_has() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(1, 4).expand(3, 4))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.scale

    report = gf.count(Scaled(), (torch.empty(3, 4, device="meta"),))
    assert (report.params, report.root.param_bytes) == (12, 4 * 4)
