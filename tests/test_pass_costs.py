"""The cost of graphs before and after Inductor's passes."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch._inductor import config as inductor_config

import graphflops as gf
from graphflops.compiler import log_passes, pass_costs

X = torch.randn(2, 8)
MACS = 2 * 8 * 8


def compile_and_run(model: Any, *args: torch.Tensor) -> Any:
    torch._dynamo.reset()
    compiled: Any = torch.compile(model)
    return compiled(*args)


def remove_relu(graph: fx.Graph) -> None:
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.relu.default):
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)


def test_a_pass_of_ones_own_is_seen(caplog: pytest.LogCaptureFixture) -> None:
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU())
    caplog.set_level(logging.INFO, "graphflops.compiler")
    options = {"post_grad_custom_pre_pass": remove_relu}
    with inductor_config.patch(options):
        # Twice: Inductor's cache would hide the second from the passes.
        for _ in range(2):
            with torch.no_grad(), log_passes() as log:
                output = compile_and_run(net, X)
            torch.testing.assert_close(output, net[0](X))
            ((before, after),) = [(cost.before, cost.after) for cost in log.costs]
            assert before is not None
            assert after is not None
            assert (before.flops, after.flops) == (2 * MACS + 16, 2 * MACS)
        assert inductor_config.post_grad_custom_pre_pass is remove_relu
    assert inductor_config.post_grad_custom_post_pass is None
    lines = [r.getMessage() for r in caplog.records if r.name == "graphflops.compiler"]
    assert len(lines) == 2
    assert "272 FLOPs" in lines[0].partition(" before")[0]
    assert "256 FLOPs" in lines[0].partition(" before")[2]


def test_forward_and_backward_graph() -> None:
    with log_passes() as log:
        compile_and_run(nn.Linear(8, 8), X).sum().backward()
    assert [cost.after.macs for cost in log.costs if cost.after] == [MACS, MACS]


def test_a_graph_that_cannot_be_counted_is_compiled_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise gf.CaptureError("no number")

    monkeypatch.setattr(pass_costs, "count", fail)
    with torch.no_grad(), log_passes() as log:
        compile_and_run(nn.Linear(8, 8), X)
    (cost,) = log.costs
    assert (cost.before, cost.after) == (None, None)
    assert "could not be counted before" in str(cost)
    assert "A graph could not be counted: CaptureError: no number" in caplog.text
