"""Instances of a call under ``torch.vmap``: shapes are of one, the operator runs on all."""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import fx

from graphflops.capture.fake.metadata import dim
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.capture.torch_internals.functorch_levels import functorch
from graphflops.capture.torch_internals.operators import predispatch
from graphflops.core.cost import Dim

_functorch: Any = functorch
_predispatch: Any = predispatch


def enters_or_leaves_vmap(node: fx.Node) -> bool:
    """Return True for a node that enters or leaves ``torch.vmap``, and computes nothing."""
    return bool(getattr(node.target, "__module__", "") == _predispatch.__name__)


def instances_by_node(graph: fx.Graph) -> dict[fx.Node, Dim]:
    """Return the number of instances of a node under ``torch.vmap``, where it is more than one.

    In a saved graph, only the nodes that enter and leave ``vmap`` show it.
    """
    products = _products(graph)
    return {
        node: instances
        for node in graph.nodes
        if (instances := products.get(node, 1)) != 1
        or (instances := instances_mapped(node.meta.get("val"))) != 1
    }


def _products(graph: fx.Graph) -> dict[fx.Node, Dim]:
    """Return the number of instances of the nodes between those that enter and leave ``vmap``."""
    levels: dict[fx.Node, dict[Any, Dim]] = {}
    for node in graph.nodes:
        is_entry = node.target is _predispatch._add_batch_dim
        if not levels and not is_entry:
            continue
        axes = {k: v for n in node.all_input_nodes for k, v in levels.get(n, {}).items()}
        if is_entry:
            batched, axis, level = node.args
            axes[level] = dim(batched.meta["val"].shape[axis])
        elif node.target is _predispatch._remove_batch_dim:
            axes.pop(node.args[1], None)
        levels[node] = axes
    return {node: prod(axes.values()) for node, axes in levels.items()}


def instances_mapped(value: Any) -> Dim:
    """Return the number of instances of a value under ``torch.vmap``; its shape is of one."""
    if type(value) is FakeTensor:  # functorch wraps it
        return 1
    if isinstance(value, list | tuple):
        value = next((item for item in value if isinstance(item, torch.Tensor)), None)
    batch: Dim = 1
    while isinstance(value, torch.Tensor) and _functorch.is_functorch_wrapped_tensor(value):
        inner = _functorch.get_unwrapped(value)
        if _functorch.is_batchedtensor(value):
            batch *= dim(inner.shape[_functorch.maybe_get_bdim(value)])
        value = inner
    return batch
