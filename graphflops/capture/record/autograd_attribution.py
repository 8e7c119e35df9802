"""Attribution of backward calls: each belongs to the module whose forward caused it.

Autograd numbers its nodes in the order of their creation, so that the module that created a node
is found by the node's sequence number, whenever the node runs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

from torch import nn

from graphflops.capture.named_modules import Modules
from graphflops.capture.record.module_stack import CallSite, ModuleStack
from graphflops.capture.torch_internals.autograd_engine import (
    current_graph_task_id,
    next_sequence_number,
)
from graphflops.capture.torch_internals.count_flags import COUNT_FLAGS

LOSS = CallSite("(loss)", "Loss")
"""The computation of a loss from the outputs of a model, which is no module of it."""
UNATTRIBUTED = CallSite("(unattributed)", "Unattributed")
"""Backward calls without a known module."""


class _Creator(NamedTuple):
    """Creator of autograd nodes.

    Attributes:
        call_site: The module.
        weights_only: True if the nodes depend on weights alone.
    """

    call_site: CallSite
    weights_only: bool = False


class AutogradAttribution(ModuleStack):
    """Module stack of a training step, which attributes autograd nodes to modules.

    A recomputation is not counted as a call of a module.

    Attributes:
        reentrant_depth: Number of reentrant checkpoints around the current forward call.
        used_reentrant_checkpoint: True if there was one.
        is_forward_done: True once the loss is computed.
    """

    def __init__(self, modules: Modules) -> None:
        super().__init__(modules, LOSS)
        self.reentrant_depth = 0
        self.used_reentrant_checkpoint = False
        self._classes: dict[str, str] = {}
        self._recompute_depth = 0
        self._node_aliases: dict[Any, Any] = {}
        self.is_forward_done = False
        # Sequence numbers in order, and the creator of the nodes between the one before and each.
        self._sequence_numbers: list[int] = []
        self._creators: list[_Creator] = []
        # A tied weight belongs to the first module that has it.
        self._parameter_owners: dict[int, CallSite] = {}
        for path, module in modules:
            self._classes[path] = name = type(module).__name__
            if module._parameters:
                call_site = CallSite(path, name)
                for parameter in module._parameters.values():
                    self._parameter_owners.setdefault(id(parameter), call_site)

    @property
    def is_recomputing(self) -> bool:
        """True while a checkpoint recomputes a part of the forward pass."""
        return self._recompute_depth > 0

    @contextmanager
    def track_checkpoints(self, on_recompute: Callable[[Any], None]) -> Iterator[None]:
        """Track the model's activation checkpoints in the block.

        Args:
            on_recompute: Called with the results of each recomputation.
        """
        self._record_creator(_Creator(UNATTRIBUTED))
        COUNT_FLAGS.checkpoint = lambda function: self._checkpointed(function, on_recompute)
        try:
            yield
        finally:
            COUNT_FLAGS.checkpoint = None

    def record_creator(self, *, weights_only: bool) -> CallSite:
        """Record the current module as the creator of autograd's new nodes, and return it.

        Args:
            weights_only: True if the current operator depends on weights alone.
        """
        call_site = self.current_call_site()
        self._record_creator(_Creator(call_site, weights_only))
        return call_site

    def call_site_of_node(self, node: Any) -> CallSite:
        """Return the module whose forward created a node, or that holds the node's parameter."""
        return self._creator_of(node).call_site

    def common_ancestor(self, nodes: Iterable[Any]) -> CallSite:
        """Return the lowest module that contains the modules of all nodes."""
        path, *rest = (self.call_site_of_node(node).module_path for node in nodes)
        for other in rest:
            while path and not f"{other}.".startswith(f"{path}."):
                path = path.rpartition(".")[0]
        return CallSite(path, self._classes.get(path, ""))

    def is_weights_only(self, node: Any) -> bool:
        """Return True if a node takes gradients of weights.

        Values computed from weights alone, such as a transposed weight, count as weights.
        """
        return self._creator_of(node).weights_only

    @contextmanager
    def attribute_to(self, call_site: CallSite) -> Iterator[None]:
        """Attribute autograd nodes created in the block to a module that does not run."""
        self._record_creator(_Creator(self._stack[-1]))
        yield
        self._record_creator(_Creator(call_site))

    @contextmanager
    def rerun_at(self, call_site: CallSite) -> Iterator[None]:
        """Run a part of the forward again in the block, as called from a call site."""
        self._record_creator(_Creator(self._stack[-1]))
        self._stack.append(call_site)
        try:
            yield
        finally:
            self._record_creator(_Creator(self._stack.pop()))

    def alias_node(self, node: Any, outer: Any) -> None:
        """Attribute an autograd node like another one."""
        self._node_aliases[node] = outer

    def finish_forward(self) -> None:
        """Attribute the last nodes: the loss is computed."""
        self._record_creator(_Creator(self._stack[-1]))
        self.is_forward_done = True

    def _creator_of(self, node: Any) -> _Creator:
        node = self._node_aliases.get(node, node)
        if node is None:
            return _Creator(UNATTRIBUTED)
        if (leaf := getattr(node, "variable", None)) is not None:
            call_site = self._parameter_owners.get(id(leaf))
            return (
                _Creator(UNATTRIBUTED)
                if call_site is None
                else _Creator(call_site, weights_only=True)
            )
        index = bisect_right(self._sequence_numbers, node._sequence_nr())
        return self._creators[index] if index < len(self._creators) else _Creator(UNATTRIBUTED)

    def _record_creator(self, creator: _Creator) -> None:
        # Nodes created since the last record have numbers below this one.
        number = next_sequence_number()
        if not self._sequence_numbers or number > self._sequence_numbers[-1]:
            self._sequence_numbers.append(number)
            self._creators.append(creator)

    def _enter(self, module: nn.Module) -> None:
        self._record_creator(_Creator(self._stack[-1]))
        super()._enter(module)

    def _counts_calls(self) -> bool:
        return current_graph_task_id() == -1

    def _leave(self) -> None:
        self._record_creator(_Creator(self._stack[-1]))
        super()._leave()

    def _checkpointed(
        self, function: Callable[..., Any], on_recompute: Callable[[Any], None]
    ) -> Callable[..., Any]:
        """Wrap a checkpointed function, so that its recomputation belongs to the same module."""
        call_site = self.current_call_site()

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            if current_graph_task_id() == -1:
                return self._run_reentrant(function, *args, **kwargs)
            depth = len(self._stack)
            self._stack.append(call_site)
            self._recompute_depth += 1
            try:
                results = function(*args, **kwargs)
                on_recompute(results)
            finally:
                # A checkpoint stops once it has the tensors it needs, in the midst of a module.
                self._recompute_depth -= 1
                self._record_creator(_Creator(self._stack[-1]))
                del self._stack[depth:]
            return results

        return run

    def _run_reentrant(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run the first forward of a reentrant checkpoint."""
        self.used_reentrant_checkpoint = True
        self.reentrant_depth += 1
        try:
            return function(*args, **kwargs)
        finally:
            self.reentrant_depth -= 1
