"""Graphs that a pass has split: parts of them are graph modules of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.fx.passes.split_module import split_module

import graphflops as gf
from graphflops.core.ir import Phase


@pytest.mark.parametrize(
    "trace",
    [
        lambda model, x: torch.export.export(model, (x,)).module(),
        lambda model, _: torch.fx.symbolic_trace(model),
        lambda model, x: gf.count(model, (x,)).graph.to_fx(model),
    ],
    ids=["exported", "symbolically traced", "captured"],
)
def test_calls_in_partitions_belong_to_modules_of_the_model(trace: Callable[..., Any]) -> None:
    layers = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
    model, x = nn.Sequential(layers, nn.Linear(8, 4)).eval(), torch.randn(2, 8)
    graph = trace(model, x)
    calls = [node for node in graph.graph.nodes if node.op.startswith("call")]
    split = split_module(graph, graph, lambda node: int(node is calls[-1]))
    assert {"submod_0", "submod_1"} <= {name for name, _ in split.named_children()}
    report = gf.count(split, (x,))
    assert {path: node.macs for path, node in report.by_module().items()} == {
        "": 2 * 8 * (8 + 4),
        "0": 2 * 8 * 8,
        "0.0": 2 * 8 * 8,
        "0.1": 0,
        "1": 2 * 8 * 4,
    }


@pytest.mark.filterwarnings("ignore:Your compiler for AOTAutograd")
def test_calls_in_partitions_keep_their_phase() -> None:
    graphs: list[torch.fx.GraphModule] = []

    def keep(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    model: Any = torch.compile(
        nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)),
        backend=aot_autograd(fw_compiler=keep, bw_compiler=keep),
    )
    model(torch.randn(2, 8)).sum().backward()
    backward = graphs[1]
    calls = backward.graph.find_nodes(op="call_function", target=torch.ops.aten.mm.default)
    split = split_module(backward, backward, lambda node: int(node >= calls[1]))
    report, expected = gf.count(split), gf.count(backward)
    assert report.phase is Phase.BACKWARD
    assert report.by_module() == expected.by_module()
    assert expected.macs == 2 * 8 * 8 + 2 * 2 * 8 * 4


class Halves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.linear(x).chunk(2, dim=1)
        product: torch.Tensor = first @ second.t()
        return product


@pytest.mark.parametrize("inputs", [(), (torch.randn(3, 4),)], ids=["recorded", "given"])
def test_partitions_that_return_several_tensors(inputs: tuple[torch.Tensor, ...]) -> None:
    graph = torch.export.export(Halves(), (torch.randn(3, 4),)).module()
    calls = list(graph.graph.find_nodes(op="call_function", target=torch.ops.aten.t.default))
    calls += graph.graph.find_nodes(op="call_function", target=torch.ops.aten.matmul.default)
    split: Any = split_module(graph, graph, lambda node: int(node in calls))
    (output,) = split.submod_0.graph.find_nodes(op="output")
    assert len(output.args[0]) == 2
    before = str(split.graph)
    report = gf.count(split, inputs)
    assert report.macs == 3 * 4 * 4 + 3 * 2 * 3
    assert report.by_module()["linear"].macs == 3 * 4 * 4
    assert str(split.graph) == before
