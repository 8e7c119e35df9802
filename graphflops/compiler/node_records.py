"""Records of a count by the node of the graph that makes their calls."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import fx

from graphflops.capture.export.program import is_aten_graph
from graphflops.capture.record.op_calls import operator_calls
from graphflops.core.ir import OpRecord, combine_records
from graphflops.counting.forward import count

_CALLS = {"call_function", "call_method", "call_module"}
_TAG = "graphflops_node_"


def records_by_node(
    module: fx.GraphModule, records: Sequence[OpRecord], args: Sequence[Any] = ()
) -> dict[fx.Node, OpRecord]:
    """Return the record of each node that calls operators, nodes of subgraphs included.

    A node that makes several calls (a torch function, a fused kernel, an operator in a subgraph
    that runs more than once) has a record of their sum, of which they are the parts.

    Args:
        module: The graph that was counted.
        records: Records of the count.
        args: Inputs that it was counted with.
    """
    graphs = [part for part in module.modules() if isinstance(part, fx.GraphModule)]
    nodes = [node for part in graphs for node in part.graph.nodes if node.op in _CALLS]
    if not is_aten_graph(module):
        pairs = _count_with_tags(nodes, module, records, args)
    elif len(graphs) == 1:
        by_name = {node.name: node for node in nodes}
        pairs = ((by_name[record.call.name], record) for record in records)
    else:
        pairs = _walk_again(nodes, module, records)
    grouped: dict[fx.Node, list[OpRecord]] = {}
    for node, record in pairs:
        grouped.setdefault(node, []).append(record)
    return {node: combine_records(group) for node, group in grouped.items()}


def _walk_again(
    nodes: Sequence[fx.Node], module: fx.GraphModule, records: Sequence[OpRecord]
) -> Iterator[tuple[fx.Node, OpRecord]]:
    """Tie by a second walk of the graph: nodes of different subgraphs may share a name."""
    numbers = {node: str(number) for number, node in enumerate(nodes)}
    calls = operator_calls(module, numbers.__getitem__).calls
    for call, record in zip(calls, records, strict=True):
        yield nodes[int(call.module_path)], record


def _count_with_tags(
    nodes: Sequence[fx.Node],
    module: fx.GraphModule,
    records: Sequence[OpRecord],
    args: Sequence[Any],
) -> Iterator[tuple[fx.Node, OpRecord]]:
    """Tie by a second count, in which the module path of a call is the number of its node.

    A torch function calls operators whose names are not those of its node.
    """
    tags = {node: f"{_TAG}{number}" for number, node in enumerate(nodes)}
    tagged = count(_tagged_copy(module, tags), args, on_unknown="ignore").records
    for copy, record in zip(tagged, records, strict=True):
        tag = copy.call.module_path.partition(".")[0]
        yield nodes[int(tag.removeprefix(_TAG))], record


def _tagged_copy(module: fx.GraphModule, tags: Mapping[fx.Node, str]) -> fx.GraphModule:
    """Return a copy of a graph over the same weights, each node in a module of its own."""
    graph, attributes = fx.Graph(), {}
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        copy = copies[node] = graph.node_copy(node, copies.__getitem__)
        if node.op in _CALLS:
            copy.meta["nn_module_stack"] = {"": (tags[node], "")}
        if node.op == "call_module":
            copy.target = f"{tags[node]}.module"
            attributes[copy.target] = module.get_submodule(str(node.target))
        elif node.op == "get_attr":
            value = operator.attrgetter(str(node.target))(module)
            is_graph = isinstance(value, fx.GraphModule)
            attributes[str(node.target)] = _tagged_copy(value, tags) if is_graph else value
    return fx.GraphModule(attributes, graph)
