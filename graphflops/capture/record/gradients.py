"""Purpose of backward calls: the module they belong to, and whether for gradients of weights."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import torch

from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.record.autograd_attribution import AutogradAttribution
from graphflops.capture.record.module_stack import CallSite
from graphflops.capture.record.tape import Item
from graphflops.capture.record.tensor_records import TensorRecord, TensorRecords
from graphflops.capture.torch_internals.autograd_engine import current_node
from graphflops.core.call_sequence import Repeat
from graphflops.core.ir import Phase
from graphflops.errors import CaptureError

Edge: TypeAlias = tuple[Any, int]
"""Autograd edge: a node, and the number of one of its outputs."""


class Purpose(NamedTuple):
    """Purpose of an operator call.

    Attributes:
        call_site: The module that makes the call, or whose forward caused it.
        phase: Phase of the call.
        computation: Computation that a backward call is part of: that of a node, or the sum of the
            gradients of an edge.
        is_weight_sum: True if it sums gradients of weights.
        needs_input_grad: For each input of the forward of a backward call, True if it needs a
            gradient.
    """

    call_site: CallSite
    phase: Phase
    computation: object = None
    is_weight_sum: bool = False
    needs_input_grad: tuple[bool, ...] = ()


class GradientTracker:
    """Tracker of the current autograd node, and of the gradients that nodes pass on.

    Autograd sums the gradients of a value with several users. Such a sum belongs to no node: its
    module is the lowest one that contains all users, for a weight the one that holds it.

    Attributes:
        deliveries: Records of the gradients, with True for one that was passed on only as that of
            a weight, or of a value computed from weights alone.
        tensors: Records of the tensors on the tape.
        current_node: The autograd node that runs, or ran last.
        leaves: Tensors that get a gradient in the end.
    """

    def __init__(self, attribution: AutogradAttribution) -> None:
        self.deliveries: dict[TensorRecord, bool] = {}
        self.tensors = TensorRecords()
        self.current_node: Any = None
        self.leaves: list[torch.Tensor] = []
        self._attribution = attribution
        self._users: defaultdict[Edge, list[Any]] = defaultdict(list)
        self._edges_with_gradient: set[Edge] = set()
        self._visited: set[Any] = set()
        self._last_node: Any = None
        self._outer_node: Any = None
        self._pending_sums: deque[Edge] = deque()

    def hook_nodes(self, results: Any, until: Iterable[Any] = ()) -> None:
        """Hook the nodes behind some tensors: their start, and the gradients they pass on.

        Args:
            results: The tensors.
            until: Nodes that are not to be hooked.

        Raises:
            CaptureError: A node is of an operator without a derivative.
        """
        self._visited.update(until)
        tensors = tensors_in(results)
        pending: list[Any] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
        while pending:
            node = pending.pop()
            if node in self._visited:
                continue
            self._visited.add(node)
            if node.name().endswith("NotImplemented"):
                raise CaptureError(_no_derivative(self._attribution.call_site_of_node(node)))
            if (leaf := getattr(node, "variable", None)) is not None:
                self.leaves.append(leaf)  # it passes nothing on
                continue
            edges = node.next_functions
            node.register_prehook(self._start_hook(node))
            node.register_hook(self._end_hook(node, edges))
            for edge in edges:
                if edge[0] is not None:
                    self._users[edge].append(node)
                    pending.append(edge[0])

    @contextmanager
    def nested_backward(self) -> Iterator[None]:
        """Run a backward pass within a node of another one, with edges of its own."""
        outer = (
            self._edges_with_gradient,
            self._last_node,
            self._pending_sums,
            self.current_node,
            self._outer_node,
        )
        self._edges_with_gradient, self._outer_node = set(), current_node()
        try:
            yield
        finally:
            (
                self._edges_with_gradient,
                self._last_node,
                self._pending_sums,
                self.current_node,
                self._outer_node,
            ) = outer

    def alias_edge(self, edge: Edge, outer: Edge) -> None:
        """Treat an edge of a nested backward pass as one of the outer graph."""
        self._users[edge] += (node for node in self._users[outer] if node is not self._outer_node)
        self._attribution.alias_node(edge[0], outer[0])

    def _start_hook(self, node: Any) -> Callable[..., None]:
        def hook(_: object) -> None:
            self.current_node = node

        return hook

    def _end_hook(self, node: Any, edges: Sequence[Edge]) -> Callable[..., None]:
        def hook(gradients: Sequence[torch.Tensor | None], _: object) -> None:
            delivered = [
                (edge, gradient)
                for edge, gradient in zip(edges, gradients, strict=False)
                if edge[0] is not None and gradient is not None
            ]
            for edge, gradient in delivered:
                record = self.tensors.of(gradient)
                weights_only = self._attribution.is_weights_only(edge[0])
                self.deliveries[record] = self.deliveries.get(record, True) and weights_only
            self._last_node = node
            # Sums run next, in this order, at edges that have a gradient already.
            self._pending_sums = deque(
                edge for edge, _ in delivered if edge in self._edges_with_gradient
            )
            self._edges_with_gradient.update(edge for edge, _ in delivered)

        return hook

    def purpose(self, func: Any) -> Purpose:
        """Return the purpose of a call made now, in the backward pass."""
        node = current_node()
        if func is torch.ops.aten.add.Tensor and node is self._last_node and self._pending_sums:
            edge = self._pending_sums.popleft()
            weights_only = self._attribution.is_weights_only(edge[0])
            nodes = [edge[0]] if weights_only else self._users[edge]
            call_site = self._attribution.common_ancestor(nodes)
            return Purpose(call_site, Phase.BACKWARD, edge, weights_only)
        needs_input_grad = (
            () if node is None else tuple(target is not None for target, _ in node.next_functions)
        )
        return Purpose(
            self._attribution.call_site_of_node(node),
            Phase.BACKWARD,
            node,
            needs_input_grad=needs_input_grad,
        )


def _no_derivative(call_site: CallSite) -> str:
    return (
        f"an operator that {call_site.module_path or 'the model'} calls (at "
        f"{call_site.source_line}) has no derivative: it would pass no gradient on. Register one "
        "with torch.library.register_autograd, or detach its input if none is wanted."
    )


def mark_weight_gradients(
    items: Sequence[Item], purposes: Mapping[int, Purpose], deliveries: Mapping[str, bool]
) -> tuple[Item, ...]:
    """Mark the backward calls whose results are used for gradients of weights alone.

    Args:
        items: All calls in order, and replays, which are marked already.
        purposes: Purposes by the number of the call; none for calls that are marked already.
        deliveries: By the name of a gradient, True if it was passed on to weights only.
    """
    marked: list[Item] = []
    weights_only: dict[tuple[str, object], bool] = {}
    for call in reversed(items):
        if isinstance(call, Repeat) or call.phase is not Phase.BACKWARD:
            marked.append(call)
            continue
        purpose = purposes.get(call.index)
        if purpose is None:
            marked.append(call)
            continue
        names = [out.name for out in call.outputs]
        uses = [
            weights_only[name, purpose.computation]
            for name in names
            if (name, purpose.computation) in weights_only
        ]
        uses += [deliveries[name] for name in names if name in deliveries]
        is_weight_gradient = purpose.is_weight_sum or (bool(uses) and all(uses))
        for _, tensor in call.tensors():
            use = tensor.name, purpose.computation
            weights_only[use] = weights_only.get(use, True) and is_weight_gradient
        marked.append(replace(call, is_weight_gradient=True) if is_weight_gradient else call)
    return tuple(reversed(marked))
