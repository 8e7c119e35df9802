"""Saved reports: all that a report answers comes back from its file, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_generate_loop import TEXT, built
from torch import nn

import graphflops as gf
from graphflops.saving.codec import DataError
from graphflops.saving.expressions import DIM
from graphflops.saving.files import AnyReport

X = torch.empty(5, 8, device="meta")


class Layers(nn.Module):
    """Layers that are replayed, and a call of an operator without a handler."""

    def __init__(self, layers: int = 4) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(layers)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[None]
        for layer in self.layers:
            x = layer(x)
        out: torch.Tensor = torch.linalg.vecdot(x, x)
        return out


def symbolic() -> gf.Report:
    return gf.count(nn.Linear(8, 4), (X,), dynamic_shapes=({0: "B"},))


REPORTS: dict[str, Callable[[], Any]] = {
    "forward": lambda: gf.count(Layers().to("meta").eval(), (X,)),
    "symbolic": symbolic,
    "fvcore": lambda: gf.count(nn.Linear(8, 4), (X,), convention="fvcore"),
    "training": lambda: gf.count_training(
        Layers().to("meta"), (X,), optimizer="adamw", gradient_accumulation_steps=3
    ),
    "generation": lambda: gf.count_generation(
        built("LlamaForCausalLM", **TEXT),
        {"input_ids": torch.zeros(2, 6, dtype=torch.int64)},
        max_new_tokens=4,
    ),
}


def round_trip(report: AnyReport, folder: Path) -> Any:
    gf.save(report, folder / "report.json")
    return gf.load(folder / "report.json")


@pytest.mark.parametrize("name", REPORTS)
def test_all_questions_have_the_same_answers(name: str, tmp_path: Path) -> None:
    report = REPORTS[name]()
    loaded = round_trip(report, tmp_path)
    assert loaded == report
    assert loaded.root == report.root
    assert str(loaded.memory.peak) == str(report.memory.peak)
    assert loaded.to_dict(ops=True) == report.to_dict(ops=True)
    for ask in ("by_module", "by_operator", "by_dtype", "by_module_and_operator", "to_csv"):
        assert getattr(loaded, ask)() == getattr(report, ask)()
    for ask in ("formula", "table", "tree", "to_text", "_repr_html_", "uncalled_modules"):
        assert getattr(loaded, ask)() == getattr(report, ask)()
    assert [*map(loaded.explain, loaded.records)] == [*map(report.explain, report.records)]
    assert loaded.compare_conventions("torch") == report.compare_conventions("torch")


def test_sizes_are_put_in_after_loading(tmp_path: Path) -> None:
    assert round_trip(symbolic(), tmp_path).subs(B=7).macs == 7 * 8 * 4
    generation = REPORTS["generation"]()
    loaded = round_trip(generation, tmp_path)
    assert loaded.subs(P=30, N=9).total == generation.subs(P=30, N=9).total
    with pytest.raises(gf.ModelSpecError, match="no function of 'Q'"):
        loaded.subs(Q=3)


def test_repeated_layers_stand_once(tmp_path: Path) -> None:
    for layers in (2, 40):
        report = gf.count(Layers(layers).to("meta").eval(), (X,))
        gf.save(report, tmp_path / "report.json")
        records = json.loads((tmp_path / "report.json").read_text())["report"]["records"]
        assert len(records["blocks"]) == 1
        assert sum("block" in item for item in records["items"]) == layers - 1


def test_torch_is_not_needed(tmp_path: Path) -> None:
    gf.save(REPORTS["training"](), tmp_path / "report.json")
    code = (
        "import sys, graphflops as gf; r = gf.load('report.json'); r.table(); r.to_json(); "
        "r.explain(r.records[0]); r.compare_conventions('torch'); print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_a_handler_of_the_users_is_a_formula_in_the_file(tmp_path: Path) -> None:
    mine = gf.Registry("mine")

    @mine.register("aten::relu")
    def relu(*, out: gf.TensorMeta) -> gf.OpCost:
        """Three per element."""
        return gf.OpCost(flops=3 * out.numel)

    report = gf.count(nn.ReLU(), (X,), registry=mine)
    loaded = round_trip(report, tmp_path)
    assert loaded.flops == 3 * 5 * 8
    assert loaded.convention == "mine"
    assert "Three per element." in loaded.explain(loaded.records[0])
    with pytest.raises(gf.HandlerError, match="aten::relu is not in the saved report"):
        loaded.compare_conventions("torch")


def edited(change: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    def edit(content: bytes) -> bytes:
        data = json.loads(content)
        change(data)
        return json.dumps(data).encode()

    return edit


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut off": (lambda content: content[:-40], "is no JSON, or was cut off"),
    "empty": (lambda _: b"", "is no JSON, or was cut off"),
    "no text": (lambda _: b"\xff\xfe\x00", "is no JSON, or was cut off"),
    "other JSON": (lambda _: b"[1]", r"is no saved report. Write one with graphflops.save"),
    "another version": (
        edited(lambda d: d.update(version=9)),
        "saved in version 9 of the format, and this graphflops reads version 1",
    ),
    "another kind": (edited(lambda d: d.update(kind="memory")), "of the kind 'memory'"),
    "unknown field": (
        edited(lambda d: d["report"].update(colour=3)),
        "has a field 'colour', which this version does not know",
    ),
    "unknown field within": (
        edited(lambda d: d["report"]["records"]["items"][0]["call"].update(colour=3)),
        r"records.items.0.call has a field 'colour'",
    ),
    "missing field": (
        edited(lambda d: d["report"].pop("records")),
        "lacks the field 'records'",
    ),
    "wrong type": (
        edited(lambda d: d["report"].update(model=3)),
        r"model is int, not str",
    ),
    "wrong status": (
        edited(lambda d: d["report"]["records"]["items"][0].update(status="priced")),
        "is 'priced', no Status",
    ),
    "a block that is nowhere": (
        edited(
            lambda d: d["report"]["records"]["items"].append(
                {"block": 7, "start": 0, "relocation": {}}
            )
        ),
        "repeats block 7",
    ),
    "another convention": (
        edited(lambda d: d["report"]["registry"].update(convention="mine")),
        "the convention 'mine', which is not installed",
    ),
    "code for an expression": (
        edited(
            lambda d: d["report"]["records"]["items"][0]["cost"].update(
                flops={"function": "__import__", "arguments": []}
            )
        ),
        "has the function '__import__', which no cost has",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    gf.save(symbolic(), path)
    change, sentence = BROKEN[name]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(gf.ReportFileError, match=sentence):
        gf.load(path)


def test_files_that_cannot_be_read_or_written_are_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(gf.ReportFileError, match="cannot be read: No such file"):
        gf.load(tmp_path / "nothing.json")
    with pytest.raises(gf.OutputError, match="cannot be written: No such file"):
        gf.save(symbolic(), tmp_path / "nowhere" / "report.json")


B, S = (sympy.Symbol(name, positive=True, integer=True) for name in "BS")
dims = st.recursive(
    st.sampled_from([B, S, sympy.Integer(3), sympy.Rational(1, 2), sympy.Symbol("K")]),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a + b, inner, inner),
        st.builds(lambda a, b: a * b, inner, inner),
        st.builds(sympy.Max, inner, inner),
        st.builds(sympy.Min, inner, inner),
        st.builds(sympy.floor, inner),
        st.builds(lambda a: sympy.Sum(a, (sympy.Symbol("k"), 1, S)), inner),
        st.builds(lambda a: a**2, inner),
    ),
    max_leaves=6,
)


@given(dims)
def test_expressions_come_back_as_they_were(value: sympy.Expr) -> None:
    assert DIM.decode(json.loads(json.dumps(DIM.encode(value)))) == value


def test_an_expression_is_no_way_to_fill_the_memory() -> None:
    power = {"function": "Pow", "arguments": [9, {"function": "Pow", "arguments": [9, 9]}]}
    with pytest.raises(DataError, match="power"):
        DIM.decode({"function": "Pow", "arguments": [9, power]})
