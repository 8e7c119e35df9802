"""Symbolic axes of inputs: named as the user names them, equal to numbers once bound."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
import torch
from architectures import ARCHITECTURES
from calls import meta
from torch import nn
from torch.export import Dim

import graphflops as gf

B, S = (sympy.Symbol(name, positive=True, integer=True) for name in "BS")


@pytest.mark.parametrize(
    "axes",
    [
        ({0: "B", 1: "S"},),
        {"input": {0: "B", 1: "S"}},
        [("B", "S", None)],
        ({0: Dim("B"), 1: Dim("S", min=2, max=512)},),
    ],
    ids=["names", "by input", "every axis", "dims"],
)
def test_costs_are_in_the_names_given(axes: Any) -> None:
    report = gf.count(nn.Linear(3, 4), (meta(2, 5, 3),), dynamic_shapes=axes)
    assert report.macs == B * S * 3 * 4
    assert report.flops == B * S * (2 * 3 * 4 + 4)
    assert report.capture.inputs[0][1].shape == (B, S, 3)
    assert report.capture.notes == ()


def test_a_size_derived_from_another() -> None:
    half = Dim("H")
    report = gf.count(nn.Linear(3, 4), (meta(9, 3),), dynamic_shapes=({0: 2 * half + 1},))
    assert report.total.subs(H=4).macs == 9 * 3 * 4


def test_axes_without_a_name_are_named_after_the_input() -> None:
    report = gf.count(
        nn.Linear(3, 4), (meta(9, 3),), dynamic_shapes={"input": {0: Dim.DYNAMIC, 1: Dim.AUTO}}
    )
    assert str(report.macs) == "12*input_0"  # AUTO lets the weight fix the other axis


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_symbols_then_numbers_equals_numbers_of_a_whole_model(batch: int) -> None:
    case = ARCHITECTURES["llama"]()
    axes = {"input_ids": {0: "B", 1: "S"}}
    symbolic = gf.count(
        case.model, kwargs={"input_ids": meta(2, 8, dtype=torch.int64)}, dynamic_shapes=axes
    )
    ids = meta(batch, 33, dtype=torch.int64)
    concrete = gf.count(case.model, kwargs={"input_ids": ids})
    assert symbolic.total.subs(B=batch, S=33) == concrete.total


def test_memory_order_is_kept() -> None:
    pixels = meta(2, 3, 8, 8).to(memory_format=torch.channels_last)
    report = gf.count(nn.Conv2d(3, 4, 1), (pixels,), dynamic_shapes=({0: "B"},))
    assert report.capture.inputs[0][1].strides == (192, 1, 24, 3)


def test_what_a_graph_takes_for_granted_is_said() -> None:
    class Windowed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ x if x.shape[0] > 4 else x

    report = gf.count(Windowed(), (meta(6, 6),), dynamic_shapes=({0: "N", 1: "N"},))
    assert report.capture.notes == ("Costs hold where N > 4.",)


def test_numbers_put_in_for_symbols_reach_every_part_of_a_report() -> None:
    case = ARCHITECTURES["llama"]()
    ids = {"input_ids": meta(2, 8, dtype=torch.int64)}
    symbolic = gf.count(case.model, kwargs=ids, dynamic_shapes={"input_ids": {0: "B", 1: "S"}})
    concrete = gf.count(case.model, kwargs={"input_ids": meta(3, 9, dtype=torch.int64)})
    assert symbolic.symbols == ("B", "S")
    half = symbolic.subs(B=3)
    assert half.symbols == ("S",)
    whole = half.subs(S=9)
    assert whole.symbols == ()
    assert whole.root == concrete.root

    def contractions(report: gf.Report) -> list[Any]:
        # Which views there are depends on what is known of sizes.
        priced = (r for r in report.records if r.cost is not None and r.cost.macs)
        return [(r.call.op, r.cost, [t.shape for t in r.call.outputs]) for r in priced]

    assert contractions(whole) == contractions(concrete)


def test_formulas_are_factored_by_module() -> None:
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Linear(4, 5, bias=False))
    report = gf.count(model, (meta(2, 3),), dynamic_shapes=({0: "B"},))
    lines = [line.split() for line in report.formula().splitlines()[2:]]
    assert lines == [["(model)", "32*B", "64*B"], ["0", "12*B", "24*B"], ["1", "20*B", "40*B"]]


def test_symbols_that_are_not_there_or_do_not_fit() -> None:
    class Windowed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ x if x.shape[0] > 4 else x

    report = gf.count(Windowed(), (meta(6, 6),), dynamic_shapes=({0: "N", 1: "N"},))
    with pytest.raises(gf.ModelSpecError, match="no symbol 'S'"):
        report.subs(S=3)
    with pytest.raises(gf.ModelSpecError, match="holds where N > 4, so not for N = 3"):
        report.subs(N=3)
    with pytest.raises(gf.ModelSpecError, match="numbers already"):
        report.subs(N=8).subs(N=8)
    with pytest.raises(gf.UnboundSymbolError, match="no number yet"):
        report.sorted_records("flops")


@pytest.mark.parametrize(
    ("args", "axes", "complaint"),
    [
        ((meta(5, 3),), ({1: "H"},), "works for H = 3 only"),
        ((meta(1, 3),), ({0: "B"},), "B is 1 in the inputs"),
        ((meta(5, 3),), {"x": {0: "B"}}, "arg names \\['input'\\]"),
        ((meta(5, 3),), ({0: 2.5},), "does not match the inputs"),
        ((meta(5, 3),), ({0: "B", 1: "B"},), "B is 5 in one input and 3 in another"),
    ],
)
def test_what_cannot_be_symbolic(args: Any, axes: Any, complaint: str) -> None:
    with pytest.raises(gf.GraphFlopsError, match=complaint):
        gf.count(nn.Linear(3, 4), args, dynamic_shapes=axes)


RAN: list[str] = []


class FixesItsLength(nn.Module):
    """A step for each row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for row in range(x.shape[0]):
            RAN.append("step")
            x = x + row
        return x


def test_a_size_is_refused_where_the_model_fixes_it() -> None:
    """Not at the end of a trace."""
    RAN.clear()
    with pytest.raises(gf.GraphFlopsError, match="works for N = 5 only"):
        gf.count(FixesItsLength(), (meta(5, 3),), dynamic_shapes=({0: "N"},))
    assert not RAN


def test_a_model_that_is_fake_already_takes_symbols_too() -> None:
    with torch._subclasses.FakeTensorMode():
        model = nn.Linear(3, 4)
    report = gf.count(model, (meta(5, 3),), dynamic_shapes=({0: "B"},))
    assert str(report.macs) == "12*B"
