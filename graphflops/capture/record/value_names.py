"""Names of the tensors in the values of nodes: equal names are one tensor, across subgraphs too."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import fx

from graphflops.capture.fake.metadata import convert_argument, tensor_meta
from graphflops.capture.record.invocation import Invocation
from graphflops.capture.torch_internals.node_names import NodeNames
from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.ir import TensorMeta, Tensors, Value

Names = Any
"""Name of a tensor, or names in the structure of a value; ``None`` for what is no tensor."""


class ValueNames:
    """Names of the values of nodes in a graph and its subgraphs.

    Args:
        graph: The graph, whose nodes keep their names.
        qualified_names: Qualified names of parameters and buffers by those of their placeholders.
    """

    def __init__(self, graph: fx.Graph, qualified_names: Mapping[str, str]) -> None:
        self._qualified = qualified_names
        self._names: dict[fx.Node, Names] = {}
        self._storages: dict[str, str] = {}
        self._described: dict[fx.Node, Tensors | Value] = {}
        self._node_names = NodeNames()
        self._call_names = {node: self._node_names.unique(node.name) for node in graph.nodes}

    def call_name(self, node: fx.Node) -> str:
        """Return the name of a call: its node's, but numbered if another graph has that name."""
        if node not in self._call_names:
            self._call_names[node] = self._node_names.unique(node.name)
        return self._call_names[node]

    def describe(self, node: fx.Node | torch.Tensor) -> Tensors | Value:
        """Return the value of a node as data, with the names of its tensors."""
        if isinstance(node, torch.Tensor):
            return tensor_meta(node)
        if node not in self._described:
            self._described[node] = self._describe(node.meta.get("val"), self.names(node))
        return self._described[node]

    def _describe(self, value: Any, names: Names) -> Tensors | Value:
        if isinstance(value, torch.Tensor):
            return tensor_meta(value, names, self._storages.get(names, ""))
        if isinstance(value, list | tuple) and isinstance(names, Sequence):
            pairs = zip(value, names, strict=True)
            return tuple(self._describe(item, name) for item, name in pairs)
        return convert_argument(value)

    def names(self, node: fx.Node) -> Names:
        """Return the names of the tensors in the value of a node."""
        if node not in self._names:
            self._names[node] = self._first_names(node)
        return self._names[node]

    def enter(self, node: fx.Node, body: fx.Graph) -> None:
        """Give the inputs of a graph that a node runs the names of the node's operands."""
        self._described.clear()
        placeholders, operands = body.find_nodes(op="placeholder"), _operands(node)
        if len(placeholders) == len(operands):
            for placeholder, operand in zip(placeholders, operands, strict=True):
                if isinstance(operand, fx.Node):
                    self._names[placeholder] = self.names(operand)

    def leave(self, node: fx.Node, body: fx.Graph) -> None:
        """Give the results of a node the names of what the graph that it runs returns."""
        self._described.clear()
        names = self._nested_names(body.output_node().args[0])
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and isinstance(names, list) and len(names) == 1:
            (names,) = names
        if len(_flat(names)) == len(_leaves(value)):
            self._names[node] = names

    def _nested_names(self, value: Any) -> Names:
        if isinstance(value, fx.Node):
            return self.names(value)
        return list(map(self._nested_names, value)) if isinstance(value, list | tuple) else None

    def outputs(self, graph: fx.Graph) -> tuple[TensorMeta, ...]:
        """Return the tensors that a graph returns, in order."""
        leaves = pytree.tree_leaves(graph.output_node().args)
        values = [self.describe(leaf) for leaf in leaves if isinstance(leaf, fx.Node)]
        tensors = pytree.tree_leaves(values, is_leaf=lambda leaf: isinstance(leaf, TensorMeta))
        return tuple(tensor for tensor in tensors if isinstance(tensor, TensorMeta))

    def _first_names(self, node: fx.Node) -> Names:
        if node.op == "placeholder":
            return self._qualified.get(node.name, self.call_name(node))
        if node.op == "get_attr":
            return self._qualified.get(node.name, str(node.target))
        if node.target is operator.getitem and isinstance(node.args[0], fx.Node):
            names = self.names(node.args[0])
            if isinstance(names, Sequence) and not isinstance(names, str):
                index: Any = node.args[1]
                return names[index]
        return numbered(node.meta.get("val"), self.call_name(node))

    def results(
        self, node: fx.Node, invocation: Invocation, inputs: Mapping[str, Tensors], *, is_view: bool
    ) -> tuple[TensorMeta, ...]:
        """Name the results of an operator: one that is an argument has the argument's name.

        Args:
            node: Node of the call.
            invocation: The operator that it runs in the end, and the results of that.
            inputs: Tensor arguments of the operator.
            is_view: True if its result lies in the memory of an argument.
        """
        if isinstance(invocation.target, OpOverload) and node not in self._names:
            names = self._result_names(node, invocation.target, inputs, is_view=is_view)
            self._names[node] = names
        value, names = node.meta.get("val"), self.names(node)
        if isinstance(value, torch.Tensor) and value is invocation.result:
            meta = self._described[node] = tensor_meta(value, names, self._storages.get(names, ""))
            return (meta,)
        tensors = zip(_leaves(value), _flat(names), strict=True)
        name_of = {id(tensor): name for tensor, name in tensors}
        return tuple(
            self._describe(tensor, name_of.get(id(tensor), ""))  # type: ignore[misc]  # of a tensor
            for tensor in _leaves(invocation.result)
        )

    def _result_names(
        self, node: fx.Node, target: OpOverload, inputs: Mapping[str, Tensors], *, is_view: bool
    ) -> Names:
        names = numbered(node.meta.get("val"), self.call_name(node))
        for position, (argument, is_write) in enumerate(_aliases(target)):
            source = inputs.get(argument)
            if not isinstance(source, TensorMeta):
                source = None
            if source is None and is_view:
                source = next((t for t in inputs.values() if isinstance(t, TensorMeta)), None)
            if source is None:
                continue
            if is_write:
                if isinstance(names, str):
                    return source.name
                if isinstance(names, list) and isinstance(names[position], str):
                    names[position] = source.name
            elif is_view or not isinstance(names, str):
                for name in _flat(names):
                    self._storages[name] = source.storage or source.name
        return names


