"""Three reports, one dialect: what one can be asked, all can."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
from test_generate_loop import TEXT, built
from torch import nn

import graphflops as gf
from graphflops.render import data
from graphflops.reports.base import CostReport

X = torch.empty(5, 8, device="meta")
QUESTIONS = sorted(name for name in vars(CostReport) if not name.startswith("_"))


@pytest.fixture(scope="module")
def reports() -> dict[str, Any]:
    layer = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)).to("meta")
    prompt = {"input_ids": torch.zeros(1, 6, dtype=torch.int64)}
    return {
        "forward": gf.count(layer, (X,)),
        "training": gf.count_training(layer, (X,), steps=2, gradient_accumulation_steps=3),
        "generation": gf.count_generation(
            built("LlamaForCausalLM", **TEXT), prompt, max_new_tokens=4
        ),
    }


@pytest.mark.parametrize("kind", ["forward", "training", "generation"])
def test_every_question_has_an_answer(
    kind: data.Kind, reports: dict[str, Any], tmp_path: Path
) -> None:
    report = reports[kind]
    assert isinstance(report, CostReport)
    first = report.records[0]
    arguments = {
        "explain": (first,),
        "find": (first.call.name,),
        "compare_conventions": ("torch",),
        "diff": (report,),
        "subs": (),
        "time": ("h100",),
    }
    report.to_html(tmp_path / "report.html")
    questions = set(QUESTIONS) - {"to_html"}
    for name in (*questions, "records", "subs", "notes"):
        answer = getattr(report, name)
        assert answer(*arguments.get(name, ())) is not None if callable(answer) else True


@pytest.mark.parametrize("kind", ["forward", "training", "generation"])
def test_json_follows_the_schema_of_its_kind(kind: data.Kind, reports: dict[str, Any]) -> None:
    others = {"forward", "training", "generation"} - {kind}
    for ops in (False, True):
        found = reports[kind].to_dict(ops=ops)
        jsonschema.validate(found, data.schema(kind))
        assert found["kind"] == kind
        for other in others:
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(found, data.schema(other))  # type: ignore[arg-type]  # a Kind


@pytest.mark.parametrize("kind", ["forward", "training", "generation"])
def test_parts_sum_to_the_total(kind: str, reports: dict[str, Any]) -> None:
    report = reports[kind]
    nothing = gf.OpCost()
    assert report.root.total == report.total == report.by_module()[""]
    assert sum(report.by_operator().values(), start=nothing) == report.total
    assert sum(report.by_dtype().values(), start=nothing) == report.total
    own = (node.own for node in report.root.walk())
    assert sum(own, start=nothing) == report.total
    for path, operators in report.by_module_and_operator().items():
        assert sum(operators.values(), start=nothing) == report.by_module()[path]


def test_a_training_step_counts_every_pass(reports: dict[str, Any]) -> None:
    step = reports["training"]
    once = step.forward.total + step.backward.total
    assert step.total == once * 6
    assert (
        step.by_module()["0"]
        == (step.forward.by_module()["0"] + step.backward.by_module()["0"]) * 6
    )
    assert step.by_module_and_phase()["0"].forward == step.forward.by_module()["0"]


def test_a_notebook_shows_the_tree_with_bars(reports: dict[str, Any]) -> None:
    html = reports["forward"]._repr_html_()
    assert html.count("<details") == 1
    assert 'style="width:100%"' in html
    free = gf.count(nn.Sequential(nn.Linear(8, 8), nn.Identity(), nn.Flatten()), (X,))
    assert "2 without cost: 1, 2" in free._repr_html_()


def test_old_names_are_told_the_new_ones() -> None:
    count: Any = gf.count
    with pytest.raises(gf.ModelSpecError, match="regions= is called reuse_layers= now"):
        count(nn.Linear(8, 8), (X,), regions=False)
    train: Any = gf.count_training
    sentence = "accumulation= is called gradient_accumulation_steps= now"
    with pytest.raises(gf.ModelSpecError, match=sentence):
        train(nn.Linear(8, 8), (X,), accumulation=2)
