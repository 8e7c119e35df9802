"""What a graph can answer: critical path, width, waste, by hand and against definitions."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import graphflops as gf
from graphflops.core.cost import OpCost
from graphflops.core.ir import Capture, OpCall, OpRecord, Status, TensorMeta
from graphflops.errors import UnboundSymbolError
from graphflops.graph.operator_graph import OperatorGraph

X = torch.ones(3, 3)


class Function(nn.Module):
    """A function of a parameter and an input, as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(3, 3))

    def forward(self, x: torch.Tensor) -> Any:
        return self.function(x, self.weight)


def graph(function: Callable[..., Any]) -> OperatorGraph:
    return gf.count(Function(function), (X,)).graph


def names(records: Any) -> list[str]:
    return [record.call.name for record in records]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[OperatorGraph, list[list[int]], list[int]]:
    """A graph of calls, the calls that each needs, and their FLOPs."""
    size = draw(st.integers(1, 7))
    needs = [draw(st.lists(st.integers(0, n - 1), max_size=3)) if n else [] for n in range(size)]
    flops = [draw(st.integers(0, 9)) for _ in range(size)]
    tensors = [TensorMeta((1,), name=f"t{n}") for n in range(size)]
    records = [
        OpRecord(
            call=OpCall(
                op="aten::cat",
                inputs={"tensors": tuple(tensors[m] for m in needs[n])},
                outputs=(tensors[n],),
                name=f"n{n}",
                index=n,
            ),
            status=Status.COUNTED,
            cost=OpCost(flops=flops[n]),
        )
        for n in range(size)
    ]
    capture = Capture(calls=(), modules=(), method="")
    return OperatorGraph(records=records, capture=capture), needs, flops


@settings(deadline=None)
@given(graphs())
def test_no_chain_is_longer(drawn: tuple[OperatorGraph, list[list[int]], list[int]]) -> None:
    made, needs, flops = drawn

    def chains(end: int) -> list[list[int]]:
        return [[end], *([*chain, end] for before in needs[end] for chain in chains(before))]

    longest = max(sum(flops[n] for n in chain) for n in range(len(flops)) for chain in chains(n))
    path = made.critical_path()
    found = [record.call.index for record in path.records]
    assert all(a in needs[b] for a, b in itertools.pairwise(found))
    assert (path.length, path.total) == (longest, sum(flops))
    assert path.length == sum(flops[n] for n in found)


@settings(deadline=None)
@given(graphs())
def test_a_depth_needs_nothing_of_itself(
    drawn: tuple[OperatorGraph, list[list[int]], list[int]],
) -> None:
    made, needs, flops = drawn
    levels = [[r.call.index for r in level.records] for level in made.generations()]
    depth = {n: number for number, level in enumerate(levels) for n in level}
    assert sorted(depth) == list(range(len(flops)))
    assert all(depth[n] == max((depth[m] + 1 for m in needs[n]), default=0) for n in depth)
    assert sum(level.weight for level in made.generations()) == sum(flops)


def test_by_bytes_another_path_may_be_longer() -> None:
    made = graph(lambda x, w: (x @ w).sum() + x.exp().exp().exp().sum())
    assert "matmul" in names(made.critical_path().records)
    assert "matmul" not in names(made.critical_path(by="bytes").records)


def test_a_path_needs_numbers() -> None:
    report = gf.count(nn.Linear(3, 3), (X,), dynamic_shapes={"input": {0: "B"}})
    with pytest.raises(UnboundSymbolError, match="the cost of linear is 21\\*B: a path needs"):
        report.graph.critical_path()


def unlike_through_a_write(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    first = y.exp()
    y.add_(1)
    return first + y.exp()


def through_views(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return x.view(9).exp() + x.view(9).exp()


def of_other_arguments(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return x.sum(0) + x.sum(1)


@pytest.mark.parametrize(
    ("function", "repeated"),
    [
        (lambda x, _: x.exp().sin() + x.exp().sin(), [("exp_1", "exp"), ("sin_1", "sin")]),
        (through_views, [("exp_1", "exp")]),
        (unlike_through_a_write, []),
        (of_other_arguments, []),
        (lambda x, _: torch.rand_like(x) + torch.rand_like(x), []),
        (lambda x, _: nn.functional.dropout(x) + nn.functional.dropout(x), []),
    ],
)
def test_computed_twice(function: Callable[..., Any], repeated: list[tuple[str, str]]) -> None:
    found = graph(function).waste().repeated
    assert [(a.call.name, b.call.name) for a, b in found] == repeated


def write_to_the_input(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    x.copy_(x.exp())
    return x.sin()


def write_to_what_is_dropped(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    x.exp().add_(1)
    return x.sin()


def write_to_a_view_of_the_output(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    y = x.sin()
    y[0].add_(1)
    return y


@pytest.mark.parametrize(
    ("function", "unused"),
    [
        (lambda x, w: ((x @ w).exp(), x.sin())[1], ["matmul", "exp"]),
        (lambda x, _: x.max(0)[1], []),
        (write_to_the_input, []),
        (write_to_what_is_dropped, ["exp", "add_"]),
        (write_to_a_view_of_the_output, []),
    ],
)
def test_never_used(function: Callable[..., Any], unused: list[str]) -> None:
    assert names(graph(function).waste().unused) == unused


@pytest.mark.parametrize(
    ("function", "constant"),
    [
        (lambda x, w: x @ (w @ w).T, ["matmul"]),
        (lambda x, _: x + torch.arange(3).exp(), ["arange", "exp"]),
        (lambda x, w: x @ w.add(x), []),
        (lambda x, w: x * torch.rand_like(w), []),
    ],
)
def test_the_same_for_every_input(function: Callable[..., Any], constant: list[str]) -> None:
    assert names(graph(function).waste().constant) == constant
