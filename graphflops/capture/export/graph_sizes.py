"""Data-dependent sizes in graphs: the unbacked symbols that torch created while tracing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy
import torch
from torch import fx

from graphflops.capture.fake.data_sizes import operator_name, upper_bound
from graphflops.capture.source_lines import line_of_trace
from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.capture.torch_internals.symbolic import SymT, symbol_is_type
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.ir import DataSize


def sizes_in_graph(module: fx.GraphModule) -> tuple[DataSize, ...]:
    """Return the data-dependent sizes of a graph and its subgraphs, in order.

    Args:
        module: Graph whose nodes have ``meta["val"]``.
    """
    sizes: dict[sympy.Symbol, DataSize] = {}
    for node in _nodes(module):
        for size in _symbolic_sizes(node.meta.get("val")):
            for symbol in size.node.expr.free_symbols - sizes.keys():
                if symbol_is_type(symbol, SymT.UNBACKED_INT):
                    sizes[symbol] = DataSize(
                        name=symbol.name,
                        operator=_operator(node),
                        source=line_of_trace(node.meta.get("stack_trace") or ""),
                        largest=upper_bound(size.node.shape_env, symbol),
                        count=1,
                    )
    return tuple(sizes.values())


def _nodes(module: fx.GraphModule) -> Iterator[fx.Node]:
    for submodule in module.modules():
        if isinstance(submodule, fx.GraphModule):
            yield from submodule.graph.nodes


def _symbolic_sizes(value: Any) -> Iterator[Any]:
    """Yield the symbolic sizes in the value of a node: sizes of tensors, and numbers."""
    for leaf in (value,) if isinstance(value, torch.Tensor) else pytree.tree_leaves(value):
        sizes = leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,)
        yield from (size for size in sizes if isinstance(size, torch.SymInt))


def _operator(node: fx.Node) -> str:
    target = node.target
    return operator_name(target) if isinstance(target, OpOverload) else node.name
