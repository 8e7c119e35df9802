"""Operators that a graph calls through others, under other names, or fused: the one inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calls import Call
from torch import fx, nn
from torch._dynamo.backends.common import aot_autograd
from torch._higher_order_ops.out_dtype import out_dtype
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

import graphflops as gf

aten = torch.ops.aten
LIBRARY = gf.Registry("test_wrapped")
X = torch.randn(4, 8)


@torch.library.custom_op("test_wrapped::accumulate", mutates_args={"x", "into"})
def accumulate(
    x: torch.Tensor, into: list[torch.Tensor], s: torch.Tensor, by: float
) -> torch.Tensor:
    for tensor in (x, *into):
        tensor.add_(by)
    return s.clone()


accumulate.register_fake(lambda x, into, s, by: torch.empty_like(s))  # noqa: ARG005 - by name


@LIBRARY.register("test_wrapped::accumulate")
def price(x: gf.TensorMeta, into: Any, by: float, *, out: gf.TensorMeta) -> gf.OpCost:
    """Each argument in digits of its own."""
    listed = sum(tensor.numel for tensor in into)
    return gf.OpCost(flops=int(by) * x.numel + 1_000 * listed + 1_000_000 * out.numel)


class Accumulating(nn.Module):
    def forward(self, x: torch.Tensor, s: torch.Tensor) -> Any:
        y, z = x.clone(), x.clone()
        # A slice, a whole tensor, a view by strides, a copy.
        out = accumulate(y[:3], [z, z.t()[1:3], x[0].clone()], s, 2.0)
        return y, z, out


ACCUMULATED = 2 * 3 * 8 + 1_000 * (4 * 8 + 2 * 4 + 8) + 1_000_000 * 5


def compiled(model: nn.Module, *args: torch.Tensor) -> fx.GraphModule:
    """The graph that a compiler gets of a model, functional."""
    found: list[fx.GraphModule] = []

    def keep(graph: fx.GraphModule, _: Any) -> Any:
        found.append(graph)
        return graph

    torch._dynamo.reset()
    torch.compile(model, backend=aot_autograd(fw_compiler=keep))(*args)
    return found[0]


def exported(model: nn.Module, *args: torch.Tensor) -> Any:
    return torch.export.export(model, args).run_decompositions()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("graph_of", [compiled, exported])
def test_an_operator_made_functional(graph_of: Callable[..., Any], tmp_path: Path) -> None:
    graph = graph_of(Accumulating(), X, torch.randn(5))
    report = gf.count(graph, registry=LIBRARY)
    (record,) = (r for r in report.records if r.call.op == "test_wrapped::accumulate")
    assert report.complete
    assert report.flops == ACCUMULATED
    assert record.call.writes == ("x", "into")
    assert [output.shape for output in record.call.outputs] == [(5,)]
    if graph_of is exported:
        torch.export.save(graph, tmp_path / "program.pt2")
        saved = gf.count(tmp_path / "program.pt2", registry=LIBRARY)
        assert (saved.total, saved.complete) == (report.total, True)


def test_a_product_into_another_dtype() -> None:
    a, b = torch.ones(4, 8, dtype=torch.int8), torch.ones(8, 16, dtype=torch.int8)
    graph = make_fx(lambda a, b: out_dtype(aten.mm.default, torch.int32, a, b))(a, b)
    (record,) = gf.count(graph).records
    assert (record.call.op, record.call.outputs[0].dtype) == ("aten::mm", "int32")
    assert record.cost == gf.OpCost(
        macs=4 * 8 * 16, bytes_read=4 * 8 + 8 * 16, bytes_written=4 * 4 * 16
    )


class Printing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        aten._print("here")
        return self.inner(x)  # type: ignore[no-any-return]  # torch's gap


def test_an_operator_with_an_effect() -> None:
    program = exported(Printing(), X)
    assert "with_effects" in str(program.graph)
    report = gf.count(program)
    assert report.complete
    assert [r.call.op for r in report.records] == ["aten::_print", "aten::permute", "aten::addmm"]
    assert report.macs == 4 * 8 * 4


@pytest.mark.parametrize(
    ("name", "at", "before"),
    [("run_and_save_rng_state", 0, ()), ("run_with_rng_state", 1, (torch.empty(16),))],
)
def test_an_operator_with_a_state_of_its_own(name: str, at: int, before: tuple[Any, ...]) -> None:
    wrapper = getattr(torch._prims.rng_prims, name)
    graph = fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = X
    args: list[Any] = [x, 0.5, True]
    args.insert(0, aten.native_dropout.default)
    node = graph.call_function(wrapper, (*before, *args))
    dropped = (X, X.bool())
    node.meta["val"] = dropped if before else (torch.empty(16), *dropped)
    graph.output(node)
    (record,) = gf.count(fx.GraphModule({}, graph)).records
    assert at == len(before)
    assert record.call.op == "aten::native_dropout"
    assert [output.dtype for output in record.call.outputs] == ["float32", "bool"]


class Edge:
    """An operator of another dialect, as ExecuTorch wraps those of ATen."""

    def __init__(self, op: Any) -> None:
        self._op = op
        self.__name__ = op.name()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._op(*args, **kwargs)


@pytest.mark.parametrize(
    ("mm", "add"),
    [
        (aten.mm.default, aten.add.Tensor),
        (Edge(aten.mm.default), Edge(aten.add.Tensor)),
        (aten.mm, aten.add),
    ],
)
def test_operators_under_other_names(mm: Any, add: Any) -> None:
    graph = fx.Graph()
    x, w = graph.placeholder("x"), graph.placeholder("w")
    product = graph.call_function(mm, (x, w))
    graph.output((graph.call_function(add, (product, product)), graph.call_function(add, (x, 1))))
    module = fx.GraphModule({}, graph)
    args = X, torch.randn(8, 16)
    given = gf.count(module, args)
    FakeTensorProp(module, FakeTensorMode()).propagate(*args)
    for report in (given, gf.count(module)):
        assert report.complete
        assert [(r.call.op, r.call.overload) for r in report.records] == [
            ("aten::mm", "default"),
            ("aten::add", "Tensor"),
            ("aten::add", "Tensor"),
        ]
        assert report.flops == 2 * 4 * 8 * 16 + 4 * 16 + 4 * 8
        assert report.capture.method == "graph module"


COPIES: list[Callable[[torch.Tensor], Any]] = [
    lambda x: aten.view_copy(x, [8, 4]),
    lambda x: aten.expand_copy(x, [2, 4, 8]),
    lambda x: aten.permute_copy(x, [1, 0]),
    aten.t_copy,
    aten.detach_copy,
    lambda x: aten.squeeze_copy(x, 0),
    lambda x: aten.unsqueeze_copy(x, 0),
    lambda x: aten.slice_copy(x, 0, 0, 2),
    lambda x: aten.select_copy(x, 0, 1),
    lambda x: aten.diagonal_copy(x),
    lambda x: aten.unfold_copy(x, 1, 4, 2),
    lambda x: aten.as_strided_copy(x, [2, 2], [8, 1]),
    lambda x: aten.split_copy(x, 2),
    lambda x: aten.unbind_copy(x),
]


@pytest.mark.parametrize("copy", COPIES)
def test_copies_of_views_cost_what_a_view_and_its_copy_cost(copy: Callable[..., Any]) -> None:
    graph = make_fx(copy, tracing_mode="fake")(X)
    (node,) = graph.graph.find_nodes(op="call_function", target=graph_target(graph))
    view = getattr(aten, node.target._schema.name.removeprefix("aten::").removesuffix("_copy"))

    def written_out(x: torch.Tensor) -> Any:
        result = view(x, *node.args[1:], **node.kwargs)
        return result.clone() if isinstance(result, torch.Tensor) else [r.clone() for r in result]

    expected, report = gf.count(Call(written_out), (X,)), gf.count(graph)
    assert report.complete
    assert (report.total, report.flops) == (expected.total, 0)


def graph_target(graph: fx.GraphModule) -> Any:
    """The operator with ``copy`` in its name."""
    targets = (node.target for node in graph.graph.nodes)
    return next(t for t in targets if "copy" in getattr(t, "__name__", ""))
