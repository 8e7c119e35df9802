"""Functions as models, so that one operator at a time can be counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

import graphflops as gf


class Call(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def count(function: Callable[..., Any], *args: Any) -> gf.Report:
    """Count a function of tensors; every call in it must have a price."""
    report = gf.count(Call(function), args)
    assert not report.unsupported_ops()
    return report


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor without data."""
    return torch.empty(*shape, dtype=dtype, device="meta")


def count_call(op: Any, *args: Any, out: Any, **kwargs: Any) -> gf.Report:
    """Count one call of an operator that does not run on meta tensors: its result is given."""
    graph = fx.Graph()

    def place(tensor: torch.Tensor) -> fx.Node:
        node = graph.placeholder(f"x{len(graph.nodes)}")
        node.meta["val"] = tensor
        return node

    placed: Any = pytree.tree_map_only(torch.Tensor, place, (args, kwargs))
    node = graph.call_function(op, *placed)
    node.meta["val"] = out
    graph.output(node)
    report = gf.count(fx.GraphModule({}, graph))
    assert not report.unsupported_ops()
    return report
