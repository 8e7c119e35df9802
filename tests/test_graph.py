"""The graph of a report: edges by hand, its forms in networkx, what it refuses."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
import torch
from torch import nn

import graphflops as gf
from graphflops.errors import ModelSpecError

X = torch.ones(2, 3)


class Function(nn.Module):
    """A function as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: torch.Tensor) -> Any:
        return self.function(*args)


def edges(function: Callable[..., Any], *args: torch.Tensor) -> list[tuple[str, str, str]]:
    report = gf.count(Function(function), args or (X,))
    return list(report.graph.to_networkx(sources=True).edges(keys=True))


def in_place(x: torch.Tensor) -> torch.Tensor:
    y = x.exp()
    y.add_(1)
    return y.sin()


def through_a_view(x: torch.Tensor) -> torch.Tensor:
    y = x.exp()
    y[0].mul_(2)
    return y.sin()


def of_the_base(x: torch.Tensor) -> torch.Tensor:
    y = x.exp()
    row = y[0]
    y.mul_(2)
    return row.sin()


def of_parts(x: torch.Tensor) -> torch.Tensor:
    first, second = x.exp().chunk(2)
    second.neg_()
    return first + second


def one_tensor_twice(x: torch.Tensor) -> torch.Tensor:
    y = x.exp()
    return torch.cat([y, y])


def input_written(x: torch.Tensor) -> torch.Tensor:
    x.mul_(2)
    return x.sin()


def out_argument(x: torch.Tensor) -> torch.Tensor:
    y = x.exp()
    torch.mul(x, 2, out=y)
    return y.sin()


EDGES: dict[Callable[..., Any], list[tuple[str, str, str]]] = {
    in_place: [
        ("%args_0", "exp", "self"),
        ("exp", "add_", "self"),
        ("add_", "sin", "self"),
    ],
    through_a_view: [
        ("%args_0", "exp", "self"),
        ("exp", "select", "self"),
        ("select", "mul_", "self"),
        ("mul_", "sin", "self"),
    ],
    of_the_base: [
        ("%args_0", "exp", "self"),
        ("exp", "select", "self"),
        ("exp", "mul_", "self"),
        ("mul_", "sin", "self"),
    ],
    of_parts: [
        ("%args_0", "exp", "self"),
        ("exp", "chunk", "self"),
        ("chunk", "neg_", "self"),
        ("neg_", "add", "self"),
        ("neg_", "add", "other"),
    ],
    one_tensor_twice: [
        ("%args_0", "exp", "self"),
        ("exp", "cat", "tensors"),
        ("exp", "cat", "tensors'"),
    ],
    input_written: [("%args_0", "mul_", "self"), ("mul_", "sin", "self")],
    out_argument: [
        ("%args_0", "exp", "self"),
        ("%args_0", "mul", "self"),
        ("exp", "mul", "out"),
        ("mul", "sin", "self"),
    ],
}


@pytest.mark.parametrize("function", EDGES, ids=lambda function: function.__name__)
def test_edges_by_hand(function: Callable[..., Any]) -> None:
    assert sorted(edges(function)) == sorted(EDGES[function])


def test_an_edge_has_the_bytes_of_its_tensor() -> None:
    graph = gf.count(Function(lambda x: x.double().exp()), (X,)).graph.to_networkx()
    ((_, _, data),) = graph.edges(data=True)
    assert data == {"tensor": "to", "shape": "2x3", "dtype": "float64", "bytes": 48}


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


def test_a_node_has_the_cost_and_place_of_its_call() -> None:
    graph = gf.count(model(), (X,)).graph.to_networkx()
    assert list(graph) == ["linear", "relu", "linear_1"]
    linear = graph.nodes["linear_1"]
    assert (linear["macs"], linear["flops"]) == (2 * 4 * 2, 2 * 2 * 4 * 2 + 2 * 2)
    assert (linear["op"], linear["module"], linear["module_class"]) == (
        "aten::linear",
        "2",
        "Linear",
    )
    assert linear["inputs"] == "input float32[2, 4], weight float32[2, 4], bias float32[2]"


def test_networkx_writes_it_in_its_formats() -> None:
    report = gf.count(model(), (torch.empty(4, 3),), dynamic_shapes={"input": {0: "B"}})
    graph = report.graph.to_networkx(sources=True)
    file = io.BytesIO()
    nx.write_graphml(graph, file)
    file.seek(0)
    assert nx.read_graphml(file).nodes["linear"]["macs"] == "12*B"
    data = json.loads(json.dumps(nx.node_link_data(graph, edges="links")))
    assert nx.node_link_graph(data, edges="links").edges == graph.edges
    assert nx.nx_pydot.from_pydot(nx.nx_pydot.to_pydot(graph)).number_of_edges() == len(graph.edges)


