"""Graphs that are counted for inputs that are given with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

import graphflops as gf
from graphflops.errors import CaptureError

SMALL, LARGE = torch.randn(4, 16), torch.randn(64, 16)
DYNAMIC = ({0: torch.export.Dim("batch", max=100)},)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 8))


def macs(rows: int) -> int:
    return rows * (16 * 16 + 16 * 8)


def traced(subject: nn.Module) -> Any:
    return make_fx(lambda x: subject(x), tracing_mode="real")(SMALL)


FORMS: dict[str, Callable[[Any], Any]] = {
    "program": lambda m: torch.export.export(m, (SMALL,), dynamic_shapes=DYNAMIC),
    "its module": lambda m: torch.export.export(m, (SMALL,), dynamic_shapes=DYNAMIC).module(),
    "make_fx": traced,
}


@pytest.mark.parametrize("form", FORMS)
def test_counted_for_the_inputs_that_are_given(form: str) -> None:
    graph = FORMS[form](model())
    nodes = (graph if isinstance(graph, fx.GraphModule) else graph.graph_module).graph.nodes
    before = [(node, dict(node.meta)) for node in nodes]
    assert gf.count(graph, (LARGE,)).macs == macs(64)
    assert gf.count(graph, (SMALL,)).macs == macs(4)
    assert gf.count(graph, (LARGE.to("meta"),)).macs == macs(64)
    assert [(node, dict(node.meta)) for node in nodes] == before


@pytest.mark.parametrize("form", ["program", "module"])
@pytest.mark.parametrize(
    ("dynamic", "x", "wrong"),
    [
        (None, LARGE, r"size\(\)\[0\] == 4"),
        (DYNAMIC, torch.randn(200, 16), r"size\(\)\[0\] <= 100"),
        (DYNAMIC, torch.randn(4, 3), r"size\(\)\[1\] == 16"),
    ],
)
def test_inputs_that_a_program_does_not_take_are_refused(
    form: str, dynamic: Any, x: torch.Tensor, wrong: str
) -> None:
    program = torch.export.export(model(), (SMALL,), dynamic_shapes=dynamic)
    graph = program if form == "program" else program.module()
    with pytest.raises(CaptureError, match=wrong):
        gf.count(graph, (x,))


@pytest.mark.parametrize(
    ("args", "kwargs", "wrong"),
    [
        ((SMALL, SMALL), {}, "takes 1 inputs .* and 2 that do not fit"),
        ((), {"other": SMALL}, "that do not fit were given"),
        ((torch.randn(4, 3),), {}, "do not go through the graph"),
    ],
)
def test_inputs_that_a_graph_does_not_take_are_refused(args: Any, kwargs: Any, wrong: str) -> None:
    with pytest.raises(CaptureError, match=wrong):
        gf.count(traced(model()), args, kwargs)


def test_a_file_is_not_counted_for_other_inputs(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    torch.export.save(torch.export.export(model(), (SMALL,)), path)
    assert gf.count(path).macs == gf.count(path, (SMALL,)).macs == macs(4)
    with pytest.raises(CaptureError, match=r"inputs of its own \(\w+ float32\[4, 16\]\)"):
        gf.count(path, (LARGE,))


def test_shapes_that_a_pass_has_left_stale() -> None:
    graph = traced(model())
    first = graph.graph.find_nodes(op="placeholder")[0]
    with graph.graph.inserting_after(first):
        half = graph.graph.call_function(torch.ops.aten.slice.Tensor, (first, 0, 0, 2))
    first.replace_all_uses_with(half, delete_user_cb=lambda node: node is not half)
    half.meta["val"] = first.meta["val"][:2]
    assert gf.count(graph, (SMALL,)).macs == macs(2)


class Masked(nn.Module):
    """Takes inputs by name, and checks one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleDict({"a": nn.Linear(16, 8)})
        self.inner["a"].register_buffer("scale", torch.ones(8))

    def forward(self, x: torch.Tensor, *, scale: torch.Tensor) -> Any:
        torch._check(x.shape[0] > 1)  # type: ignore[no-untyped-call]  # torch's gap
        return self.inner["a"](x) * self.inner["a"].scale * scale


def test_loaded_programs_with_names_in_names(tmp_path: Path) -> None:
    inputs = {"scale": torch.ones(())}
    program = torch.export.export(Masked(), (SMALL,), inputs)
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = torch.export.load(tmp_path / "program.pt2")
    expected = gf.count(Masked(), (SMALL,), inputs)
    for graph in (program, program.module(), loaded, loaded.module()):
        for given in ((), (SMALL,)):
            report = gf.count(graph, given, inputs if given else None)
            assert (report.macs, report.flops) == (expected.macs, expected.flops)


@torch.library.custom_op("test_propagation::several", mutates_args=())
def several(x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return x.clone(), [x.clone() for _ in range(4)]


@several.register_fake
def _(x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    return torch.empty_like(x), [torch.empty_like(x) for _ in range(4)]


class Several(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.ops.test_propagation.several(x)


def test_an_operator_may_return_a_list_among_others() -> None:
    x = torch.randn(4, 8)
    program = torch.export.export(Several(), (x,))
    for report in (
        gf.count(Several(), (x,), on_unknown="ignore"),
        gf.count(program, on_unknown="ignore"),
        gf.count(program.graph_module, on_unknown="ignore"),
    ):
        (record,) = report.records
        assert sum(output.nbytes for output in record.call.outputs) == 5 * 4 * 8 * 4


class Scaled(nn.Module):
    """A layer under autocast, whose calls export moves into a graph of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            scale = x.sum()
        out: torch.Tensor = self.linear(x) * scale
        return out


def test_a_node_that_a_pass_adds_beside_a_subgraph_gets_its_shape_from_the_inputs() -> None:
    x = torch.randn(2, 8)
    graph = torch.export.export(Scaled().eval(), (x,)).module()
    assert any(isinstance(part, torch.fx.GraphModule) for part in graph.children())
    linear = next(
        node for node in graph.graph.nodes if node.target == torch.ops.aten.linear.default
    )
    with graph.graph.inserting_after(linear):
        added = graph.graph.call_function(torch.ops.aten.relu.default, (linear,))
    linear.replace_all_uses_with(added, delete_user_cb=lambda user: user is not added)
    for inputs in ((), (x,)):
        report = gf.count(graph, inputs)
        assert report.macs == 2 * 8 * 4
        (relu,) = [record for record in report.records if record.call.op == "aten::relu"]
        assert relu.cost is not None
        assert relu.cost.flops == 2 * 4
    assert "val" not in added.meta
    with pytest.raises(CaptureError, match=r"not\s+those that it was traced with"):
        gf.count(graph, (torch.randn(3, 8),))
