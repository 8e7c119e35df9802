"""Operator graphs as FX graphs of ATen calls."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

import torch
from torch import fx, nn

from graphflops.capture.record.fused_kernels import is_part_of_fused, merge_fused
from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.core.ir import Capture, OpCall, OpRecord, Phase, TensorMeta, combine_records
from graphflops.errors import ModelSpecError
from graphflops.graph.fx_arguments import Operand, arguments, overload_of
from graphflops.graph.fx_sizes import SizeNodes
from graphflops.graph.fx_values import FakeValues

META_KEY = "graphflops"
"""Key of a node's record in ``node.meta``."""
_META, _CPU = torch.device("meta"), torch.device("cpu")


@dataclass(frozen=True)
class UnboundGraph:
    """FX graph that is not in a module yet: passes on it cost no generated code.

    Attributes:
        graph: The graph.
        attributes: Tensors and submodules that it reads, by qualified name.
        name: Class name of the module.
    """

    graph: fx.Graph
    attributes: dict[str, Any]
    name: str

    def module(self) -> fx.GraphModule:
        """Return the graph module."""
        return fx.GraphModule(self.attributes, self.graph, self.name)


def build_fx(
    records: Sequence[OpRecord], capture: Capture, model: nn.Module | None
) -> UnboundGraph:
    """Return the FX graph of records; see :meth:`OperatorGraph.to_fx`."""
    _refuse_control_flow(records, capture)
    builder = _Builder(capture, _Weights(capture, model))
    for name, meta in capture.inputs:
        builder.add_input(name, meta)
    for _, parts in groupby(records, key=_kernel):
        builder.add_call(tuple(parts))
    builder.add_outputs(capture.outputs)
    return builder.unbound_graph()


def _kernel(record: OpRecord) -> str | int:
    """Return what the records of one kernel have in common."""
    return record.call.name if is_part_of_fused(record.call) else record.call.index


def _refuse_control_flow(records: Sequence[OpRecord], capture: Capture) -> None:
    operators = list(capture.control_flow)
    if not operators and any(record.call.trip_count != 1 for record in records):
        operators = ["vmap"]
    if operators:
        msg = (
            f"the graph has {', '.join(operators)}: it does not run call by call, and a flat FX "
            "graph would compute something else. Look at it with to_networkx(). A graph without "
            "vmap is that of torch.export.export(...).run_decompositions()."
        )
        raise ModelSpecError(msg)


class _Weights:
    """Tensors that a graph reads from its module: parameters, buffers and constants, by name."""

    def __init__(self, capture: Capture, model: nn.Module | None) -> None:
        self._constants, self._model = capture.constants, model
        self._trainable = {
            f"{module.path}.{parameter.name}" if module.path else parameter.name: (
                parameter.trainable
            )
            for module in capture.modules
            for parameter in module.parameters
        }
        self._of_model: dict[str, torch.Tensor] = {}
        if model is not None:
            self._of_model.update(model.named_buffers(remove_duplicate=False))
            self._of_model.update(model.named_parameters(remove_duplicate=False))
        first = next(iter(self._of_model.values()), None)
        self.device = _META if first is None else first.device

    def get(self, meta: TensorMeta) -> torch.Tensor:
        """Return the tensor of a name: the model's, the known value, or one on meta.

        Raises:
            ModelSpecError: The model has no such tensor, or one of another shape.
        """
        tensor = self._of_model.get(meta.name)
        if tensor is None and isinstance(value := self._constants.get(meta.name), torch.Tensor):
            return value
        if tensor is None and self._model is not None:
            tensor = _attribute(self._model, meta.name)
        if tensor is not None:
            if tuple(tensor.shape) != meta.shape:
                msg = (
                    f"{meta.name} is {list(tensor.shape)} in the model and {list(meta.shape)} in "
                    "the report. Give the model that was counted."
                )
                raise ModelSpecError(msg)
            return tensor
        if self._model is not None and meta.name not in self._constants:
            msg = f"the model has no {meta.name}. Give the model that was counted."
            raise ModelSpecError(msg)
        return self._on_meta(meta)

    def _on_meta(self, meta: TensorMeta) -> torch.Tensor:
        dtype = getattr(torch, meta.dtype)
        strides = meta.strides or torch.empty(meta.shape, device="meta").stride()
        tensor = torch.empty_strided(meta.shape, strides, dtype=dtype, device="meta")
        if meta.name not in self._trainable:
            return tensor
        return nn.Parameter(tensor, requires_grad=self._trainable[meta.name])


def _attribute(model: nn.Module, name: str) -> torch.Tensor | None:
    """Return a tensor that is a plain attribute of a module."""
    path, _, attribute = name.rpartition(".")
    try:
        value = getattr(model.get_submodule(path), attribute, None)
    except AttributeError:
        return None
    return value if isinstance(value, torch.Tensor) else None


