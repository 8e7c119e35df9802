"""A tape: the operators that a model calls, as they are called."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils import _pytree as pytree

from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.metadata import (
    bound_arguments,
    masked_output,
    tensor_meta,
    written_arguments,
)
from graphflops.capture.fake.nested import is_jagged, parts_of
from graphflops.capture.named_modules import Modules
from graphflops.capture.record.invocation import Invocation
from graphflops.capture.record.module_stack import CallSite
from graphflops.capture.record.op_calls import is_view
from graphflops.capture.unfused_attention import MASKING
from graphflops.core.call_sequence import Block, Relocation, Repeat, expand
from graphflops.core.ir import NamedTensors, OpCall, TensorMeta, Tensors, Value

_CONSTANT = "constant"
Bound: TypeAlias = tuple[dict[str, Tensors], dict[str, Value]]
State: TypeAlias = tuple[str, int]
Item: TypeAlias = OpCall | Repeat[OpCall]


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
        self._used: Counter[str] = Counter()
        self._names: dict[int, str] = {}
        self._metas: dict[int, TensorMeta] = {}
        self._constants: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # Nothing is compiled here, and what keeps torch from it takes longer than all the rest.
        return False

    def assign_names(
        self, modules: Modules, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> NamedTensors:
        """Call weights and inputs by their names; the inputs."""
        for path, module in modules:
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                # A tied one goes by the first name it has.
                if tensor is not None and id(tensor) not in self._names:
                    self.assign_name(tensor, f"{path}.{name}" if path else name)
        given = named_tensors(modules[0][1], args, kwargs)
        for name, tensor in given:
            self.assign_input_name(tensor, name)
        return tuple((name, self._meta(tensor)) for name, tensor in given)

    def assign_input_name(self, tensor: torch.Tensor, name: str) -> None:
        """Call an input of the model by a name."""
        self.assign_name(tensor, name)

    def traced(self) -> Iterator[OpCall]:
        """The calls that were made, without repetitions."""
        return (item for item in self.items if isinstance(item, OpCall))

    def assign_name(self, tensor: torch.Tensor, name: str) -> None:
        """Call a tensor by a name.

        What it is like is looked at when a call has it: most weights are of repeated layers.
        """
        key = id(tensor)
        if key not in self._names:
            # Tensors are known by their identity, which holds as long as they are held.
            self._held.append(tensor)
        self._metas.pop(key, None)
        self._names[key] = name

    def name_of(self, tensor: torch.Tensor) -> str:
        """What a tensor is called; nothing if it was not seen yet."""
        return self._names.get(id(tensor), "")

    def state_of(self, tensor: torch.Tensor) -> State | None:
        """What stands for a tensor as it is: its name, and how often it was written to."""
        name = self._names.get(id(tensor))
        return None if name is None else (name, tensor._version)

    def block(self, items: int, start: int) -> Block[OpCall]:
        """What is on the tape from some item on, which begins with a call of some number."""
        return Block(start, tuple(self.items[items:]))

    def uses_only(self, block: Block[OpCall], names: set[str]) -> bool:
        """Whether calls use nothing but tensors of some names, what they make, constants."""
        known = names | self._constants
        for call in expand(block.items):
            if not all(tensor.name in known for _, tensor in call.tensors()):
                return False
            known.update(out.name for out in call.outputs)
        return True

    def repeat(self, block: Block[OpCall], change: Relocation) -> None:
        """Add the calls of another instance of a layer."""
        self.items.append(Repeat(self.length, block, change))
        self.length += block.length

    def bound(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> Bound:
        """The tensors and the other arguments of a call, by schema name."""
        return bound_arguments(func, args, kwargs, self._meta)

    def described(self, ran: Invocation, bound: Bound, owner: CallSite, **beside: Any) -> OpCall:
        """The call of an operator that has run, with the next number and a name.

        Args:
            ran: What was invoked.
            bound: Its arguments before it ran.
            owner: Whose call it is.
            **beside: What else is known of the call.
        """
        func = ran.target
        name = self.unused(func._opname)
        inputs, attrs = bound
        outputs = self._outputs(name, tensors_in(ran.result))
        if func._schema.name in MASKING:
            outputs = (masked_output(outputs[0], ran.result),)
        return OpCall(
            op=func._schema.name,
            overload=func._overloadname,
            inputs=inputs,
            attrs=attrs,
            outputs=outputs,
            writes=written_arguments(func),
            is_view=is_view(ran.result, tensors_in((ran.args, ran.kwargs))),
            module_path=owner.module_path,
            name=name,
            index=self.length,
            source_line=owner.source_line,
            module_class=owner.module_class,
            **beside,
        )

    def _outputs(self, name: str, results: list[torch.Tensor]) -> tuple[TensorMeta, ...]:
        """What a call of some name returns, which is called after it."""
        for at, result in enumerate(results):
            given = name if len(results) == 1 else f"{name}.{at}"
            # One that was written to in place stays the tensor it was.
            self.assign_name(result, self._names.get(id(result), given))
        return tuple(map(self._meta, results))

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
        key = id(tensor)
        found = self._metas.get(key)
        if found is None:
            if key not in self._names:
                name = self.unused(_CONSTANT)
                self._constants.add(name)
                self.assign_name(tensor, name)
            found = self._metas[key] = tensor_meta(tensor, self._names[key])
        return found


def named_tensors(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[str, torch.Tensor]]:
    """The input tensors under the names that the model's forward has for them."""
    named = dict(inspect.signature(model.forward).bind_partial(*args).arguments) | dict(kwargs)
    leaves, _ = pytree.tree_flatten_with_path(named)
    found: list[tuple[str, torch.Tensor]] = []
    for path, leaf in leaves:
        name = re.sub(r"\W+", "_", pytree.keystr(path)).strip("_")
        if is_jagged(leaf):
            found += [(f"{name}_{part}", tensor) for part, tensor in parts_of(leaf).items()]
        elif isinstance(leaf, torch.Tensor):
            found.append((name, leaf))
    return found
