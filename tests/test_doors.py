"""Models in the graphs of compilers: MACs, modules and phases are those of the models."""

from __future__ import annotations

import importlib.util
import json
from typing import Any

import pytest

from benchmarks.doors import measure
from benchmarks.doors_graphs import DOORS
from benchmarks.doors_models import MODELS
from benchmarks.doors_page import EXPLANATIONS, unexplained
from benchmarks.doors_results import RESULTS, Cell, Reference, cells

QUICK = ("MLP", "DLRM", "GQA")
# transformers would import torchao in all tests, were it installed for these.
AVAILABLE = [
    door for door in DOORS if door != "PT2E" or importlib.util.find_spec("torchao") is not None
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "model",
    [pytest.param(model, marks=[] if model in QUICK else pytest.mark.slow) for model in MODELS],
)
def test_a_graph_counts_as_the_model_that_it_is_of(model: str) -> None:
    reference, row = measure(model, AVAILABLE)
    assert reference.macs == reference.flop_counter_macs
    assert [cell.door for cell in row] == AVAILABLE
    assert [(cell, problems) for cell in row if (problems := list(unexplained(cell)))] == []


def test_every_difference_on_the_page_has_a_reason_and_every_reason_a_difference() -> None:
    results = json.loads(RESULTS.read_text("utf-8"))
    rows = cells(results)
    assert {(cell.model, cell.door) for cell in rows} == {(m, d) for m in MODELS for d in DOORS}
    assert [cell for cell in rows if list(unexplained(cell))] == []
    explained = [(cell, problem) for cell in rows for problem in cell.problems()]
    for explanation in EXPLANATIONS:
        assert any(explanation.explains(*difference) for difference in explained), explanation
    references = [Reference(**reference) for reference in results["references"]]
    assert [r for r in references if r.macs != r.flop_counter_macs] == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"macs": 9}, "contractions"),
        ({"misplaced": 1}, "modules"),
        ({"phase": ("backward",)}, "phase"),
        ({"unsupported": ("aten::sin",)}, "prices"),
        ({"failure": "RuntimeError: no"}, "failure"),
    ],
)
def test_a_difference_without_a_reason_is_found(changes: dict[str, Any], problem: str) -> None:
    right: dict[str, Any] = {"macs": 10, "expected": 10, "phase": ("forward",)}
    assert list(unexplained(Cell(model="MLP", door="Dynamo", **right))) == []
    cell = Cell(model="MLP", door="Dynamo", **{**right, **changes})
    assert list(unexplained(cell)) == [problem]
