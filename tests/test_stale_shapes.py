"""Metadata of graphs that does not follow from their inputs, because a pass did not update it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.export import Dim, export
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.shape_prop import ShapeProp

import graphflops as gf
from graphflops.capture.export.stale_shapes import stale_nodes

X, W = torch.ones(2, 3), torch.ones(3, 4)
ATEN: Any = torch.ops.aten
COUNTS = pytest.mark.parametrize("count", [gf.count, gf.annotate])


def on_meta(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def product() -> fx.GraphModule:
    return make_fx(lambda x, w: (x @ w).relu())(X, W)


def find(module: Any, target: Any) -> fx.Node:
    (node,) = module.graph.find_nodes(op="call_function", target=target)
    found: fx.Node = node
    return found


def with_more_rows() -> fx.GraphModule:
    module = product()
    module.graph.find_nodes(op="placeholder")[0].meta["val"] = on_meta(20, 3)
    return module


def with_a_slice() -> fx.GraphModule:
    module = product()
    node = find(module, ATEN.mm.default)
    x, w = node.args
    with module.graph.inserting_before(node):
        row = module.graph.call_function(ATEN.slice.Tensor, (x, 0, 0, 1))
    row.meta["val"] = on_meta(1, 3)
    node.args = row, w
    return module


def with_another_weight() -> Any:
    module: Any = export(nn.Linear(3, 4, bias=False), (X,)).module()
    module.weight = nn.Parameter(torch.ones(40, 3))
    return module


def without_metadata() -> fx.GraphModule:
    module = product()
    del find(module, ATEN.mm.default).meta["val"]
    return module


def after_shape_prop() -> fx.GraphModule:
    module = fx.symbolic_trace(lambda x, w: ATEN.relu.default(ATEN.mm.default(x, w)))
    ShapeProp(module).propagate(X, W)
    return module


@COUNTS
@pytest.mark.parametrize(
    ("build", "flops", "note"),
    [
        (with_more_rows, 20 * 4 * (6 + 1), r"stale: 'mm' has float32\[2, 4\] and should have"),
        (with_a_slice, 4 * (6 + 1), r"'mm' has float32\[2, 4\] and should have float32\[1, 4\]"),
        (with_another_weight, 2 * 40 * 6, r"'weight' has float32\[4, 3\] and should have"),
        (without_metadata, 8 * (6 + 1), r"missing at 1 of the graph's nodes, 'mm' first"),
        (after_shape_prop, 8 * (6 + 1), r"missing at 2 of the graph's nodes, 'mm_default' first"),
    ],
)
def test_shapes_are_propagated_from_the_placeholders(
    build: Callable[[], fx.GraphModule], flops: int, note: str, count: Callable[..., gf.Report]
) -> None:
    module = build()
    before = [(node, dict(node.meta)) for node in module.graph.nodes]
    report = count(module)
    assert report.flops == flops
    (said,) = report.capture.notes
    assert re.search(note, said)
    assert said.endswith("The shapes are propagated from those of the placeholders.")
    for node, meta in before:
        assert {key: node.meta[key] for key in meta} == meta


def test_dtypes_too() -> None:
    module = product()
    for node in module.graph.find_nodes(op="placeholder"):
        node.meta["val"] = node.meta["val"].to(torch.bfloat16)
    report = gf.count(module)
    assert "'mm' has float32[2, 4] and should have bfloat16[2, 4]" in report.capture.notes[0]
    assert report.bytes_read == 2 * (6 + 12 + 8)
    with torch.autocast("cpu"):  # casts, and a dtype tells nothing
        assert stale_nodes(product().graph) == []


def test_exported_programs() -> None:
    program = export(nn.Linear(3, 4), (X,))
    x = program.graph.find_nodes(op="placeholder")[-1]
    x.meta["val"] = on_meta(20, 3)
    report = gf.count(program)
    assert report.flops == 20 * 4 * (6 + 1)
    assert "'linear' has float32[2, 4]" in report.capture.notes[0]
    assert report.by_module()[""].flops == report.flops


def test_symbolic_graphs_count_as_they_stand() -> None:
    program = export(nn.Linear(3, 4), (X,), dynamic_shapes=({0: Dim("batch")},))
    module: Any = program.module()
    assert gf.count(module).capture.notes == ()
    find(module, ATEN.linear.default).meta["val"] = on_meta(7, 4)
    report = gf.count(module)
    assert report.flops == 7 * 4 * (6 + 1)
    (note,) = report.capture.notes
    assert "has float32[7, 4] and should have float32[2, 4]. It counts as it stands" in note


@COUNTS
def test_a_node_that_does_not_run_is_named(count: Callable[..., gf.Report]) -> None:
    module = product()
    node = find(module, ATEN.mm.default)
    node.args = (node.args[0], node.args[0])
    (note,) = count(module).capture.notes
    assert "'mm' does not run on its arguments (RuntimeError: a and b must have" in note
    with pytest.raises(gf.CaptureError, match="do not go through the graph: node 'mm' fails"):
        count(module, (X, W))


class Branches(nn.Module):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda x: x.relu().exp(), lambda x: x.exp(), (x,))


def branches() -> Any:
    return export(Branches(), (X,)).graph_module


# Of 6 elements: 5 additions, a comparison, relu and exp.
TAKEN = 5 + 1 + 6 + 6


@COUNTS
@pytest.mark.parametrize("value", [None, on_meta(9)])
def test_branches(value: torch.Tensor | None, count: Callable[..., gf.Report]) -> None:
    module = branches()
    relu = find(module.true_graph_0, ATEN.relu.default)
    if value is None:
        del relu.meta["val"]
    else:
        relu.meta["val"] = value
    report = count(module)
    assert report.flops == TAKEN
    assert "'relu'" in report.capture.notes[0]
    assert relu.meta.get("val") is value


@COUNTS
def test_branches_get_the_shapes_that_they_are_given(count: Callable[..., gf.Report]) -> None:
    module = branches()
    (x,) = module.graph.find_nodes(op="placeholder")
    x.meta["val"] = on_meta(5, 3)
    report = count(module)
    assert report.flops == 14 + 1 + 15 + 15
    assert report.capture.outputs[0].shape == (5, 3)
    assert "of true_graph_0 has float32[2, 3]" in report.capture.notes[0]


def test_metadata_that_operators_change_in_place() -> None:
    def change(x: torch.Tensor) -> torch.Tensor:
        y = x.clone()
        y.t_()
        y.squeeze_(0)
        return y.add_(1)

    module = make_fx(change, tracing_mode="fake")(torch.ones(3, 1))
    assert stale_nodes(module.graph) == []
    assert gf.count(module).capture.notes == ()


@torch.library.custom_op("test_stale::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return torch.cat([x, x])


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return x.new_empty(2 * x.shape[0], *x.shape[1:])


def test_operators_of_libraries() -> None:
    module = make_fx(lambda x: torch.ops.test_stale.twice(x).relu())(X)
    assert stale_nodes(module.graph) == []
    module.graph.find_nodes(op="placeholder")[0].meta["val"] = on_meta(5, 3)
    assert len(stale_nodes(module.graph)) == 1
    assert gf.count(module, on_unknown="ignore").flops == 10 * 3


def test_operators_that_make_tensors_and_sizes_that_only_data_gives() -> None:
    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            rows = torch.arange(2, device="cpu").unsqueeze(1)
            size = x.nonzero().shape[0]
            return x + rows, torch.zeros(size), torch.split(x.new_zeros(3, device="cpu"), [1, 2])

    module = export(Model(), (X,)).graph_module
    assert stale_nodes(module.graph) == []
