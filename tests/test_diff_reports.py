"""Differences between reports of all kinds; symbolic and saved ones; those that do not compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from calls import meta
from diff_models import MLP, ROWS, WIDTH
from torch import nn

import graphflops as gf
from graphflops.core.call_sequence import Relocation


def test_symbolic_costs_differ_as_expressions() -> None:
    axes = ({0: "B"},)
    x = (meta(ROWS, WIDTH),)
    narrow, wide = (gf.count(MLP("fc", n), x, dynamic_shapes=axes) for n in (16, 24))
    change = narrow.diff(wide).total["macs"]
    # 2 x 8 x 8 more MACs in each row.
    assert str(change.difference) == "128*B"
    assert change.percent is None
    assert not narrow.diff(gf.count(MLP("fc", 16), x, dynamic_shapes=axes))
    assert "128*B" in str(narrow.diff(wide))
    with pytest.raises(gf.ModelSpecError, match=r"input x is \[B, 8\] in the first and input x is"):
        narrow.diff(gf.count(MLP("fc", 16), x))


def test_training_steps_by_pass() -> None:
    x = (meta(ROWS, WIDTH),)
    before, after = (gf.count_training(MLP("fc", n), x) for n in (16, 24))
    diff = before.diff(after)
    # Backward: both weights' gradients, and the gradient of the hidden layer, 6 x 8 x 8 more each.
    assert [(p.name, p.after.macs - p.before.macs) for p in diff.passes] == [
        ("forward", 768),
        ("backward", 3 * 384),
        ("recompute", 0),
    ]
    assert diff.total["macs"].difference == 768 + 1152
    assert sum(row.after.macs - row.before.macs for row in diff.operators) == 768 + 1152
    assert {row.pass_name for row in diff.calls} == {"forward", "backward"}
    with_optimizer = gf.count_training(MLP("fc", 16), x, optimizer="sgd")
    row = before.diff(with_optimizer).passes[-1]
    # 2 FLOPs for each of 2 x 8 x 16 parameters, which are in no total.
    assert (row.name, row.before.flops, row.after.flops) == ("optimizer", 0, 512)
    assert not before.diff(with_optimizer).calls
    assert before.diff(with_optimizer)
    with pytest.raises(gf.ModelSpecError, match="number of passes is 1 in the first and number"):
        before.diff(gf.count_training(MLP("fc", 16), x, steps=2))


def llama(intermediate_size: int, layers: int = 2) -> nn.Module:
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_attention_heads=4,
        vocab_size=50,
        num_hidden_layers=layers,
        intermediate_size=intermediate_size,
    )
    with torch.device("meta"):
        model: nn.Module = transformers.LlamaForCausalLM._from_config(config).eval()
    return model


def prompt() -> torch.Tensor:
    return meta(2, 6, dtype=torch.int64)


def test_generations_by_pass() -> None:
    narrow, wide = (
        gf.count_generation(llama(size), {"input_ids": prompt()}, max_new_tokens=3)
        for size in (48, 64)
    )
    diff = narrow.diff(wide)
    # Three products of 32 by 16 more in each of 2 layers for a token; 2 x 6, then 2 x 2 tokens.
    each = 2 * 3 * 32 * 16
    assert [(p.name, p.after.macs - p.before.macs) for p in diff.passes] == [
        ("prefill", 12 * each),
        ("decode", 4 * each),
    ]
    assert diff.total["macs"].difference == 16 * each
    assert sum(row.after.macs - row.before.macs for row in diff.operators) == 16 * each
    assert sum(row.after_cost.macs - row.before_cost.macs for row in diff.calls) == 16 * each
    assert not narrow.diff(narrow)
    with pytest.raises(gf.ModelSpecError, match="size M is 8 in the first and size M is 9 in"):
        narrow.diff(narrow.subs(N=4))


def test_saved_reports_compare_as_counted_ones(tmp_path: Path) -> None:
    x, axes = (meta(ROWS, WIDTH),), ({0: "B"},)
    reports: tuple[gf.Report, gf.TrainingReport] = (
        gf.count(MLP("fc", 16), x, dynamic_shapes=axes),
        gf.count_training(MLP("fc", 16), x),
    )
    for report in reports:
        gf.save(report, tmp_path / "report.json")
        assert not report.diff(gf.load(tmp_path / "report.json"))


def test_names_of_calls_do_not_matter() -> None:
    model = llama(48, layers=4)
    report = gf.count(model, kwargs={"input_ids": prompt(), "use_cache": False})
    renamed = [
        replace(r, call=replace(r.call, name=f"call_{r.call.index}")) for r in report.records
    ]
    traced = gf.count(model, kwargs={"input_ids": prompt(), "use_cache": False}, reuse_layers=False)
    for other in (replace(report, records=renamed), traced):
        assert [r.call.name for r in other.records] != [r.call.name for r in report.records]
        assert not report.diff(other)
    # The graph has other names for inputs, too.
    assert not report.diff(gf.count(report.graph.to_fx(model)))


def test_calls_of_repeated_layers_are_built_only_where_they_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, after = (
        gf.count(llama(48, layers), kwargs={"input_ids": prompt()}) for layers in (6, 7)
    )
    built = []
    relocate = Relocation.relocate

    def tracked(self: Relocation, call: gf.OpCall, index: int) -> gf.OpCall:
        built.append(call)
        return relocate(self, call, index)

    monkeypatch.setattr(Relocation, "relocate", tracked)
    diff = before.diff(after)
    assert built == []
    assert {row.call.module_path.split(".")[2] for row in diff.calls} == {"6"}
    assert len(built) == len(diff.calls) == len(after.records) - len(before.records)


def test_reports_that_do_not_compare_are_refused() -> None:
    x = (meta(ROWS, WIDTH),)
    report = gf.count(MLP("fc"), x)
    refused = {
        "different kinds: forward pass and training step": gf.count_training(MLP("fc"), x),
        "different conventions: exact and fvcore": gf.count(MLP("fc"), x, convention="fvcore"),
        r"input x is \[6, 8\] in the first and input x is \[7, 8\] in the second": gf.count(
            MLP("fc"), (meta(7, WIDTH),)
        ),
        r"input x is \[6, 8\] in the first and input x is missing in the second": gf.count(
            nn.Bilinear(8, 8, 8), (meta(6, 8), meta(6, 8))
        ),
    }
    for message, other in refused.items():
        with pytest.raises(gf.ModelSpecError, match=message):
            report.diff(other)
    other = gf.count(MLP("fc"), (meta(7, WIDTH),))
    # One more row: 2 x 8 x 8 MACs.
    assert report.diff(other, workload="any").total["macs"].difference == 128
    with pytest.raises(gf.ModelSpecError, match="workload is 'all'"):
        report.diff(other, workload="all")  # type: ignore[arg-type]  # what a user may write
