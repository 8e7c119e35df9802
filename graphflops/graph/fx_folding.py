"""Folding of repeated layers: each kind once, as a submodule that its instances call."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from graphflops.core.call_sequence import Block, CallSequence, Repeat
from graphflops.core.ir import OpRecord
from graphflops.graph.fx_builder import META_KEY, UnboundGraph


def fold(unbound: UnboundGraph, records: Sequence[OpRecord]) -> None:
    """Move the calls of repeated layers into submodules.

    Args:
        unbound: Graph of the records, unfolded. It is modified.
        records: The records.
    """
    nodes = _nodes_by_position(unbound.graph, records)
    for path, spans in _repeated_layers(CallSequence.of(records)):
        instances = [_Instance([node for i in span for node in nodes[i]], path) for span in spans]
        same = [other for other in instances if other.pattern == instances[0].pattern]
        if len(same) > 1:
            _fold(unbound, same)


def _nodes_by_position(graph: fx.Graph, records: Sequence[OpRecord]) -> list[list[fx.Node]]:
    """Return the nodes of each record: the call and what picks its results."""
    nodes: dict[str, list[fx.Node]] = {record.call.name: [] for record in records}
    for node in graph.nodes:
        source: Any = node
        while source.target is operator.getitem:
            source = source.args[0]
        if source.name in nodes:
            nodes[source.name].append(node)
    return list(nodes.values())


def _repeated_layers(records: CallSequence[OpRecord]) -> Iterator[tuple[str, list[range]]]:
    """Yield the path of each layer that is repeated, and the positions of its instances."""
    kinds: dict[Block[OpRecord], tuple[str, list[range]]] = {}
    starts: dict[int, int] = {}
    position = 0
    for item in records.items:
        if not isinstance(item, Repeat):
            starts[item.call.index] = position
            position += 1
            continue
        block, first = item.block, starts.get(item.block.start)
        if first is not None:
            only_first = (item.relocation.from_path, [range(first, first + block.length)])
            spans = kinds.setdefault(block, only_first)[1]
            spans.append(range(position, position + block.length))
        position += block.length
    yield from kinds.values()


class _Instance:
    """Nodes of one instance of a layer.

    Attributes:
        nodes: The nodes, in order.
        module_class: Class of the layer.
        operands: Nodes outside of it that it uses, in the order of their first use.
        pattern: What it computes from these; equal for equal instances.
    """

    def __init__(self, nodes: Sequence[fx.Node], path: str) -> None:
        self.nodes = nodes
        self.module_class = nodes[0].meta["nn_module_stack"].get(path, (path, ""))[1] or "Layer"
        self.operands: dict[fx.Node, _Operand] = {}
        self._places = {node: _Result(number) for number, node in enumerate(nodes)}
        self.pattern = [(node.target, *map(str, self._arguments(node))) for node in nodes]

    def _arguments(self, node: fx.Node) -> tuple[Any, ...]:
        return fx.map_arg((node.args, dict(node.kwargs)), self._place)

    def _place(self, node: fx.Node) -> Any:
        if node in self._places:
            return self._places[node]
        return self.operands.setdefault(node, _Operand(len(self.operands)))

    def results(self) -> set[int]:
        """Return the numbers of the nodes that are used outside of it."""
        return {
            number
            for number, node in enumerate(self.nodes)
            if any(user not in self._places for user in node.users)
        }


@dataclass(frozen=True)
class _Operand:
    number: int


@dataclass(frozen=True)
class _Result:
    number: int


def _fold(unbound: UnboundGraph, instances: Sequence[_Instance]) -> None:
    results = sorted(set().union(*(instance.results() for instance in instances)))
    first = instances[0]
    name = _free_name(unbound.attributes, first.module_class)
    unbound.attributes[name] = _submodule(first, results)
    replaced: dict[fx.Node, fx.Node] = {}
    for instance in instances:
        operands = [replaced.get(operand, operand) for operand in instance.operands]
        replaced |= _replace(unbound.graph, instance, operands, results, name)


def _submodule(instance: _Instance, results: Sequence[int]) -> fx.GraphModule:
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for operand in instance.operands:
        copies[operand] = graph.placeholder(operand.name)
        copies[operand].meta["val"] = operand.meta["val"]
    for node in instance.nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(tuple(copies[instance.nodes[number]] for number in results))
    return fx.GraphModule({}, graph, class_name=instance.module_class)


def _replace(
    graph: fx.Graph,
    instance: _Instance,
    operands: Sequence[fx.Node],
    results: Sequence[int],
    name: str,
) -> dict[fx.Node, fx.Node]:
    """Replace an instance by a call of the submodule; return the new node of each result."""
    with graph.inserting_after(instance.nodes[-1]):
        call = graph.call_module(name, tuple(operands))
    call.meta["nn_module_stack"] = instance.nodes[0].meta["nn_module_stack"]
    call.meta["val"] = tuple(instance.nodes[number].meta["val"] for number in results)
    records = (node.meta.get(META_KEY) for node in instance.nodes)
    call.meta[META_KEY] = tuple(record for record in records if record is not None)
    replaced, last = {}, call
    for place, number in enumerate(results):
        with graph.inserting_after(last):
            last = graph.call_function(operator.getitem, (call, place))
        last.meta["val"] = call.meta["val"][place]
        replaced[instance.nodes[number]] = last
        instance.nodes[number].replace_all_uses_with(last)
    for node in reversed(instance.nodes):
        graph.erase_node(node)
    return replaced


def _free_name(attributes: Iterable[str], name: str) -> str:
    taken = {attribute.partition(".")[0] for attribute in attributes}
    numbered = (f"{name}_{number}" if number else name for number in range(len(taken) + 1))
    return next(candidate for candidate in numbered if candidate not in taken)
