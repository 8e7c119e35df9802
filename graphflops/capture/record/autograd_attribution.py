"""Whose call it is in a training step: backward calls belong to the module they are made for.

Autograd numbers its nodes in the order they are made, so that the module running when a node
was made is found by the node's number, whenever the node itself runs.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch import nn

from graphflops.capture.counting_thread import TOLD
from graphflops.capture.named_modules import Modules
from graphflops.capture.record.module_stack import CallSite, ModuleStack

LOSS = CallSite("(loss)", "Loss")
"""What computes a loss from the outputs of a model; it is no module of it."""
UNATTRIBUTED = CallSite("(unattributed)", "Unattributed")
"""Backward calls of which nothing says what they belong to."""


class _Maker(NamedTuple):
    """What made autograd nodes: a module, of weights alone or not."""

    owner: CallSite
    of_weights: bool = False


class AutogradAttribution(ModuleStack):
    """Follows which module of a model runs, and remembers it for the backward pass.

    What is computed again counts as no call of a module.

    Attributes:
        in_reentrant: How many reentrant checkpoints the forward is in.
        was_reentrant: Whether there was one.
    """

    def __init__(self, modules: Modules) -> None:
        super().__init__(modules, LOSS)
        self.in_reentrant = 0
        self.was_reentrant = False
        self._classes: dict[str, str] = {}
        self._recomputations = 0
        self._standing_in: dict[Any, Any] = {}
        self.finished = False
        # Autograd's numbers in order, and who made the nodes from the one before to each.
        self._numbers: list[int] = []
        self._made_by: list[_Maker] = []
        # A tied weight is held by the first module that has it.
        self._leaves: dict[int, CallSite] = {}
        for path, module in modules:
            self._classes[path] = name = type(module).__name__
            if module._parameters:
                owner = CallSite(path, name)
                for parameter in module._parameters.values():
                    self._leaves.setdefault(id(parameter), owner)

    @property
    def recomputing(self) -> bool:
        """Whether a checkpoint runs a part of the forward pass again."""
        return self._recomputations > 0

    @contextmanager
    def following_checkpoints(self, on_recomputed: Callable[[Any], None]) -> Iterator[None]:
        """Follow the model's checkpoints until the block ends.

        Args:
            on_recomputed: Told the results of what a checkpoint has run again.
        """
        self._note(_Maker(UNATTRIBUTED))
        TOLD.checkpoint = lambda function: self._again(function, on_recomputed)
        try:
            yield
        finally:
            TOLD.checkpoint = None

    def making(self, *, of_weights: bool) -> CallSite:
        """The module that runs now, which autograd's new nodes are noted to be made by.

        Args:
            of_weights: Whether all it computes with now follows from weights alone.
        """
        owner = self.current()
        self._note(_Maker(owner, of_weights))
        return owner

    def of_node(self, node: Any) -> CallSite:
        """The module whose forward made an autograd node, or holds the parameter it is for."""
        return self._maker(node).owner

    def containing(self, nodes: Iterable[Any]) -> CallSite:
        """The lowest module that contains all those whose forward made some nodes."""
        path, *rest = (self.of_node(node).module_path for node in nodes)
        for other in rest:
            while path and not f"{other}.".startswith(f"{path}."):
                path = path.rpartition(".")[0]
        return CallSite(path, self._classes.get(path, ""))

    def is_of_weights(self, node: Any) -> bool:
        """Whether the gradients an autograd node takes are those of weights.

        Or of what follows from weights alone, such as a transposed one.
        """
        return self._maker(node).of_weights

    @contextmanager
    def making_for(self, owner: CallSite) -> Iterator[None]:
        """Note what autograd makes in the block as a module's, of which nothing runs."""
        self._note(_Maker(self._stack[-1]))
        yield
        self._note(_Maker(owner))

    @contextmanager
    def within(self, caller: CallSite) -> Iterator[None]:
        """Run a part of the forward again, as called by a line of some module."""
        self._note(_Maker(self._stack[-1]))
        self._stack.append(caller)
        try:
            yield
        finally:
            self._note(_Maker(self._stack.pop()))

    def stands_in(self, node: Any, outer: Any) -> None:
        """Take an autograd node for another one."""
        self._standing_in[node] = outer

    def finish(self) -> None:
        """The loss is there: nodes made last are noted."""
        self._note(_Maker(self._stack[-1]))
        self.finished = True

    def _maker(self, node: Any) -> _Maker:
        node = self._standing_in.get(node, node)
        if node is None:
            return _Maker(UNATTRIBUTED)
        if (leaf := getattr(node, "variable", None)) is not None:
            owner = self._leaves.get(id(leaf))
            return _Maker(UNATTRIBUTED) if owner is None else _Maker(owner, of_weights=True)
        at = bisect_right(self._numbers, node._sequence_nr())
        return self._made_by[at] if at < len(self._made_by) else _Maker(UNATTRIBUTED)

    def _note(self, maker: _Maker) -> None:
        # Nodes that were made since the last note have numbers below this one.
        number = torch._C._autograd._get_sequence_nr()
        if not self._numbers or number > self._numbers[-1]:
            self._numbers.append(number)
            self._made_by.append(maker)

    def _enter(self, module: nn.Module) -> None:
        self._note(_Maker(self._stack[-1]))
        super()._enter(module)

    def _is_counted(self) -> bool:
        return torch._C._current_graph_task_id() == -1

    def _leave(self) -> None:
        self._note(_Maker(self._stack[-1]))
        super()._leave()

    def _again(
        self, function: Callable[..., Any], on_recomputed: Callable[[Any], None]
    ) -> Callable[..., Any]:
        """What a checkpoint runs, to be known as the same module's when it runs again."""
        owner = self.current()

        @wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            if torch._C._current_graph_task_id() == -1:
                return self._first(function, *args, **kwargs)
            depth = len(self._stack)
            self._stack.append(owner)
            self._recomputations += 1
            try:
                results = function(*args, **kwargs)
                on_recomputed(results)
            finally:
                # A checkpoint stops as soon as it has what it needs, in the midst of a module.
                self._recomputations -= 1
                self._note(_Maker(self._stack[-1]))
                del self._stack[depth:]
            return results

        return run

    def _first(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run what a reentrant checkpoint will run again."""
        self.was_reentrant = True
        self.in_reentrant += 1
        try:
            return function(*args, **kwargs)
        finally:
            self.in_reentrant -= 1
