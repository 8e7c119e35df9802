"""Views in a graph that was saved: of the memory they shared, shapes alone are left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch._guards import detect_fake_mode

from graphflops.capture.diagnose import first_line
from graphflops.capture.record.op_calls import is_view, shares_memory
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET

# Composites that may hand back what they were given, which their schemas do not say.
_MAY_RETURN_INPUT = {
    *("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::type_as"),
    *("aten::feature_alpha_dropout", "aten::sum_to_size", "aten::atleast_1d"),
    *("aten::atleast_2d", "aten::atleast_3d"),
}


def unseen_views(graph: fx.GraphModule) -> tuple[set[fx.Node], tuple[str, ...]]:
    """Nodes that share memory with an input although their values do not.

    A reshape is a view or a copy, by the strides of its input. Such operators are run on the
    fake tensors of the graph, each by itself; no other operator of the graph runs.

    Returns:
        The nodes, and a note if some could not be run.
    """
    failures: list[Exception] = []
    with QUIET.holding(), torch.no_grad():
        found = {node for node in _candidates(graph) if _is_view(node, failures)}
    return found, tuple(f"reshapes count as copies: {first_line(error)}" for error in failures[:1])


def _candidates(graph: fx.GraphModule) -> Iterator[fx.Node]:
    for module in graph.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            if _may_alias(node.target) and not shares_memory(node) and not _is_mapped(node):
                yield node


def _may_alias(target: object) -> bool:
    """Whether an operator returns one tensor, which may live in the memory of an argument."""
    if not isinstance(target, torch._ops.OpOverload) or len(target._schema.returns) != 1:
        return False
    (returned,) = target._schema.returns
    if returned.alias_info is not None:
        return isinstance(returned.real_type, torch.TensorType)
    return target._schema.name in _MAY_RETURN_INPUT


def _is_mapped(node: fx.Node) -> bool:
    # Tensors of torch.vmap cannot be computed with once it is over; they hold their memory.
    values = (given.meta.get("val") for given in node.all_input_nodes)
    return any(
        isinstance(value, torch.Tensor) and torch._C._functorch.is_batchedtensor(value)
        for value in values
    )


def _is_view(node: fx.Node, failures: list[Exception]) -> bool:
    target: Any = node.target
    alias = target._schema.returns[0].alias_info
    if alias is not None and alias.is_write:
        return True  # what it returns is what it wrote into
    try:
        args: Any = fx.map_arg(node.args, lambda given: given.meta["val"])
        kwargs: Any = fx.map_arg(node.kwargs, lambda given: given.meta["val"])
        with detect_fake_mode((args, kwargs)) or contextlib.nullcontext():
            result = target(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the count goes on, and says so
        raise_interruption(error)
        failures.append(error)
        return False
    return is_view(result, (given.meta.get("val") for given in node.all_input_nodes))
