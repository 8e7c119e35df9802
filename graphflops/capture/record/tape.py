"""Tape: the operator calls of a model, in order."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.metadata import (
    bind_arguments,
    masked_output,
    tensor_meta,
    written_arguments,
)
from graphflops.capture.fake.nested_tensors import components, is_jagged
from graphflops.capture.named_modules import Modules
from graphflops.capture.record.aliasing import is_view
from graphflops.capture.record.invocation import Invocation
from graphflops.capture.record.module_stack import CallSite
from graphflops.capture.torch_internals.trees import pytree
from graphflops.capture.unfused_attention import MASKING
from graphflops.core.call_sequence import Block, Relocation, Repeat, expand
from graphflops.core.ir import NamedTensors, OpCall, TensorMeta, Tensors, Value

_CONSTANT = "constant"
BoundArguments: TypeAlias = tuple[dict[str, Tensors], dict[str, Value]]
"""Tensor arguments and other arguments, by schema name."""
TensorVersion: TypeAlias = tuple[str, int]
"""Name of a tensor, and its version counter."""
Item: TypeAlias = OpCall | Repeat[OpCall]


class Tape:
    """Operator calls in order, with named tensors.

    Attributes:
        items: Operator calls so far, numbered, and replays of layers.
        length: Number of calls, those of replays included.
        invocations: Invocations, by the number of the call.
    """

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.length = 0
        self.invocations: dict[int, Invocation] = {}
        self._keep_alive: list[torch.Tensor] = []
        self._name_counts: Counter[str] = Counter()
        self._names: dict[int, str] = {}
        self._metas: dict[int, TensorMeta] = {}
        self._constants: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # No compiler runs here, and torch's guards against one are the largest cost of a call.
        return False

    def assign_names(
        self, modules: Modules, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> NamedTensors:
        """Assign names to parameters, buffers and inputs; return the inputs."""
        for path, module in modules:
            for name, tensor in (*module._parameters.items(), *module._buffers.items()):
                # A tied weight keeps its first name.
                if tensor is not None and id(tensor) not in self._names:
                    self.assign_name(tensor, f"{path}.{name}" if path else name)
        inputs = named_tensors(modules[0][1], args, kwargs)
        for name, tensor in inputs:
            self.assign_input_name(tensor, name)
        return tuple((name, self._meta(tensor)) for name, tensor in inputs)

    def assign_input_name(self, tensor: torch.Tensor, name: str) -> None:
        """Assign a name to an input of the model."""
        self.assign_name(tensor, name)

    def traced_calls(self) -> Iterator[OpCall]:
        """Yield the calls that were traced, without replays."""
        return (item for item in self.items if isinstance(item, OpCall))

    def assign_name(self, tensor: torch.Tensor, name: str) -> None:
        """Assign a name to a tensor.

        Its metadata is read at its first use in a call: most weights are of replayed layers.
        """
        key = id(tensor)
        if key not in self._names:
            # The id of a tensor is its key, and is unique as long as the tensor is alive.
            self._keep_alive.append(tensor)
        self._metas.pop(key, None)
        self._names[key] = name

    def name_of(self, tensor: torch.Tensor) -> str:
        """Return the name of a tensor, or ``""`` if it has none yet."""
        return self._names.get(id(tensor), "")

    def version_of(self, tensor: torch.Tensor) -> TensorVersion | None:
        """Return the current version of a tensor, if it has a name."""
        name = self._names.get(id(tensor))
        return None if name is None else (name, tensor._version)

    def block(self, first_item: int, first_call: int) -> Block[OpCall]:
        """Return the items from an index on as a block, given the number of its first call."""
        return Block(first_call, tuple(self.items[first_item:]))

    def uses_only(self, block: Block[OpCall], names: set[str]) -> bool:
        """Return True if calls use no tensors but those named, constants and their own results."""
        available = names | self._constants
        for call in expand(block.items):
            if not all(tensor.name in available for _, tensor in call.tensors()):
                return False
            available.update(out.name for out in call.outputs)
        return True

    def replay(self, block: Block[OpCall], relocation: Relocation) -> None:
        """Add the calls of a recorded block, relocated to another instance of the layer."""
        self.items.append(Repeat(self.length, block, relocation))
        self.length += block.length

    def bind_arguments(self, func: Any, args: Any, kwargs: Mapping[str, Any]) -> BoundArguments:
        """Bind the arguments of a call by schema name."""
        return bind_arguments(func, args, kwargs, self._meta)

    def make_call(
        self, invocation: Invocation, bound: BoundArguments, call_site: CallSite, **fields: Any
    ) -> OpCall:
        """Return the call of an operator that has run, with the next number and a name.

        Args:
            invocation: The operator with its arguments and result.
            bound: Its arguments, bound before it ran.
            call_site: Call site of the call.
            **fields: Other fields of the call.
        """
        func = invocation.target
        name = self.unique_name(func._opname)
        inputs, attrs = bound
        outputs = self._outputs(name, tensors_in(invocation.result))
        if func._schema.name in MASKING:
            outputs = (masked_output(outputs[0], invocation.result),)
        return OpCall(
            op=func._schema.name,
            overload=func._overloadname,
            inputs=inputs,
            attrs=attrs,
            outputs=outputs,
            writes=written_arguments(func),
            is_view=is_view(invocation.result, tensors_in((invocation.args, invocation.kwargs))),
            module_path=call_site.module_path,
            name=name,
            index=self.length,
            source_line=call_site.source_line,
            module_class=call_site.module_class,
            **fields,
        )

    def _outputs(self, name: str, results: list[torch.Tensor]) -> tuple[TensorMeta, ...]:
        """Return the metadata of a call's results, named after the call."""
        for number, result in enumerate(results):
            default = name if len(results) == 1 else f"{name}.{number}"
            # A tensor that was written to in place keeps its name.
            self.assign_name(result, self._names.get(id(result), default))
        return tuple(map(self._meta, results))

    def unique_name(self, name: str) -> str:
        """Return ``name``, with a number appended if it is in use."""
        self._name_counts[name] += 1
        return name if self._name_counts[name] == 1 else f"{name}_{self._name_counts[name] - 1}"

    def add(self, call: OpCall, invocation: Invocation) -> None:
        """Add a call, which has the next number."""
        self.items.append(call)
        self.invocations[call.index] = invocation
        self.length += 1

    def _meta(self, tensor: torch.Tensor) -> TensorMeta:
        key = id(tensor)
        meta = self._metas.get(key)
        if meta is None:
            if key not in self._names:
                name = self.unique_name(_CONSTANT)
                self._constants.add(name)
                self.assign_name(tensor, name)
            meta = self._metas[key] = tensor_meta(tensor, self._names[key])
        return meta


def named_tensors(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[str, torch.Tensor]]:
    """Return the input tensors, named after the parameters of the model's forward."""
    arguments = dict(inspect.signature(model.forward).bind_partial(*args).arguments) | dict(kwargs)
    leaves, _ = pytree.tree_flatten_with_path(arguments)
    tensors: list[tuple[str, torch.Tensor]] = []
    for path, leaf in leaves:
        name = re.sub(r"\W+", "_", pytree.keystr(path)).strip("_")
        if is_jagged(leaf):
            tensors += [(f"{name}_{part}", tensor) for part, tensor in components(leaf).items()]
        elif isinstance(leaf, torch.Tensor):
            tensors.append((name, leaf))
    return tensors