def numbered(value: Any, name: str) -> Names:
    """Return the names of the tensors in a value: a name for one, ``name.0``, ... for several."""
    if isinstance(value, torch.Tensor):
        return name
    counter = iter(range(len(_leaves(value)) + 1))
    return _numbered(value, name, counter)


def _numbered(value: Any, name: str, counter: Iterator[int]) -> Names:
    if isinstance(value, torch.Tensor):
        return f"{name}.{next(counter)}"
    if isinstance(value, list | tuple):
        return [_numbered(item, name, counter) for item in value]
    return None


def _leaves(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _flat(names: Names) -> list[str]:
    return [name for name in pytree.tree_leaves(names) if name is not None]


def _operands(node: fx.Node) -> list[Any]:
    """Return the arguments of a node that runs graphs, flat, after the graphs."""
    leaves = pytree.tree_leaves((node.args, dict(node.kwargs)))
    graphs = [
        number
        for number, leaf in enumerate(leaves)
        if isinstance(leaf, fx.Node) and leaf.op == "get_attr" and "val" not in leaf.meta
    ]
    rest = leaves[graphs[-1] + 1 :] if graphs else leaves
    return [leaf for leaf in rest if not isinstance(leaf, str)]  # an identifier


@cache
def _aliases(target: OpOverload) -> tuple[tuple[str, bool], ...]:
    """Return for each result the argument whose memory it lies in, and whether that is written."""
    return tuple(
        (_aliased_argument(target, returned.alias_info), _is_write(returned.alias_info))
        for returned in target._schema.returns
    )


def _is_write(alias: Any) -> bool:
    return alias is not None and bool(alias.is_write)


def _aliased_argument(target: OpOverload, alias: Any) -> str:
    for argument in target._schema.arguments if alias is not None else ():
        info = argument.alias_info
        if info is not None and not info.before_set.isdisjoint(alias.before_set):
            return str(argument.name)
    return ""
