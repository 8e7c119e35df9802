"""What is checked of the graph of a count: its FX form runs, and its edges are those of the run."""

from __future__ import annotations

import copy
import operator
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any

import networkx as nx
import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

import graphflops as gf
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.record.tape import named_tensors
from graphflops.core.ir import OpCall
from graphflops.graph.operator_graph import OperatorGraph

_RANDOM = torch.Tag.nondeterministic_seeded


def problems(
    report: gf.Report, model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Iterator[str]:
    """Yield what is wrong with the graph of a model.

    - ``to_fx`` lints, runs on the inputs and gives what the model gives (not where operators draw
      random numbers).
    - The count of it is the report, record by record.
    - ``to_networkx`` is acyclic; its nodes are the records. The edges into a node are those that
      a run finds with tensors' version counters.

    Args:
        report: Report of the model.
        model: The model. On meta, nothing is run.
        args: Its inputs.
        kwargs: Likewise.
    """
    module = report.graph.to_fx(model)
    module.graph.lint()
    yield from _differences(report, gf.count(module, on_unknown="ignore"))
    if not any(tensor.is_meta for tensor in tensors_in((model.state_dict(), args, kwargs))):
        yield from _problems_of_a_run(report.graph, module, model, args, kwargs)


def _differences(report: gf.Report, again: gf.Report) -> Iterator[str]:
    if len(report.records) != len(again.records):
        yield f"{len(again.records)} records of {len(report.records)}"
    for one, other in zip(report.records, again.records, strict=False):
        different = [
            field.name
            for field in fields(OpCall)
            if field.name != "same_as"  # a result known from tracing, not from the graph
            and getattr(one.call, field.name) != getattr(other.call, field.name)
        ]
        if one.cost != other.cost or one.status != other.status:
            different.append("cost")
        if different:
            yield f"another record of {one.call.name}: {different}"
            return


def _problems_of_a_run(
    graph: OperatorGraph,
    module: fx.GraphModule,
    model: nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
) -> Iterator[str]:
    # Both write to buffers and inputs, each to its own.
    model, args, kwargs = copy.deepcopy((model, args, kwargs))
    module = copy.deepcopy(module)
    inputs = [tensor.clone() for _, tensor in named_tensors(model, tuple(args), kwargs)]
    run = _Run(module)
    with torch.no_grad():
        expected = tensors_in(model(*args, **kwargs))
        outputs = run.run(*inputs)
    if len(outputs) != len(expected):
        yield f"{len(outputs)} outputs of {len(expected)}"
    elif not run.draws and not all(map(_close, outputs, expected)):
        yield "other outputs"
    yield from _other_edges(graph, run.producers)


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.dtype == other.dtype and torch.allclose(one, other, atol=1e-5, equal_nan=True)


def _other_edges(graph: OperatorGraph, producers: Mapping[str, Counter[str]]) -> Iterator[str]:
    flow = graph.to_networkx(sources=True)
    if not nx.is_directed_acyclic_graph(flow):
        yield "a cycle"
    calls = [name for name, kind in flow.nodes(data="kind") if kind == "call"]
    if calls != list(graph.nodes):
        yield "other nodes than records"
    for name in graph.nodes:
        found = Counter(
            producer if flow.nodes[producer]["kind"] == "call" else ""
            for producer, _, _ in flow.in_edges(name, keys=True)
        )
        if found != producers[name]:
            yield f"edges into {name} are from {found}, in a run {producers[name]}"
            return


class _Run(fx.Interpreter):
    """Run of a graph that finds where the values of tensors come from.

    Attributes:
        producers: By node, the nodes that its tensors come from; ``""`` is none.
        draws: Whether an operator draws random numbers.
    """

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.producers: dict[str, Counter[str]] = {}
        self.draws = False
        self._order = {node: number for number, node in enumerate(module.graph.nodes)}
        self._writers: dict[int, fx.Node] = {}

    def run_node(self, node: fx.Node) -> Any:
        """Run a node; note which nodes its tensors come from, and what it writes to."""
        if node.op != "call_function" or node.target is operator.getitem:
            return super().run_node(node)
        self.draws |= _RANDOM in getattr(node.target, "tags", ())
        used = [
            (source, self.env[source])
            for source in pytree.tree_leaves((node.args, node.kwargs))
            if isinstance(source, fx.Node)
        ]
        self.producers[node.name] = Counter(self._producer(*pair) for pair in used)
        before = [tensor._version for _, tensor in used]
        result = super().run_node(node)
        for (_, tensor), version in zip(used, before, strict=True):
            if tensor._version > version:
                self._writers[_storage(tensor)] = node
        return result

    def _producer(self, source: fx.Node, tensor: torch.Tensor) -> str:
        while source.target is operator.getitem:
            source = source.args[0]  # type: ignore[assignment]  # it indexes a node
        writer = self._writers.get(_storage(tensor))
        if writer is not None and self._order[writer] > self._order[source]:
            return writer.name
        return source.name if source.op == "call_function" else ""


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
