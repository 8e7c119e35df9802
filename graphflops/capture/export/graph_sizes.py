"""Sizes that follow from data in graphs: symbols that torch made when it traced them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy
import torch
from torch import fx
from torch.utils import _pytree as pytree
from torch.utils._sympy.symbol import SymT, symbol_is_type

from graphflops.capture.fake.data_sizes import operator_name, upper_bound
from graphflops.capture.source_lines import line_of_trace
from graphflops.core.ir import DataSize


def sizes_in_graph(module: fx.GraphModule) -> tuple[DataSize, ...]:
    """Return the sizes that follow from data in a graph and those within, in order.

    Args:
        module: A graph whose nodes carry ``meta["val"]``.
    """
    found: dict[sympy.Symbol, DataSize] = {}
    for node in _nodes(module):
        for size in _sizes(node.meta.get("val")):
            for symbol in size.node.expr.free_symbols - found.keys():
                if symbol_is_type(symbol, SymT.UNBACKED_INT):
                    found[symbol] = DataSize(
                        name=symbol.name,
                        operator=_operator(node),
                        source=line_of_trace(node.meta.get("stack_trace") or ""),
                        largest=upper_bound(size.node.shape_env, symbol),
                        count=1,
                    )
    return tuple(found.values())


def _nodes(module: fx.GraphModule) -> Iterator[fx.Node]:
    for part in module.modules():
        if isinstance(part, fx.GraphModule):
            yield from part.graph.nodes


def _sizes(value: Any) -> Iterator[Any]:
    """The symbolic sizes that a node has made: of tensors, or as numbers."""
    for leaf in pytree.tree_leaves(value):
        sizes = leaf.shape if isinstance(leaf, torch.Tensor) else (leaf,)
        yield from (size for size in sizes if isinstance(size, torch.SymInt))


def _operator(node: fx.Node) -> str:
    target = node.target
    return operator_name(target) if isinstance(target, torch._ops.OpOverload) else node.name
