"""Boundary of a layer in the autograd graph: where gradients come in, where they go out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch.autograd.graph import get_gradient_edge

from graphflops.capture.layer_reuse.kv_caches import is_cache
from graphflops.capture.record.aliasing import storage_identity
from graphflops.capture.record.gradients import Edge
from graphflops.capture.torch_internals.autograd_engine import count_references, saved_tensors
from graphflops.capture.torch_internals.dispatch import disable_current_modes
from graphflops.capture.torch_internals.trees import pytree


def is_parameter(tensor: torch.Tensor) -> bool:
    """Return True for a parameter."""
    return isinstance(tensor, torch.nn.Parameter)


def gradient_edges(tensors: Sequence[torch.Tensor]) -> list[Edge | None]:
    """Return the gradient edge of each tensor that requires a gradient."""
    edges: list[Edge | None] = [_edge_of_result(tensor) for tensor in tensors]
    leaves = [n for n, t in enumerate(tensors) if t.requires_grad and edges[n] is None]
    if leaves:
        with disable_current_modes():
            for n in leaves:
                # A view is made of a leaf; without a mode torch looks for one at the tensor, and
                # for DTensor among the classes of tensors, which imports it.
                with getattr(tensors[n], "fake_mode", nullcontext()):
                    node, number = get_gradient_edge(tensors[n])[:2]
                edges[n] = node, number
    return edges


def _edge_of_result(tensor: torch.Tensor) -> Edge | None:
    node = tensor.grad_fn
    return None if node is None else (node, tensor.output_nr)


def boundary_edges(outputs: Sequence[torch.Tensor], first_node: int) -> Iterator[Edge]:
    """Yield edges from the graph of some tensors to leaves and to nodes before ``first_node``."""
    for node in _nodes(outputs, first_node):
        for edge in node.next_functions:
            if edge[0] is not None and not _is_inside(edge[0], first_node):
                yield edge


def saved_storages(outputs: Sequence[torch.Tensor], first_node: int) -> set[int]:
    """Return identities of the storages that nodes from ``first_node`` on have saved."""
    storages: set[int] = set()
    for node in _nodes(outputs, first_node):
        saved = (tensor for tensor in saved_tensors(node) if isinstance(tensor, torch.Tensor))
        storages.update(map(storage_identity, saved))
        # A replayed layer holds what it would have saved.
        held: Any = getattr(getattr(node, "instance", None), "held", ())
        storages.update(int(storage._cdata) for storage in held)
    return storages


def references(tensors: Sequence[torch.Tensor]) -> list[tuple[int, ...]]:
    """Return how often C++, such as autograd, refers to each tensor, and to its storage."""
    return [
        count_references(tensor) if tensor.layout is torch.strided and not tensor.is_nested else ()
        for tensor in tensors
    ]


def new_tensors(outputs: Any, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the tensors among outputs that are no inputs, each once; caches are no tensors."""
    input_ids = set(map(id, inputs))
    tensors: dict[int, torch.Tensor] = {}
    for leaf in pytree.tree_leaves(outputs, is_leaf=is_cache):
        if isinstance(leaf, torch.Tensor) and id(leaf) not in input_ids:
            tensors[id(leaf)] = leaf
    return list(tensors.values())


def activation(tensor: torch.Tensor, leaf: torch.Tensor) -> torch.Tensor:
    """Let a tensor be the result of a node, which does not keep it alive as that of a leaf does.

    Args:
        tensor: Tensor without a gradient.
        leaf: Any leaf that requires a gradient.
    """
    result: torch.Tensor = _Source.apply([tensor], leaf)  # type: ignore[no-untyped-call]  # torch's gap
    return result


def seed(
    scalar: torch.Tensor, outputs: Sequence[torch.Tensor], gradients: list[torch.Tensor]
) -> torch.Tensor:
    """Let a tensor be one whose backward pass starts with given gradients of some outputs.

    The list of the gradients is emptied then: the engine alone refers to them, and lets go of
    them as in the midst of a backward pass.
    """
    result: torch.Tensor = _Seed.apply([scalar], gradients, *outputs)  # type: ignore[no-untyped-call]  # likewise
    return result


def _nodes(outputs: Sequence[torch.Tensor], first_node: int) -> Iterator[Any]:
    """Yield the nodes of a graph from ``first_node`` on."""
    pending: list[Any] = [out.grad_fn for out in outputs if out.grad_fn is not None]
    visited: set[Any] = set()
    while pending:
        node = pending.pop()
        if node in visited:
            continue
        visited.add(node)
        yield node
        targets = (target for target, _ in node.next_functions if target is not None)
        pending += (target for target in targets if _is_inside(target, first_node))


def _is_inside(node: Any, first_node: int) -> bool:
    is_leaf = getattr(node, "variable", None) is not None
    return not is_leaf and bool(node._sequence_nr() >= first_node)


class _Source(torch.autograd.Function):
    """Node whose result is an input of a layer."""

    @staticmethod
    def forward(ctx: Any, result: list[torch.Tensor], leaf: torch.Tensor) -> torch.Tensor:
        del ctx, leaf
        return result[0]


class _Seed(torch.autograd.Function):
    """Node that passes given gradients on to the outputs of a layer."""

    @staticmethod
    def forward(
        ctx: Any,
        result: list[torch.Tensor],
        gradients: list[torch.Tensor],
        *outputs: torch.Tensor,
    ) -> torch.Tensor:
        del outputs
        ctx.gradients = gradients
        return result[0]

    @staticmethod
    def backward(ctx: Any, *_: torch.Tensor | None) -> Any:
        gradients = tuple(ctx.gradients)
        ctx.gradients.clear()
        return None, None, *gradients
