"""A tape: the operators that a model calls, as they are called."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphflops.capture.decompose import Invocation
from graphflops.capture.eager import named_tensors
from graphflops.capture.metadata import bound_arguments, tensor_meta
from graphflops.folded import Block, Change, Repetition, unfolded
from graphflops.ir import NamedTensors, OpCall, TensorMeta, Tensors, Value

_CONSTANT = "constant"
Item: TypeAlias = OpCall | Repetition[OpCall]


class Tape:
    """Calls in order, in terms of tensors with names.

    Attributes:
        items: The calls so far, numbered, and repetitions of layers.
        length: How many calls that are.
        invocations: What was invoked, by a call's number.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.length = 0
        self.invocations: dict[int, Invocation] = {}
        self._held: list[torch.Tensor] = []
        self._states: dict[tuple[str, int], str] = {}
        self._used: Counter[str] = Counter()
        self._metas: dict[int, TensorMeta] = {}
        self._constants: set[str] = set()

    def know_all(
        self, model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> NamedTensors:
        """Call weights and inputs by their names; the inputs."""
        for name, held in (*model.named_parameters(), *model.named_buffers()):
            self.know(held, name)
        given = named_tensors(model, args, kwargs)
        for name, tensor in given:
            self.know_input(tensor, name)
        return tuple((name, self._metas[id(tensor)]) for name, tensor in given)

    def know_input(self, tensor: torch.Tensor, name: str) -> None:
        """Call an input of the model by a name."""
        self.know(tensor, name)

    def traced(self) -> Iterator[OpCall]:
        """The calls that were made, without repetitions."""
        return (item for item in self.items if isinstance(item, OpCall))

    def know(self, tensor: torch.Tensor, name: str) -> None:
        """Call a tensor by a name."""
        if id(tensor) not in self._metas:
            # Tensors are known by their identity, which holds as long as they are held.
            self._held.append(tensor)
        self._metas[id(tensor)] = tensor_meta(tensor, name)

    def name_of(self, tensor: torch.Tensor) -> str:
        """What a tensor is called; nothing if it was not seen yet."""
        known = self._metas.get(id(tensor))
        return "" if known is None else known.name

    def state_of(self, tensor: torch.Tensor) -> str | None:
        """What stands for a tensor as it is: another after it was written to."""
        if id(tensor) not in self._metas:
            return None
        name, version = self.name_of(tensor), tensor._version
        return self._states.setdefault((name, version), f"{name} written {version} times")

    def block(self, items: int, start: int) -> Block[OpCall]:
        """What is on the tape from some item on, which begins with a call of some number."""
        return Block(start, tuple(self.items[items:]))

    def uses_only(self, block: Block[OpCall], names: set[str]) -> bool:
        """Whether calls use nothing but tensors of some names, what they make, constants."""
        known = names | self._constants
        for call in unfolded(block.items):
            if not all(tensor.name in known for _, tensor in call.tensors()):
                return False
            known.update(out.name for out in call.outputs)
        return True

    def repeat(self, block: Block[OpCall], change: Change) -> None:
        """Add the calls of another instance of a layer."""
        self.items.append(Repetition(self.length, block, change))
        self.length += len(block)

    def bound(
        self, func: Any, args: Any, kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Tensors], dict[str, Value]]:
        """The tensors and the other arguments of a call, by schema name."""
        return bound_arguments(func, args, kwargs, self._meta)

    def outputs(self, name: str, results: list[torch.Tensor]) -> tuple[TensorMeta, ...]:
        """What a call of some name returns, which is called after it."""
        for at, result in enumerate(results):
            known = self._metas.get(id(result))
            given = name if len(results) == 1 else f"{name}.{at}"
            # One that was written to in place stays the tensor it was.
            self.know(result, given if known is None else known.name)
        return tuple([self._metas[id(result)] for result in results])

    def unused(self, name: str) -> str:
        """A name that nothing has yet: this one, or with a number."""
        self._used[name] += 1
        return name if self._used[name] == 1 else f"{name}_{self._used[name] - 1}"

    def add(self, call: OpCall, invocation: Invocation) -> None:
        """Add a call, which has the next number already."""
        self.items.append(call)
        self.invocations[call.index] = invocation
        self.length += 1

    def _meta(self, tensor: torch.Tensor) -> TensorMeta:
        if id(tensor) not in self._metas:
            name = self.unused(_CONSTANT)
            self._constants.add(name)
            self.know(tensor, name)
        return self._metas[id(tensor)]


def tensors_in(tree: Any) -> list[torch.Tensor]:
    """The tensors in any structure, in order."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]
