"""Symbolic sizes in an FX graph: nodes that read them from tensors and compute with them."""

from __future__ import annotations

from typing import Any

import sympy
import torch
from torch import fx

from graphflops.capture.torch_internals.symbolic import (
    GraphAppendingTracer,
    PythonReferenceAnalysis,
    sympy_interp,
)
from graphflops.core.ir import TensorMeta
from graphflops.errors import ModelSpecError
from graphflops.graph.fx_values import FakeValues


class SizeNodes:
    """Nodes of symbolic sizes: ``sym_size`` of the first tensor with the size, arithmetic of it.

    Args:
        graph: Graph to add them to.
        values: Fake values of its nodes.
    """

    def __init__(self, graph: fx.Graph, values: FakeValues) -> None:
        self._graph, self._values = graph, values
        self._tracer = GraphAppendingTracer(graph)
        self._axes: dict[sympy.Symbol, tuple[fx.Node, int]] = {}
        self._proxies: dict[sympy.Symbol, fx.Proxy] = {}
        self._nodes: dict[sympy.Basic, fx.Node] = {}

    def add_tensor(self, node: fx.Node, meta: TensorMeta) -> None:
        """Note the sizes that can be read from a tensor."""
        for axis, size in enumerate(meta.shape):
            if isinstance(size, sympy.Symbol):
                self._axes.setdefault(size, (node, axis))

    def node(self, size: sympy.Basic) -> fx.Node:
        """Return the node of a size; it is added where it is first used.

        Raises:
            ModelSpecError: No tensor has an axis of a size that it depends on.
        """
        if size not in self._nodes:
            symbols = {symbol: self._proxy(symbol) for symbol in size.free_symbols}
            result: Any = sympy_interp(PythonReferenceAnalysis, symbols, size)
            result.node.meta["val"] = self._values.size(size)
            self._nodes[size] = result.node
        return self._nodes[size]

    def _proxy(self, symbol: sympy.Symbol) -> fx.Proxy:
        if symbol not in self._proxies:
            if symbol not in self._axes:
                msg = (
                    f"no tensor has an axis of size {symbol}, so that an FX graph cannot read it. "
                    "Name an axis of an input so in dynamic_shapes."
                )
                raise ModelSpecError(msg)
            node = self._graph.call_function(torch.ops.aten.sym_size.int, self._axes[symbol])
            node.meta["val"] = self._values.size(symbol)
            self._proxies[symbol] = fx.Proxy(node, self._tracer)
        return self._proxies[symbol]