def test_records_and_nodes_know_each_other() -> None:
    report = gf.count(model(), (X,))
    graph, module = report.graph, report.graph.to_fx()
    nodes = {node.name: node for node in module.graph.nodes}
    for record in report.records:
        assert graph[record.call.name] is record
        assert nodes[record.call.name].meta["graphflops"] == record
    assert repr(graph) == "OperatorGraph(3 calls, 2 edges)"
    with pytest.raises(ModelSpecError, match="the graph has no node 'gelu'"):
        graph["gelu"]


def test_a_saved_report_has_the_graph(tmp_path: Path) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(4))
            self.register_buffer("scale", torch.ones(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x)
            return x * self.get_buffer("scale")

    network, x = Model().eval(), torch.randn(3, 2, 8)
    report = gf.count(network, (x,))
    assert report.capture.layer_reuse.layers
    gf.save(report, tmp_path / "report.json")
    loaded = gf.load(tmp_path / "report.json")
    assert isinstance(loaded, gf.Report)
    assert loaded.graph.uses == report.graph.uses
    with torch.no_grad():
        (output,) = loaded.graph.to_fx(network)(x)
        assert torch.allclose(output, network(x), atol=1e-6)


def test_a_repeated_layer_is_folded_into_a_submodule() -> None:
    layers = nn.Sequential(*(nn.TransformerEncoderLayer(8, 2, 16) for _ in range(5))).eval()
    x = torch.randn(3, 2, 8)
    report = gf.count(layers, (x,))
    module = report.graph.to_fx(layers, folded=True)
    module.graph.lint()
    calls = [node for node in module.graph.nodes if node.op == "call_module"]
    assert {node.target for node in calls} == {"TransformerEncoderLayer"}
    assert len(calls) > report.capture.layer_reuse.layers
    assert all(len(node.meta["graphflops"]) == len(report.records) // 5 for node in calls)
    with torch.no_grad():
        assert torch.allclose(module(x)[0], layers(x), atol=1e-6)
    assert gf.count(module).total == report.total


def test_symbolic_sizes_are_read_from_the_inputs() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            batch, steps, width = x.shape
            return x[:, : steps // 2].cumsum(1), x.reshape(batch * steps, width) @ x[0].T

    report = gf.count(Model(), (torch.empty(2, 6, 8),), dynamic_shapes={"x": {0: "B", 1: "T"}})
    module = report.graph.to_fx()
    x = torch.randn(3, 10, 8)
    assert all(map(torch.allclose, module(x), Model()(x)))
    again = gf.count(module)
    assert (again.flops, list(again.records)) == (report.flops, list(report.records))


def conditional(x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = torch.cond(x.sum() > 0, torch.sin, torch.exp, (x,))
    return result


@pytest.mark.parametrize(
    ("function", "found"),
    [
        (conditional, "the graph has cond"),
        (lambda x: torch.vmap(torch.sin)(x), "the graph has vmap"),
    ],
)
def test_what_does_not_run_call_by_call_has_no_flat_graph(
    function: Callable[..., Any], found: str
) -> None:
    report = gf.count(Function(function), (X,))
    assert report.graph.to_networkx().nodes
    with pytest.raises(ModelSpecError, match=found):
        report.graph.to_fx()


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (nn.Sequential(nn.Linear(3, 5)), r"0.weight is \[5, 3\] in the model and \[4, 3\]"),
        (nn.Sequential(nn.Linear(3, 4, bias=False)), "the model has no 0.bias"),
    ],
)
def test_another_model_is_refused(other: nn.Module, message: str) -> None:
    report = gf.count(model(), (X,))
    with pytest.raises(ModelSpecError, match=message + ".*Give the model that was counted"):
        report.graph.to_fx(other)


def test_json_has_nodes_and_edges() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    operators = gf.count_training(network, (torch.ones(1, 3, 8, 8),)).to_dict(ops=True)["ops"]
    producers = {
        call["node"]: [(one["name"], one["producer"]) for one in call["inputs"]]
        for call in operators
    }
    assert producers["convolution"] == [("input", None), ("weight", None), ("bias", None)]
    assert producers["threshold_backward"] == [("grad_output", "expand"), ("self", "detach_1")]
