"""Graphs that cannot be counted as they are: a sentence that says what to do next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import Run
from torch import fx, nn
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.split_module import split_module

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


def with_call(target: Any, args: Callable[..., tuple[Any, ...]], **kwargs: Any) -> Any:
    """Return a function that builds a product with another call in its place."""

    def build() -> fx.GraphModule:
        module = product()
        (node,) = module.graph.find_nodes(op="call_function", target=ATEN.mm.default)
        node.target, node.args, node.kwargs = target, args(*node.args), kwargs
        return module

    return build


def split() -> fx.GraphModule:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    graph = torch.export.export(model, (X,)).module()
    (last,) = graph.graph.find_nodes(op="call_function", target=ATEN.relu.default)
    return split_module(graph, model, lambda node: int(node is last))


def without_input_of_a_partition() -> fx.GraphModule:
    module = split()
    (_, call) = module.graph.find_nodes(op="call_module")[-2:]
    call.args = ()
    return module


def partition_in_itself() -> fx.GraphModule:
    module = split()
    part: Any = module.submod_1
    part.again = part
    (x,) = part.graph.find_nodes(op="placeholder")
    with part.graph.inserting_after(x):
        part.graph.call_module("again", (x,))
    return module


def partitions_in_circles() -> Any:
    module: Any = split()
    first, second = module.submod_0, module.submod_1
    for part, other in ((first, second), (second, first)):
        part.other, graph = other, part.graph
        placeholders = graph.find_nodes(op="placeholder")
        with graph.inserting_before(graph.output_node()):
            graph.call_module("other", tuple(placeholders))
    return module


def branch_in_itself() -> Any:
    class Branches(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return torch.cond(x.sum() > 0, lambda x: x.relu(), lambda x: x.exp(), (x,))

    module = torch.export.export(Branches(), (X,)).graph_module
    branch: Any = module.true_graph_0
    branch.true_graph_0 = branch
    return module


REFUSED: dict[str, tuple[Callable[[], fx.GraphModule], tuple[Any, ...], str]] = {
    "no shapes": (
        lambda: fx.symbolic_trace(lambda x: ATEN.relu.default(x)),
        (),
        "missing at 1 of the graph's nodes, 'relu_default' first.*Give example inputs",
    ),
    "too few inputs": (product, (X,), "takes 2 inputs .*Give each of them, or none"),
    "inputs of other shapes": (product, (X, X), "do not go through the graph.*Give inputs of the"),
    "inputs that are no tensors": (product, ("a", 3), "do not go through the graph.*Give inputs"),
    "a module that is missing": (without_module, (X,), "node '_0' .* takes '0'.*Add it under"),
    "a module in itself": (containing_itself, (), "module 'again' is one of.*Keep a reference"),
    "a module that calls itself": (calling_itself, (X,), "module '0' is one of.*Keep a reference"),
    "a partition in itself": (partition_in_itself, (X,), "'submod_1.again' is one of the modules"),
    "partitions in circles": (partitions_in_circles, (), "'submod_0.other.other' is one of the"),
    "a branch in itself": (branch_in_itself, (), "'true_graph_0.true_graph_0' is one of"),
    "an argument is missing": (
        with_call(ATEN.mm.default, lambda x, _: (x,)),
        (),
        r"node 'mm' of the graph calls aten.mm.default without 'mat2': %mm .*\(args = \(%x_1,\)",
    ),
    "the same with inputs": (
        with_call(ATEN.mm.default, lambda x, _: (x,)),
        (X, W),
        "node 'mm' of the graph calls aten.mm.default without 'mat2'.*Correct it in the pass",
    ),
    "an argument of a packet is missing": (
        with_call(ATEN.mm, lambda x, _: (x,)),
        (),
        "node 'mm' of the graph calls aten.mm.default without 'mat2'",
    ),
    "an unknown keyword": (
        with_call(ATEN.mm.default, lambda *args: args, beta=1),
        (),
        "calls aten.mm.default with 'beta', which it does not take",
    ),
    "an argument too many": (
        with_call(ATEN.mm.default, lambda x, w: (x, w, w)),
        (),
        "calls aten.mm.default with 3 positional arguments, and it takes 2",
    ),
    "an argument twice": (
        with_call(ATEN.mm.default, lambda *args: args, self=1),
        (),
        "calls aten.mm.default with two values of 'self'",
    ),
    "a number for a tensor": (
        with_call(ATEN.mm.default, lambda x, _: (x, 3)),
        (),
        "with a value of type int as 'mat2', which must be a tensor",
    ),
    "a name for a function": (
        with_call("mm", lambda *args: args),
        (),
        "node 'mm' of the graph calls 'mm', which is no function",
    ),
    "an input of a partition is missing": (
        without_input_of_a_partition,
        (X,),
        "node 'submod_1' of the graph calls submod_1 without",
    ),
}


@COUNTS
@pytest.mark.parametrize("case", REFUSED)
def test_a_sentence_says_what_to_do(case: str, count: Callable[..., Any]) -> None:
    build, inputs, message = REFUSED[case]
    with pytest.raises(gf.GraphFlopsError, match=message):
        count(build(), inputs)


@pytest.mark.parametrize(
    ("function", "status", "text"),
    [
        ("whole", 0, "24 MACs"),
        ("missing", 2, "node 'mm' of the graph calls aten.mm.default without 'mat2'"),
        ("circular", 2, "module 'again' is one of the modules that contain it"),
    ],
)
def test_graphs_on_the_command_line(
    run: Run, tmp_path: Path, function: str, status: int, text: str
) -> None:
    file = tmp_path / "graphs.py"
    file.write_text(GRAPHS)
    returned, out, err = run("count", f"{file}:{function}")
    assert (returned, text in (err if status else out)) == (status, True)
    assert err.count("\n") == bool(status)


GRAPHS = """
import torch
from torch.fx.experimental.proxy_tensor import make_fx

def whole():
    return make_fx(torch.mm)(torch.ones(2, 3), torch.ones(3, 4))

def missing():
    module = whole()
    (node,) = module.graph.find_nodes(op="call_function", target=torch.ops.aten.mm.default)
    node.args = node.args[:1]
    return module

def circular():
    module = whole()
    module.again = module
    return module
"""


@COUNTS
def test_nothing_is_printed_when_a_graph_fails(
    count: Callable[..., Any], capfd: pytest.CaptureFixture[str]
) -> None:
    graph = fx.Graph()
    graph.output(graph.call_method("missing", (graph.placeholder("x"),)))
    module = fx.GraphModule({}, graph)
    with pytest.raises(gf.CaptureError, match="'Tensor' object has no attribute 'missing'"):
        count(module, (X,))
    assert capfd.readouterr() == ("", "")
    with pytest.raises(AttributeError):
        module(X)
    assert "HERE" in capfd.readouterr().err  # torch's own, as ever


def test_a_child_that_has_its_parent_as_a_submodule() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(3, 4)))
    model[0].add_module("parent", model)
    for count in (gf.count, gf.count_training):
        with pytest.raises(gf.ModelSpecError, match=r"module '0.parent' is one of the modules"):
            count(model, (X,))


def test_dead_nodes_count_as_they_run() -> None:
    module, dead = with_dead_node()
    for inputs in ((X,), ()):
        assert gf.annotate(module, inputs).flops == 2 * 6
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
