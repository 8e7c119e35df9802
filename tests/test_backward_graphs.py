"""Graphs of a compiler's backward pass: phases and paths stand in their metadata."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch import config as functorch_config
from torch._functorch.aot_autograd import aot_export_joint_with_descriptors, aot_export_module
from torch._functorch.partitioners import min_cut_rematerialization_partition
from torch._inductor import config
from torch.export.experimental import _export_forward_backward

import graphflops as gf
from graphflops.core.ir import Phase

X = torch.randn(2, 8)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.fixture(scope="module")
def graphs() -> dict[str, fx.GraphModule]:
    """The forward and the backward graph of a compiled model."""
    found: dict[str, fx.GraphModule] = {}

    def keep(name: str) -> Any:
        def compiler(graph: fx.GraphModule, _: Any) -> Any:
            found[name] = graph
            return graph

        return compiler

    torch._dynamo.reset()
    backend = aot_autograd(fw_compiler=keep("forward"), bw_compiler=keep("backward"))
    torch.compile(model(), backend=backend)(X).sum().backward()
    return found


@pytest.mark.filterwarnings("ignore")
def test_calls_have_their_phase_and_path(graphs: dict[str, fx.GraphModule]) -> None:
    forward, backward = (gf.count(graphs[name]) for name in ("forward", "backward"))
    assert {record.call.phase for record in forward.records} == {Phase.FORWARD}
    assert {record.call.phase for record in backward.records} == {Phase.BACKWARD}
    assert {m: n.macs for m, n in forward.by_module().items() if n.macs and m} == {
        "0": 2 * 8 * 8,
        "2": 2 * 8 * 4,
    }
    # The gradients of both weights, and of what the second layer gets.
    assert {m: n.macs for m, n in backward.by_module().items() if n.macs and m} == {
        "0": 2 * 8 * 8,
        "2": 2 * 2 * 8 * 4,
    }


@pytest.mark.filterwarnings("ignore")
def test_no_backward_is_guessed_of_a_backward(graphs: dict[str, fx.GraphModule]) -> None:
    assert "(estimate: 2 x forward)" in str(gf.count(graphs["forward"]))
    text = str(gf.count(graphs["backward"]))
    assert "estimate" not in text
    assert "backward, exact convention" in text


@pytest.mark.filterwarnings("ignore")
def test_what_a_backward_graph_recomputes_has_a_phase_of_its_own() -> None:
    found: list[fx.GraphModule] = []

    def compiler(graph: fx.GraphModule, _: Any) -> Any:
        found.append(graph)
        return graph

    def net(x: torch.Tensor, w: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return ((x @ w).sin() @ v).cos()

    torch._dynamo.reset()
    tensors = [torch.randn(8, 8, requires_grad=True) for _ in range(3)]
    backend = aot_autograd(
        fw_compiler=compiler,
        bw_compiler=compiler,
        partition_fn=min_cut_rematerialization_partition,
    )
    with functorch_config.patch(activation_memory_budget=0):
        compiled: Any = torch.compile(net, backend=backend)
        compiled(*tensors).sum().backward()
    forward, backward = map(gf.count, found)
    assert forward.macs == 2 * 8**3
    assert backward.phase is Phase.BACKWARD
    macs = dict.fromkeys((Phase.BACKWARD, Phase.RECOMPUTE), 0)
    for record in backward.records:
        assert record.cost is not None
        macs[record.call.phase] += record.cost.macs
    # With no memory for activations, both products are computed again.
    assert macs == {Phase.BACKWARD: 4 * 8**3, Phase.RECOMPUTE: 2 * 8**3}


@pytest.mark.filterwarnings("ignore")
def test_a_joint_graph_has_both() -> None:
    found: list[fx.Graph] = []

    def keep(graph: fx.Graph) -> None:
        found.append(graph)
        raise NotImplementedError("that is all that is wanted")

    torch._dynamo.reset()
    with (
        config.patch(joint_custom_pre_pass=keep),
        pytest.raises(torch._dynamo.exc.BackendCompilerFailed, match="all that is wanted"),
    ):
        torch.compile(model())(X)
    report = gf.count(fx.GraphModule(nn.Module(), found[0]))
    macs = dict.fromkeys((Phase.FORWARD, Phase.BACKWARD), 0)
    for record in report.records:
        assert record.cost is not None
        macs[record.call.phase] += record.cost.macs
    assert macs == {Phase.FORWARD: 2 * 8 * (8 + 4), Phase.BACKWARD: 2 * 8 * (8 + 4 + 4)}
    assert "estimate" not in str(report)


class Loss(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = model()

    def forward(self, x: torch.Tensor) -> Any:
        return (self.model(x).sum(),)


def macs_of(report: gf.Report) -> dict[Phase, int]:
    macs: dict[Phase, Any] = dict.fromkeys((Phase.FORWARD, Phase.BACKWARD), 0)
    for record in report.records:
        assert record.cost is not None
        macs[record.call.phase] += record.cost.macs
    return macs


FORWARD, BACKWARD = 2 * 8 * (8 + 4), 2 * 8 * (8 + 4 + 4)


@pytest.mark.filterwarnings("ignore")
def test_a_joint_graph_of_which_only_inputs_tell() -> None:
    with contextlib.ExitStack() as stack:
        joint = aot_export_joint_with_descriptors(stack, model(), (X,)).graph_module
    for node in joint.graph.nodes:
        node.meta = {"val": node.meta["val"]} if "val" in node.meta else {}
    report = gf.count(joint)
    assert macs_of(report) == {Phase.FORWARD: FORWARD, Phase.BACKWARD: BACKWARD}
    assert not report.capture.notes


@pytest.mark.filterwarnings("ignore")
def test_a_joint_program_says_which_outputs_are_gradients() -> None:
    program = _export_forward_backward(torch.export.export(Loss(), (X,), strict=True))
    report = gf.count(program)
    assert macs_of(report) == {Phase.FORWARD: FORWARD, Phase.BACKWARD: BACKWARD}
    assert "estimate" not in str(report)


@pytest.mark.filterwarnings("ignore")
def test_a_joint_graph_that_does_not_tell_is_noted() -> None:
    graph, _ = aot_export_module(Loss(), (X,), trace_joint=True, output_loss_index=0)
    report = gf.count(graph)
    assert macs_of(report) == {Phase.FORWARD: FORWARD + BACKWARD, Phase.BACKWARD: 0}
    (note,) = report.capture.notes
    assert "aten::threshold_backward" in note
    assert "all of it counts as forward" in note
