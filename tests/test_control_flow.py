"""Branches and loops: which is taken, how often, and whose calls are in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import Call
from torch import nn
from torch._dynamo import trace_rules
from torch._higher_order_ops.map import map as mapped
from torch._higher_order_ops.scan import scan
from torch._higher_order_ops.while_loop import while_loop

import graphflops as gf

X = torch.randn(5, 8)
LINEAR = 5 * 8 * 8  # MACs


class Model(nn.Module):
    """Its layers are called in the bodies of an operator."""

    def __init__(self, forward: Callable[..., Any]) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))
        self.run = forward

    def forward(self, x: torch.Tensor) -> Any:
        return self.run(self, x)


def branch(m: Any, x: torch.Tensor) -> Any:
    return torch.cond(x.sum() > 0, lambda x: m.c(m.a(x)), lambda x: m.b(x), (x,))


def other_branch(m: Any, x: torch.Tensor) -> Any:
    return torch.cond(x.sum() > 0, lambda x: x + 1, lambda x: m.b(x), (x,))


def nested(m: Any, x: torch.Tensor) -> Any:
    def inner(x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 1, lambda x: m.a(x), lambda x: m.c(m.a(m.b(x))), (x,))

    return torch.cond(x.sum() > 0, inner, lambda x: m.b(m.a(x)), (x,))


def loop(m: Any, x: torch.Tensor) -> Any:
    i = torch.zeros((), dtype=torch.int64)
    run: Any = while_loop
    return run(lambda i, x: (i < 5) & (x.sum() > 0), lambda i, x: (i + 1, m.a(x)), (i, x))


def rows(m: Any, x: torch.Tensor) -> Any:
    run: Any = mapped
    return run(lambda row: m.b(m.a(row)), x)


def carried(m: Any, x: torch.Tensor) -> Any:
    return scan(lambda h, row: (m.a(h) + row, h.clone()), torch.zeros(8), x)


# MACs, FLOPs, and what the notes say.
CASES: dict[str, tuple[Callable[..., Any], int, int, list[str]]] = {
    "cond": (
        branch,
        2 * LINEAR,
        39 + 1 + 2 * (2 * LINEAR + 40),
        [f"its true branch, the larger one: the true branch {2 * (2 * LINEAR + 40)} FLOPs"],
    ),
    "the other": (
        other_branch,
        LINEAR,
        39 + 1 + 2 * LINEAR + 40,
        [f"the true branch 40 FLOPs, the false branch {2 * LINEAR + 40} FLOPs"],
    ),
    "nested": (
        nested,
        3 * LINEAR,
        2 * (39 + 1) + 3 * (2 * LINEAR + 40),
        ["its false branch", "its true branch"],
    ),
    "while_loop": (loop, LINEAR, 39 + 1 + 2 * LINEAR + 40, ["while_loop at .* counts one trip"]),
    "map": (rows, 2 * LINEAR, 2 * (2 * LINEAR + 40), []),
    "scan": (carried, LINEAR, 2 * LINEAR + 40 + 40, []),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_a_module_costs_what_its_export_costs(name: str, tmp_path: Path) -> None:
    function, macs, flops, notes = CASES[name]
    model = Model(function)
    program = torch.export.export(model, (X,))
    torch.export.save(program, tmp_path / "program.pt2")
    strict = torch.export.export(model, (X,), strict=True)
    reports = [gf.count(model, (X,))]
    reports += [gf.count(form) for form in (program, tmp_path / "program.pt2", strict)]
    for report in reports:
        assert report.complete
        assert (report.macs, report.flops) == (macs, flops)
        assert len(report.capture.notes) == len(notes)
        for note, said in zip(report.capture.notes, notes, strict=True):
            assert re.search(said, note)
    # A strict export knows whose calls are in its bodies.
    assert {path for path, cost in reports[-1].by_module().items() if cost.macs} > {""}
    assert not any("_export_root" in path for path in reports[-1].by_module())


@pytest.mark.filterwarnings("ignore")
def test_branches_that_are_not_taken_are_shown() -> None:
    report = gf.count(Model(branch), (X,))
    *_, not_taken = report.records
    assert (not_taken.call.op, not_taken.call.trip_count) == ("aten::linear", 0)
    assert not_taken.cost == gf.OpCost()


@pytest.mark.filterwarnings("ignore")
def test_symbolic_branches() -> None:
    def run(x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: x @ x.t() @ x, lambda x: x @ x.t() @ x + 1, (x,))

    report = gf.count(Call(run), (X,), dynamic_shapes=(({0: "B"},),))
    assert str(report.macs) == "16*B**2"
    assert report.subs(B=5).flops == 39 + 1 + 4 * 5 * 5 * 8 + 5 * 8
    assert "its false branch, the larger one" in report.capture.notes[-1]


@pytest.mark.filterwarnings("ignore")
def test_branches_of_which_either_may_be_larger() -> None:
    def run(x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: (x @ x.t()) @ x, lambda x: x @ (x.t() @ x), (x,))

    # 4 * 5 * 5 * 8 and 4 * 5 * 8 * 8; of any number of rows, by how it compares with 8.
    assert "its false branch, the larger one" in gf.count(Call(run), (X,)).capture.notes[-1]
    report = gf.count(Call(run), (X,), dynamic_shapes=(({0: "B"},),))
    note = report.capture.notes[-1]
    assert "its true branch, though for other sizes another may be larger" in note


@pytest.mark.filterwarnings("ignore")
def test_tables_of_dynamo_that_a_process_group_clears_are_made_before_a_count() -> None:
    trace_rules.clear_lru_cache()
    for _ in range(2):
        assert gf.count(Model(branch), (X,)).macs

    def asks(x: torch.Tensor) -> torch.Tensor:
        return x + 1 if torch.compiler.is_compiling() else x - 1

    compiled = torch.compile(asks, backend="eager", fullgraph=True)
    assert torch.equal(compiled(X), X + 1)


@pytest.mark.filterwarnings("ignore")
def test_compiling_goes_on_as_before() -> None:
    gf.count(Model(branch), (X,))
    seen: list[Any] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.append(graph)
        return graph.forward

    @torch.compile(backend=backend, fullgraph=True)
    def function(x: torch.Tensor) -> Any:
        return x * max(2, 3) if torch.compiler.is_compiling() else x

    torch._dynamo.reset()
    assert torch.equal(function(X), X * 3)
    assert len(seen) == 1


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["cond", "while_loop"])
def test_graphs_of_a_backend(name: str) -> None:
    function, macs, flops, _ = CASES[name]
    seen: list[gf.Report] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        seen.append(gf.count(graph))
        return graph.forward

    torch._dynamo.reset()
    torch.compile(Model(function), backend=backend)(X)
    assert [(report.macs, report.flops) for report in seen] == [(macs, flops)]
