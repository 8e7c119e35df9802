"""What a backward call computes: whose gradient, and whether that of weights."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple, TypeAlias

import torch

from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.record.autograd_attribution import AutogradAttribution
from graphflops.capture.record.module_stack import CallSite
from graphflops.capture.record.tape import Item
from graphflops.core.call_sequence import Repeat
from graphflops.core.ir import Phase
from graphflops.errors import CaptureError

Edge: TypeAlias = tuple[Any, int]
"""An output of an autograd node: the node, and which of its outputs."""


class Purpose(NamedTuple):
    """What a call is made for.

    Attributes:
        owner: The module that makes it, or whose forward caused it.
        phase: When it runs.
        within: Of a backward call, what it is a part of: a node's own computation, or a sum.
        of_weights: Whether it adds up gradients of weights.
        asked: Of a backward call, for which inputs of the forward a gradient is asked.
    """

    owner: CallSite
    phase: Phase
    within: object = None
    of_weights: bool = False
    asked: tuple[bool, ...] = ()


class Gradients:
    """Knows the autograd node that runs, and the module it runs for.

    Where a value has several uses, autograd adds up their gradients. Such a sum is no node's
    own: it belongs to the lowest module that contains all the uses, that of a weight's to the
    module which holds the weight.

    Attributes:
        delivered: By its identity, each gradient and whether it was handed on as one of weights
            (or of what follows from weights alone) only.
        running: The autograd node that runs, or ran last.
        leaves: Tensors that get a gradient in the end.
    """

    def __init__(self, owners: AutogradAttribution) -> None:
        self.delivered: dict[int, tuple[torch.Tensor, bool]] = {}
        self.running: Any = None
        self.leaves: list[torch.Tensor] = []
        self._owners = owners
        self._uses: defaultdict[Edge, list[Any]] = defaultdict(list)
        self._reached: set[Edge] = set()
        self._seen: set[Any] = set()
        self._done: Any = None
        self._outer: Any = None
        self._sums: deque[Edge] = deque()

    def follow(self, results: Any) -> None:
        """Be told when a node behind these tensors runs, and when it hands its gradients on.

        Raises:
            CaptureError: One of them is an operator without a derivative.
        """
        tensors = tensors_in(results)
        waiting: list[Any] = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
        while waiting:
            node = waiting.pop()
            if node in self._seen:
                continue
            self._seen.add(node)
            if node.name().endswith("NotImplemented"):
                raise CaptureError(_no_derivative(self._owners.of_node(node)))
            if (leaf := getattr(node, "variable", None)) is not None:
                self.leaves.append(leaf)  # it hands nothing on
                continue
            edges = node.next_functions
            node.register_prehook(self._on_start(node))
            node.register_hook(self._on_end(node, edges))
            for edge in edges:
                if edge[0] is not None:
                    self._uses[edge].append(node)
                    waiting.append(edge[0])

    @contextmanager
    def nested(self) -> Iterator[None]:
        """A backward pass that a node of another one stands for: gradients come in anew."""
        outer = self._reached, self._done, self._sums, self.running, self._outer
        self._reached, self._outer = set(), torch._C._current_autograd_node()
        try:
            yield
        finally:
            self._reached, self._done, self._sums, self.running, self._outer = outer

    def stands_in(self, edge: Edge, outer: Edge) -> None:
        """Take an edge, within a nested pass, for one of the outer graph."""
        self._uses[edge] += (node for node in self._uses[outer] if node is not self._outer)
        self._owners.stands_in(edge[0], outer[0])

    def _on_start(self, node: Any) -> Callable[..., None]:
        def note(_: object) -> None:
            self.running = node

        return note

    def _on_end(self, node: Any, edges: Sequence[Edge]) -> Callable[..., None]:
        def note(gradients: Sequence[torch.Tensor | None], _: object) -> None:
            given = [
                (edge, gradient)
                for edge, gradient in zip(edges, gradients, strict=False)
                if edge[0] is not None and gradient is not None
            ]
            for edge, gradient in given:
                _, before = self.delivered.get(id(gradient), (None, True))
                of_weights = before and self._owners.is_of_weights(edge[0])
                self.delivered[id(gradient)] = gradient, of_weights
            self._done = node
            # It runs next, in this order, where an earlier gradient has come in.
            self._sums = deque(edge for edge, _ in given if edge in self._reached)
            self._reached.update(edge for edge, _ in given)

        return note

    def purpose(self, func: Any) -> Purpose:
        """What a call that is made now, in the backward pass, is for."""
        node = torch._C._current_autograd_node()
        if func is torch.ops.aten.add.Tensor and node is self._done and self._sums:
            edge = self._sums.popleft()
            of_weights = self._owners.is_of_weights(edge[0])
            makers = [edge[0]] if of_weights else self._uses[edge]
            owner = self._owners.containing(makers)
            return Purpose(owner, Phase.BACKWARD, edge, of_weights)
        asked = () if node is None else tuple(to is not None for to, _ in node.next_functions)
        return Purpose(self._owners.of_node(node), Phase.BACKWARD, node, asked=asked)


def _no_derivative(owner: CallSite) -> str:
    return (
        f"an operator that {owner.module_path or 'the model'} calls (at {owner.source_line}) has "
        "no derivative: it would pass no gradient on. Register one with "
        "torch.library.register_autograd, or detach its input if none is wanted."
    )


def marked(
    items: Sequence[Item], purposes: Mapping[int, Purpose], delivered: Mapping[str, bool]
) -> tuple[Item, ...]:
    """Backward calls marked where what they give serves gradients of weights alone.

    Args:
        items: All calls in order, and repetitions, which are marked already.
        purposes: What calls are for, by their number; not of those that are marked already.
        delivered: By a gradient's name, whether it was handed on to weights only.
    """
    found: list[Item] = []
    serves: dict[tuple[str, object], bool] = {}
    for call in reversed(items):
        if isinstance(call, Repeat) or call.phase is not Phase.BACKWARD:
            found.append(call)
            continue
        purpose = purposes.get(call.index)
        if purpose is None:
            found.append(call)
            continue
        names = [out.name for out in call.outputs]
        uses = [serves[name, purpose.within] for name in names if (name, purpose.within) in serves]
        uses += [delivered[name] for name in names if name in delivered]
        is_weight_gradient = purpose.of_weights or (bool(uses) and all(uses))
        for _, tensor in call.tensors():
            use = tensor.name, purpose.within
            serves[use] = serves.get(use, True) and is_weight_gradient
        found.append(replace(call, is_weight_gradient=True) if is_weight_gradient else call)
    return tuple(reversed(found))