class _Builder:
    """Adds the nodes of a graph, in order."""

    def __init__(self, capture: Capture, weights: _Weights) -> None:
        self._graph = fx.Graph()
        self._weights = weights
        self._values = FakeValues(_CPU if weights.device == _META else weights.device)
        self._tensors: dict[str, Any] = {}
        self._nodes: dict[str, fx.Node] = {}
        self._storages: dict[str, str] = {}
        self._stacks = _ModuleStacks(capture)
        self._sizes = SizeNodes(self._graph, self._values)
        self._name = capture.modules[0].module_class if capture.modules else "GraphModule"

    def add_input(self, name: str, meta: TensorMeta) -> None:
        """Add the placeholder of an input."""
        self._add_tensor(self._graph.placeholder(name), meta)

    def add_call(self, parts: Sequence[OpRecord]) -> None:
        """Add the node of a call, and those of its results if there are several.

        Args:
            parts: Its records, several for a fused kernel.
        """
        call = merge_fused([record.call for record in parts])
        target = overload_of(call)
        args, kwargs = arguments(call, target, self._operand, self._weights.device)
        node = self._graph.create_node("call_function", target, args, kwargs, call.name)
        node.meta.update(self._stacks.meta(call))
        node.meta[META_KEY] = combine_records(parts)
        self._add_results(node, call, target)

    def _add_results(self, node: fx.Node, call: OpCall, target: OpOverload) -> None:
        structure = _result_types(target)
        if structure == ("Tensor",):
            (out,) = call.outputs
            self._add_tensor(node, out)
            return
        results: list[Any] = []
        remaining = list(call.outputs)
        for index, kind in enumerate(structure):
            if kind == "Tensor" and remaining:
                results.append(self._result(node, remaining.pop(0), index))
            elif kind == "List[Tensor]":
                # The tensors after a list are those that the other results take.
                later = structure[index + 1 :].count("Tensor")
                metas = remaining[: len(remaining) - later]
                remaining = remaining[len(metas) :]
                parent = node if len(structure) == 1 else self._getitem(node, index)
                results.append([self._result(parent, meta, i) for i, meta in enumerate(metas)])
            else:
                results.append(None)
        if structure:
            node.meta["val"] = results[0] if len(structure) == 1 else tuple(results)

    def _getitem(self, node: fx.Node, index: int) -> fx.Node:
        item = self._graph.call_function(operator.getitem, (node, index))
        item.meta.update((key, node.meta[key]) for key in _INHERITED if key in node.meta)
        return item

    def _result(self, node: fx.Node, meta: TensorMeta, index: int) -> torch.Tensor:
        return self._add_tensor(self._getitem(node, index), meta)

    def _operand(self, value: Operand) -> fx.Node:
        return self._node(value) if isinstance(value, TensorMeta) else self._sizes.node(value)

    def _node(self, meta: TensorMeta) -> fx.Node:
        """Return the node of a tensor: that of a parameter is added where it is first used."""
        node = self._nodes.get(meta.name)
        if node is None:
            self._tensors[meta.name] = self._weights.get(meta)
            node = self._graph.get_attr(meta.name)
            self._add_tensor(node, meta)
        self._values.masks.record_argument(node.meta["val"], meta)
        return node

    def _add_tensor(self, node: fx.Node, meta: TensorMeta) -> torch.Tensor:
        """Make a node that of a tensor; return its fake tensor."""
        storage = self._storages.setdefault(
            meta.name, self._storages.get(meta.storage, meta.storage) or meta.name
        )
        value: torch.Tensor = self._values.value(meta, storage)
        node.meta["val"] = value
        self._nodes[meta.name] = node
        self._sizes.add_tensor(node, meta)
        return value

    def add_outputs(self, outputs: Sequence[TensorMeta]) -> None:
        """Add the output node: the tensors that the model returns."""
        node = self._graph.output(tuple(map(self._node, outputs)))
        node.meta["val"] = tuple(arg.meta["val"] for arg in node.args[0])

    def unbound_graph(self) -> UnboundGraph:
        """Return the graph with the tensors that it reads."""
        return UnboundGraph(self._graph, self._tensors, self._name or "GraphModule")


@cache
def _result_types(target: OpOverload) -> tuple[str, ...]:
    return tuple(str(returned.type) for returned in target._schema.returns)


class _ModuleStacks:
    """Metadata of nodes that says where in the model a call was made."""

    def __init__(self, capture: Capture) -> None:
        self._classes = {module.path: module.module_class for module in capture.modules}
        self._stacks: dict[tuple[str, str], dict[str, tuple[str, str]]] = {}

    def meta(self, call: OpCall) -> dict[str, Any]:
        """Return module stack, stack trace, torch function and phase of a call's node."""
        key = call.module_path, call.module_class
        if key not in self._stacks:
            self._stacks[key] = self._stack(*key)
        meta: dict[str, Any] = {"nn_module_stack": self._stacks[key]}
        if call.source_line:
            file, _, line = call.source_line.rpartition(":")
            meta["stack_trace"] = f'  File "{file}", line {line}, in forward'
        if call.torch_function:
            meta["torch_fn"] = (call.name, call.torch_function)
        if call.phase is Phase.BACKWARD:
            meta["partitioner_tag"] = "is_backward"
        return meta

    def _stack(self, path: str, module_class: str) -> dict[str, tuple[str, str]]:
        names = path.split(".") if path else []
        paths = [".".join(names[:depth]) for depth in range(len(names) + 1)]
        stack = {path: (path, self._classes.get(path, "")) for path in paths}
        stack[path] = (path, module_class)
        return stack


_INHERITED = ("nn_module_stack", "stack_trace", "torch_fn")
