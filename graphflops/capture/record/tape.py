"""Tape: the operator calls of a model, in order."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import nn

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.metadata import known_value, masked_output, tensor_meta
from graphflops.capture.fake.nested_tensors import components, is_jagged
from graphflops.capture.named_modules import Modules, own_attributes
from graphflops.capture.record.aliasing import is_view
from graphflops.capture.record.call_templates import CallTemplates, Execution, overload_of
from graphflops.capture.record.invocation_log import InvocationLog
from graphflops.capture.record.module_stack import CallSite
from graphflops.capture.record.tensor_records import TensorRecords
from graphflops.capture.torch_internals.dispatch import DisableTorchFunction
from graphflops.capture.torch_internals.node_names import NodeNames
from graphflops.capture.torch_internals.trees import pytree
from graphflops.capture.unfused_attention import MASKING
from graphflops.core.call_sequence import Block, Relocation, Repeat, expand
from graphflops.core.ir import NamedTensors, OpCall, TensorMeta
from graphflops.core.storage_events import StorageKind

_CONSTANT = "constant"
TensorVersion: TypeAlias = tuple[str, int]
"""Name of a tensor, and its version counter."""
Item: TypeAlias = OpCall | Repeat[OpCall]


class Tape:
    """Operator calls in order, with named tensors.

    Attributes:
        items: Operator calls so far, numbered, and replays of layers.
        invocations: Invocations, by the number of the call.
        constants: Values of the tensors that are no inputs, parameters or buffers, by name;
            ``None`` if a value is not known.
        tensors: Records of the tensors.
        storages: Tracker of the storages.
        templates: Templates of the calls, by which operators run.
    """

    def __init__(self, values: ValueTracker) -> None:
        self.items: list[Item] = []
        self.invocations = InvocationLog(values)
        self.constants: dict[str, torch.Tensor | None] = {}
        self.tensors = TensorRecords()
        self.storages = values.storages
        self._node_names = NodeNames()
        self._by_name: dict[str, TensorMeta] = {}
        self.templates = CallTemplates(values, self.invocations, self._meta)

    @property
    def length(self) -> int:
        """Number of calls, those of replays included."""
        return self.storages.position

    @length.setter
    def length(self, calls: int) -> None:
        self.storages.position = calls

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # No compiler runs here, and torch's guards against one are the largest cost of a call.
        return False

    def assign_names(
        self, modules: Modules, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> NamedTensors:
        """Assign names to parameters, buffers and inputs; return the inputs."""
        self.storages.restart()
        inputs = named_tensors(modules[0][1], args, kwargs)
        # Torch function modes would see every look at a tensor.
        with DisableTorchFunction():
            for path, module in modules:
                self._assign_module_names(module, f"{path}." if path else "")
            for name, tensor in inputs:
                self.assign_input_name(tensor, name)
                self.storages.register(tensor, StorageKind.INPUT, name)
        root_names = (name for name in self.tensors.names() if "." not in name)
        for name in dict.fromkeys((*(name for name, _ in inputs), *root_names)):
            self._node_names.unique(name)  # reserved: no call has it
        return tuple((name, self._meta(tensor)) for name, tensor in inputs)

    def _assign_module_names(self, module: nn.Module, prefix: str) -> None:
        """Assign names to the tensors of one module, children excluded."""
        for tensors, kind in (
            (module._parameters, StorageKind.PARAMETER),
            (module._buffers, StorageKind.BUFFER),
        ):
            for name, tensor in tensors.items():
                # A tied weight keeps its first name.
                if tensor is not None and self.tensors.find(tensor) is None:
                    self.assign_name(tensor, prefix + name)
                    self.storages.register(tensor, kind, prefix + name)
        attributes = vars(module)
        for name in own_attributes(tuple(attributes)):
            value = attributes[name]
            if isinstance(value, torch.Tensor) and self.tensors.find(value) is None:
                self._assign_constant_name(value, prefix + name)
                self.storages.register(value, StorageKind.BUFFER, prefix + name)

    def output_metas(self, outputs: Any) -> tuple[TensorMeta, ...]:
        """Return the metadata of the tensors that the model has returned, in order."""
        return tuple(map(self._meta, tensors_in(outputs)))

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
        record = self.tensors.of(tensor)
        record.name, record.meta = name, None

    def name_of(self, tensor: torch.Tensor) -> str:
        """Return the name of a tensor, or ``""`` if it has none yet."""
        return self.tensors.name_of(tensor)

    def storage_name(self, tensor: torch.Tensor) -> str:
        """Return the name of the first tensor in the memory of a named one."""
        storage = self.storages.of(tensor)
        if not storage.name:
            storage.name = self.tensors.name_of(tensor)
        return storage.name

    def version_of(self, tensor: torch.Tensor) -> TensorVersion | None:
        """Return the current version of a tensor, if it has a name."""
        name = self.tensors.name_of(tensor)
        return (name, tensor._version) if name else None

    def block(self, first_item: int, first_call: int) -> Block[OpCall]:
        """Return the items from an index on as a block, given the number of its first call."""
        return Block(first_call, tuple(self.items[first_item:]))

    def outside_names(self, block: Block[OpCall]) -> set[str]:
        """Return the names of the tensors that calls use and do not make themselves."""
        used: set[str] = set()
        returned: set[str] = set()
        for call in expand(block.items):
            used.update(tensor.name for _, tensor in call.tensors() if tensor.name not in returned)
            returned.update(out.name for out in call.outputs)
        return used

    def replay(self, block: Block[OpCall], relocation: Relocation) -> None:
        """Add the calls of a recorded block, relocated to another instance of the layer."""
        self.items.append(Repeat(self.length, block, relocation))
        self.length += block.length

    def make_call(self, execution: Execution, call_site: CallSite, **fields: Any) -> OpCall:
        """Return the call of an operator that has run, with the next number and a name.

        Args:
            execution: Its execution.
            call_site: Call site of the call.
            **fields: Other fields of the call.
        """
        func, args, kwargs, result = execution.invocation
        overload = overload_of(func)
        name = self._node_names.unique(overload.node_name)
        template = execution.template
        if template is None:
            outputs = self._outputs(name, execution.results)
            shares_memory = is_view(result, tensors_in((args, kwargs)))
        else:
            outputs = self._outputs_like(template.outputs, name, execution.results)
            shares_memory = template.is_view
        if overload.op in MASKING:
            outputs = (masked_output(outputs[0], result), *outputs[1:])
        inputs, attrs = execution.bound
        call = OpCall(
            op=overload.op,
            overload=overload.name,
            inputs=inputs,
            attrs=attrs,
            outputs=outputs,
            writes=overload.writes,
            is_view=shares_memory,
            module_path=call_site.module_path,
            name=name,
            index=self.length,
            source_line=call_site.source_line,
            module_class=call_site.module_class,
            **fields,
        )
        if execution.first is not None:
            self.templates.store(execution.first, execution, call)
        return call

    def _outputs(self, name: str, results: list[torch.Tensor]) -> tuple[TensorMeta, ...]:
        """Return the metadata of a call's results, named after the call."""
        for result, default in zip(results, _result_names(name, len(results)), strict=True):
            # A tensor that was written to in place keeps its name.
            self.assign_name(result, self.tensors.name_of(result) or default)
        return tuple(map(self._meta, results))

    def _outputs_like(
        self, metas: tuple[TensorMeta, ...], name: str, results: list[torch.Tensor]
    ) -> tuple[TensorMeta, ...]:
        """Return the metadata of a call's results, that of an equal call but for the names."""
        names = _result_names(name, len(results))
        for result, default, meta in zip(results, names, metas, strict=True):
            record = self.tensors.of(result)
            if not record.name:
                record.name = default
                storage = self.storage_name(result)
                storage = "" if storage == default else storage
                record.meta = TensorMeta(
                    meta.shape, meta.dtype, meta.strides, default, storage=storage
                )
                self._by_name.setdefault(default, record.meta)
        return tuple(map(self._meta, results))

    def add(self, call: OpCall, execution: Execution) -> None:
        """Add a call, which has the next number."""
        self.items.append(call)
        self.invocations.add(call.index, execution.description)
        self.length += 1

    def _meta(self, tensor: torch.Tensor) -> TensorMeta:
        record = self.tensors.of(tensor)
        meta = record.meta
        if meta is None:
            if not record.name:
                self._assign_name_of_unknown(tensor)
            name, storage = record.name, self.storage_name(tensor)
            meta = record.meta = tensor_meta(tensor, name, storage if storage != name else "")
            self._by_name.setdefault(name, meta)
        return meta

    def _assign_name_of_unknown(self, tensor: torch.Tensor) -> None:
        """Assign a name to a tensor that no recorded operator has returned.

        It is a constant, or a copy of a named one: the functions that make tensors return copies
        of what their operators do, ``x.data`` is one of ``x``.
        """
        name = self.storages.of(tensor).name
        original, copy = self._by_name.get(name), tensor_meta(tensor, name)
        if original == copy:
            self.assign_name(tensor, name)
        else:
            self._assign_constant_name(tensor, self._node_names.unique(_CONSTANT))

    def _assign_constant_name(self, tensor: torch.Tensor, name: str) -> None:
        self.constants[name] = known_value(tensor)
        self.assign_name(tensor, name)


def _result_names(call: str, count: int) -> Sequence[str]:
    """Return the names of the results of a call."""
    return (call,) if count == 1 else [f"{call}.{number}" for number in range(count)]


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
