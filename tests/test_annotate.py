"""Costs on the nodes of graphs: the sums are those of the report, the graph is as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import aot_export_joint_with_descriptors
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.infra.pass_manager import PassManager
from torch.utils.checkpoint import checkpoint

import graphflops as gf
from graphflops.compiler import AnnotatePass

X = torch.randn(2, 8)
LINEAR, HEAD, RELU = 2 * 2 * 8 * 8 + 2 * 8, 2 * 2 * 8 * 4 + 2 * 4, 2 * 8


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def costs(module: fx.GraphModule) -> dict[str, int]:
    """FLOPs of the annotated nodes by name, those of subgraphs included."""
    return {
        node.name: node.meta["graphflops"].cost.flops
        for part in module.modules()
        if isinstance(part, fx.GraphModule)
        for node in part.graph.nodes
        if "graphflops" in node.meta
    }


def dynamo_graph(run: Any, *args: Any) -> fx.GraphModule:
    graphs: list[fx.GraphModule] = []

    def keep(graph: fx.GraphModule, _: Any) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled: Any = torch.compile(run, backend=keep)
    compiled(*args)
    return graphs[0]


def _other_meta(node: fx.Node) -> dict[str, Any]:
    return {key: value for key, value in node.meta.items() if key != "graphflops"}


def state(module: fx.GraphModule) -> Any:
    """Everything of a graph but the annotation."""
    return [
        (node, node.op, node.target, node.args, node.kwargs, node.name, _other_meta(node))
        for part in module.modules()
        if isinstance(part, fx.GraphModule)
        for node in part.graph.nodes
    ]


def test_exported_program_and_make_fx() -> None:
    graph = torch.export.export(model(), (X,)).module()
    assert isinstance(graph, fx.GraphModule)
    before = state(graph)
    report = gf.annotate(graph)
    assert list(costs(graph).values()) == [LINEAR, RELU, HEAD]
    assert before == state(graph)
    for record in report.records:
        (node,) = (node for node in graph.graph.nodes if node.name == record.call.name)
        assert node.meta["graphflops"] is record
    traced = make_fx(model())(X)
    assert gf.annotate(traced).flops == sum(costs(traced).values()) == LINEAR + RELU + HEAD


def test_other_inputs_are_counted_and_annotated_again() -> None:
    graph = make_fx(lambda x, w: x @ w)(torch.ones(2, 3), torch.ones(3, 4))
    gf.annotate(graph)
    assert costs(graph) == {"mm": 2 * 2 * 3 * 4}
    gf.annotate(graph, [torch.ones(5, 3), torch.ones(3, 4)])
    assert costs(graph) == {"mm": 2 * 5 * 3 * 4}


def test_dynamo_graph_whose_functions_call_several_operators() -> None:
    net = nn.Sequential(model(), nn.TransformerEncoderLayer(4, 2, 8, batch_first=True))
    graph = dynamo_graph(net, X)
    before = state(graph)
    report = gf.annotate(graph)
    assert before == state(graph)
    by_node = costs(graph)
    assert sum(by_node.values()) == report.flops
    attention = next(n for n in graph.graph.nodes if "attention" in n.name)
    # Projections in and out, scores and their product with the values: heads do not matter.
    macs = 2 * 4 * 12 + 2 * 4 * 4 + 2 * (2 * 2 * 4)
    assert attention.meta["graphflops"].cost.macs == macs
    assert attention.meta["graphflops"].status is gf.Status.DECOMPOSED
    assert len(attention.meta["graphflops"].parts) > 5


def test_graphs_within_dynamo_graphs() -> None:
    net = model()

    def run(x: torch.Tensor) -> Any:
        return checkpoint(net, x, use_reentrant=False).sum()

    graph = dynamo_graph(run, X)
    report = gf.annotate(graph)
    values = [cost for name, cost in costs(graph).items() if name != "sum_1"]
    assert values == [LINEAR, RELU, HEAD]
    assert report.flops == sum(costs(graph).values())


def test_modules_called_in_a_row_are_told_apart() -> None:
    relu = nn.ReLU()
    graph = fx.symbolic_trace(nn.Sequential(nn.Linear(8, 8), relu, relu, nn.Linear(8, 4)))
    assert gf.annotate(graph, X).flops == sum(costs(graph).values())
    assert list(costs(graph).values()) == [LINEAR, RELU, RELU, HEAD]


def test_branches_and_loops() -> None:
    class Net(nn.Module):
        def forward(self, x: torch.Tensor, w: torch.Tensor) -> Any:
            x = torch.cond(x.sum() > 0, lambda x, w: x @ w @ w, lambda x, w: x @ w, (x, w))
            return torch.ops.aten.mm(x, w)

    program = torch.export.export(Net(), (torch.ones(4, 4), torch.ones(4, 4)))
    graph = program.graph_module
    report = gf.annotate(graph)
    macs = {
        (path, node.name): node.meta["graphflops"].cost.macs
        for path, part in graph.named_modules()
        if isinstance(part, fx.GraphModule)
        for node in part.graph.nodes
        if "graphflops" in node.meta and "m" in node.name and node.name != "sum_1"
    }
    assert sorted(macs.values()) == [0, 4**3, 4**3, 4**3]
    assert report.macs == 3 * 4**3


@pytest.mark.filterwarnings("ignore")
def test_joint_and_backward_graphs_of_aotautograd() -> None:
    with contextlib.ExitStack() as stack:
        joint: Any = aot_export_joint_with_descriptors(stack, model(), (X,)).graph_module
    assert gf.annotate(joint).flops == sum(costs(joint).values())
    graphs: list[fx.GraphModule] = []

    def compiler(graph: fx.GraphModule, _: Any) -> fx.GraphModule:
        graphs.append(graph)
        return graph

    torch._dynamo.reset()
    net = nn.Sequential(nn.Conv1d(3, 4, 3), nn.Conv1d(4, 2, 3))
    backend = aot_autograd(fw_compiler=compiler, bw_compiler=compiler)
    torch.compile(net, backend=backend)(torch.randn(1, 3, 9)).sum().backward()
    report = gf.annotate(graphs[1])
    assert report.flops == sum(costs(graphs[1]).values())
    backward = [n for n in graphs[1].graph.nodes if "convolution_backward" in n.name]
    # The last layer: gradients of 4 x 7 inputs and of the weight, 2 x 4 x 3 taps at 5 places each.
    last = backward[0].meta["graphflops"]
    assert last.cost.macs == 2 * (2 * 4 * 3 * 5)
    assert [part.cost.macs for part in last.parts] == [2 * 4 * 3 * 5] * 2


def test_the_pass() -> None:
    annotate = AnnotatePass()
    graph = make_fx(model())(X)
    result = PassManager([annotate])(graph)
    assert not result.modified
    assert annotate.report is not None
    assert annotate.report.flops == sum(costs(graph).values())


def test_what_is_no_graph_is_refused() -> None:
    model_: Any = model()
    with pytest.raises(gf.ModelSpecError, match="has no nodes to annotate"):
        gf.annotate(model_)
    with pytest.raises(gf.CaptureError, match="Give example inputs"):
        gf.annotate(fx.symbolic_trace(lambda x: torch.ops.aten.relu.default(x)))
