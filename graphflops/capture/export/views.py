"""Views in exported graphs, whose values have shapes but no shared storage."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from graphflops.capture.diagnose import first_line
from graphflops.capture.record.aliasing import is_view, shares_memory
from graphflops.capture.torch_internals.fake_mode import detect_fake_mode
from graphflops.capture.torch_internals.functorch_levels import functorch
from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET

# Composite operators that may return their input, which their schemas do not declare.
_MAY_RETURN_INPUT = {
    *("aten::dropout", "aten::feature_dropout", "aten::alpha_dropout", "aten::type_as"),
    *("aten::feature_alpha_dropout", "aten::sum_to_size", "aten::atleast_1d"),
    *("aten::atleast_2d", "aten::atleast_3d"),
}


def reshape_views(graph: fx.GraphModule) -> tuple[set[fx.Node], tuple[str, ...]]:
    """Return nodes that share storage with an input although their recorded values do not.

    A reshape is a view or a copy, depending on the strides of its input. Such operators are run
    on the fake tensors of the graph, one by one; no other operator of the graph runs.

    Returns:
        The nodes, and a note if some could not be run.
    """
    failures: list[Exception] = []
    with QUIET.holding(), torch.no_grad():
        views = {node for node in _candidates(graph) if _is_view(node, failures)}
    return views, tuple(f"reshapes count as copies: {first_line(error)}" for error in failures[:1])


def _candidates(graph: fx.GraphModule) -> Iterator[fx.Node]:
    for module in graph.modules():
        for node in module.graph.nodes if isinstance(module, fx.GraphModule) else ():
            if _may_alias(node.target) and not shares_memory(node) and not _is_batched(node):
                yield node


def _may_alias(target: object) -> bool:
    """Return True if an operator returns one tensor, which may alias an argument."""
    if not isinstance(target, OpOverload) or len(target._schema.returns) != 1:
        return False
    (output,) = target._schema.returns
    if output.alias_info is not None:
        return isinstance(output.real_type, torch.TensorType)
    return target._schema.name in _MAY_RETURN_INPUT


def _is_batched(node: fx.Node) -> bool:
    # Operators fail on batched tensors of torch.vmap after it has returned; these keep their
    # storage.
    values = (arg.meta.get("val") for arg in node.all_input_nodes)
    return any(
        isinstance(value, torch.Tensor) and functorch.is_batchedtensor(value) for value in values
    )


def _is_view(node: fx.Node, failures: list[Exception]) -> bool:
    target: Any = node.target
    alias = target._schema.returns[0].alias_info
    if alias is not None and alias.is_write:
        return True  # the output is the argument that it wrote to
    try:
        args: Any = fx.map_arg(node.args, lambda arg: arg.meta["val"])
        kwargs: Any = fx.map_arg(node.kwargs, lambda arg: arg.meta["val"])
        with detect_fake_mode((args, kwargs)) or contextlib.nullcontext():
            result = target(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the count goes on, with a note
        raise_interruption(error)
        failures.append(error)
        return False
    return is_view(result, (arg.meta.get("val") for arg in node.all_input_nodes))
