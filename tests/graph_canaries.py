"""Canaries of what graphs are built with."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import sympy
import torch

from graphflops.capture.torch_internals import node_names, symbolic


def product_in_graph() -> Any:
    """The node of twice a size, as an expression of a symbol."""
    graph, size = torch.fx.Graph(), sympy.Symbol("s")
    proxy = torch.fx.Proxy(graph.placeholder("s"), symbolic.GraphAppendingTracer(graph))
    analysis = symbolic.PythonReferenceAnalysis
    return symbolic.sympy_interp(analysis, {size: proxy}, 2 * size).node


GRAPH: dict[str, Callable[[], bool]] = {
    "node_names.Namespace": lambda: (
        [node_names.Namespace().create_name(name, None) for name in ("relu", "sum", "a.b")]
        == ["relu", "sum_1", "a_b"]
    ),
    "symbolic.GraphAppendingTracer": lambda: product_in_graph().target is operator.mul,
    "symbolic.PythonReferenceAnalysis": lambda: product_in_graph().args[1].op == "placeholder",
    "symbolic.sympy_interp": lambda: len(product_in_graph().graph.nodes) == 2,
}
