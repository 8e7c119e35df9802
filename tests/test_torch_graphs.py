"""Graphs of torch functions: what Dynamo hands to a backend, and what symbolic tracing makes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from calls import Call
from torch import fx, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import graphflops as gf

X = torch.randn(5, 8)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 8)
        self.register_buffer("scale", torch.ones(8))

    def forward(self, x: torch.Tensor) -> Any:
        return self.linear(x).relu() * self.scale


class Model(nn.Module):
    def __init__(self, *, checkpointed: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.head = nn.Sequential(nn.Linear(8, 4), nn.ReLU())
        self.checkpointed = checkpointed

    def forward(self, x: torch.Tensor) -> Any:
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointed else block(x)
        return functional.softmax(self.head(x) @ x[:, :4].t(), dim=-1)


class _Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> Any:
        ctx.save_for_backward(x, w)
        return x @ w * 2

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, w = ctx.saved_tensors
        return gradient @ w.t() * 2, x.t() @ gradient * 2


Doubled: Any = _Doubled


@torch.compiler.nested_compile_region
def region(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return (x @ w).relu()


def asking(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, requires_grad=True)


def compiled(model: Any, *args: torch.Tensor, dynamic: bool = False) -> list[Any]:
    """The graph that a backend gets, and its counts there: by its inputs, and by itself."""
    found: list[Any] = []

    def backend(graph: fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        found.extend((graph, gf.count(graph, inputs), gf.count(graph)))
        return graph.forward

    torch._dynamo.reset()
    run: Any = torch.compile(model, backend=backend, dynamic=dynamic)
    run(*args)
    return found


def lines(report: gf.Report) -> list[tuple[str, str, str]]:
    return [(r.call.op, r.call.module_path, r.call.source_line) for r in report.records]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_paths_lines_and_prices_are_those_of_the_module(
    *, checkpointed: bool, dynamic: bool
) -> None:
    model = Model(checkpointed=checkpointed)
    graph, *reports = compiled(model, X, dynamic=dynamic)
    expected = gf.count(model, (X,))
    for report in (*reports, gf.count(graph)):
        assert report.total == expected.total
        assert report.macs == 5 * 8 * 8 * 2 + 5 * 8 * 4 + 5 * 4 * 5
        assert lines(report) == lines(expected)
        assert report.params == expected.params
        assert report.by_module() == expected.by_module()
        assert [name for name, _ in report.capture.inputs] == ["L_x"]
        assert any("s77 = 5" in note for note in report.capture.notes) == dynamic


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (lambda x, w: Doubled.apply(x, w).relu(), (asking(5, 8), asking(8, 8))),
        (lambda x, w: region(region(x, w), w), (asking(5, 8), asking(8, 8))),
        (lambda x, w: x @ w + torch.ops.aten.mm.default(x, w), (X, torch.randn(8, 8))),
    ],
    ids=["autograd function", "compiled region", "operators among functions"],
)
def test_graphs_within_and_operators(function: Callable[..., Any], args: Any) -> None:
    graph, *reports = compiled(function, *args)
    expected = gf.count(Call(function), args)
    for report in (*reports, gf.count(graph)):
        assert report.complete
        assert (report.macs, report.flops) == (expected.macs, expected.flops)


def test_other_inputs() -> None:
    graph, *_ = compiled(Model(), X)
    taken = [node.meta["example_value"] for node in graph.graph.find_nodes(op="placeholder")]
    inputs = [torch.empty(7, 8) if value.shape == X.shape else value for value in taken]
    report = gf.count(graph, inputs)
    assert report.macs == 7 * 8 * 8 * 2 + 7 * 8 * 4 + 7 * 4 * 7


def test_symbolic_tracing_keeps_the_modules_between() -> None:
    model = nn.Sequential(Block(), nn.Sequential(Block(), nn.ReLU()))
    report, expected = gf.count(fx.symbolic_trace(model), (X,)), gf.count(model, (X,))
    assert report.total == expected.total
    assert report.by_module() == expected.by_module()
    classes = {module.path: module.module_class for module in report.capture.modules}
    assert (classes["0"], classes["1"], classes["1.0"]) == ("Block", "Sequential", "Block")
    with pytest.raises(gf.CaptureError, match="missing 1 required positional argument"):
        gf.count(fx.symbolic_trace(model))
