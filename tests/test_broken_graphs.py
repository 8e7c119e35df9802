"""Graphs that cannot be counted as they are: a sentence that says what to do next."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

import graphflops as gf

X, W = torch.ones(2, 3), torch.ones(3, 4)
ATEN: Any = torch.ops.aten
COUNTS = pytest.mark.parametrize("count", [gf.count, gf.annotate])


def product() -> fx.GraphModule:
    return make_fx(lambda x, w: x @ w)(X, W)


def with_dead_node() -> tuple[fx.GraphModule, fx.Node]:
    module = make_fx(torch.relu)(X)
    (x,) = module.graph.find_nodes(op="placeholder")
    with module.graph.inserting_after(x):
        return module, module.graph.call_function(ATEN.exp.default, (x,))


def without_module() -> fx.GraphModule:
    module = fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    delattr(module, "0")
    return module


def containing_itself() -> fx.GraphModule:
    module = make_fx(torch.relu)(X)
    module.add_module("again", module)
    return module


def calling_itself() -> fx.GraphModule:
    module = fx.symbolic_trace(nn.Sequential(nn.ReLU()))
    setattr(module, "0", module)
    return module


REFUSED: dict[str, tuple[Callable[[], fx.GraphModule], tuple[Any, ...], str]] = {
    "no shapes": (
        lambda: fx.symbolic_trace(lambda x: ATEN.relu.default(x)),
        (),
        "missing at 1 of the graph's nodes, 'relu_default' first.*Give example inputs",
    ),
    "a node of a pass without a shape": (
        lambda: with_dead_node()[0],
        (),
        "missing at 1 of the graph's nodes, 'exp_default' first.*Give example inputs",
    ),
    "too few inputs": (product, (X,), "takes 2 inputs .*Give each of them, or none"),
    "inputs of other shapes": (product, (X, X), "do not go through the graph.*Give inputs of the"),
    "inputs that are no tensors": (product, ("a", 3), "do not go through the graph.*Give inputs"),
    "a module that is missing": (without_module, (X,), "node '_0' .* takes '0'.*Add it under"),
    "a module in itself": (containing_itself, (), "module 'again' is one of.*Keep a reference"),
    "a module that calls itself": (calling_itself, (X,), "module '0' is one of.*Keep a reference"),
}


@COUNTS
@pytest.mark.parametrize("case", REFUSED)
def test_a_sentence_says_what_to_do(case: str, count: Callable[..., Any]) -> None:
    build, inputs, message = REFUSED[case]
    with pytest.raises(gf.GraphFlopsError, match=message):
        count(build(), inputs)


def test_a_child_that_has_its_parent_as_a_submodule() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4)))
    model[0].add_module("parent", model)
    for count in (gf.count, gf.count_training):
        with pytest.raises(gf.ModelSpecError, match=r"module '0.parent' is one of the modules"):
            count(model, (X,))


def test_dead_nodes_count_as_they_run() -> None:
    module, dead = with_dead_node()
    assert gf.annotate(module, (X,)).flops == 2 * 6
    dead.meta["val"] = X
    assert gf.annotate(module).flops == 2 * 6
    assert dead.meta["graphflops"].cost.flops == 6
    module.graph.eliminate_dead_code()
    assert gf.annotate(module).flops == 6


def test_operators_of_other_namespaces_are_named_as_unsupported() -> None:
    library: Any = torch.library
    lib = library.Library("graphflops_test_foreign", "DEF")
    lib.define("op(Tensor x) -> Tensor")
    lib.impl("op", lambda x: x.clone(), "CompositeExplicitAutograd")
    foreign = torch.ops.graphflops_test_foreign.op.default
    module = make_fx(lambda x: foreign(x).relu())(X)
    with pytest.warns(gf.UnknownOpWarning, match="graphflops_test_foreign::op x 1"):
        report = gf.annotate(module)
    assert (report.flops, report.complete) == (6, False)
    (node,) = module.graph.find_nodes(op="call_function", target=foreign)
    record = node.meta["graphflops"]
    assert (record.status, record.cost) == (gf.Status.UNKNOWN, None)


@COUNTS
def test_python_functions_are_looked_into(count: Callable[..., Any]) -> None:
    def triple(x: torch.Tensor) -> torch.Tensor:
        return 3 * x

    graph = fx.Graph()
    graph.output(graph.call_function(triple, (graph.placeholder("x"),)))
    assert count(fx.GraphModule({}, graph), (X,)).flops == 6
