"""Cuts of a graph into pipeline stages of equal cost, for ``torch.distributed.pipelining``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from typing import Any

import torch
from torch import fx

from graphflops.capture.torch_internals.compiler import pipe_split_operator
from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.compiler.annotation import annotate
from graphflops.core.ir import OpRecord
from graphflops.errors import ModelSpecError
from graphflops.graph.fx_builder import META_KEY
from graphflops.graph.stages import balanced_stages

SplitPolicy = Callable[[fx.GraphModule], fx.GraphModule]
"""Function that marks the ends of stages in a graph."""


def split_policy(stages: int, *, slack: float = 0.02) -> SplitPolicy:
    """Return a policy that cuts a model into stages of equal FLOPs.

    Of the cuts that balance FLOPs within ``slack`` of the best, those are taken across which the
    fewest bytes pass. No cut separates a write in place from another use of the same memory, nor
    an operator from the items of its result. Inputs that a later stage needs go through the first.

    Args:
        stages: Number of stages.
        slack: Share by which the most expensive stage may exceed the least possible.

    Returns:
        A ``split_policy`` for ``torch.distributed.pipelining.pipeline``. It leaves the record of
        each node in ``node.meta["graphflops"]``, and raises ``ModelSpecError`` for a graph that
        has fewer places to cut than stages, or symbolic sizes.

    Example:
        >>> import torch
        >>> from torch.distributed.pipelining import pipeline
        >>> model = torch.nn.Sequential(*(torch.nn.Linear(8, 8) for _ in range(6)))
        >>> pipe = pipeline(model, (torch.ones(2, 8),), split_policy=split_policy(3))
        >>> [sum(p.numel() for p in pipe.get_stage_module(i).parameters()) for i in range(3)]
        [144, 144, 144]
    """

    def policy(graph_module: fx.GraphModule) -> fx.GraphModule:
        annotate(graph_module)
        _insert_splits(graph_module, stages, slack)
        graph_module.recompile()
        return graph_module

    return policy


def _insert_splits(module: fx.GraphModule, stages: int, slack: float) -> None:
    nodes = list(module.graph.nodes)
    crossing = _crossing_bytes(nodes)
    places = [place for place in _places(nodes) if crossing[place] is not None]
    if stages > len(places) + 1:
        msg = (
            f"the graph can be cut in {len(places)} places, too few for {stages} stages: not where "
            "memory is in use that is written in place, nor where a value that is no tensor would "
            "have to be sent. Ask for fewer stages."
        )
        raise ModelSpecError(msg)
    ends = [0, *accumulate(_flops(module, node) for node in nodes)]
    starts, stops = [0, *places], [*places, len(nodes)]
    parts = balanced_stages(
        [ends[stop] - ends[start] for start, stop in zip(starts, stops, strict=True)],
        stages,
        [crossing[start] or 0 for start in starts],
        slack,
    )
    cuts = [nodes[starts[part.start]] for part in parts[1:]]
    for cut in cuts:
        with module.graph.inserting_before(cut):
            module.graph.call_function(pipe_split_operator(), ())
    if cuts:
        _pass_inputs_on(module.graph, nodes, cuts[0])


def _flops(module: fx.GraphModule, node: fx.Node) -> int:
    """Return the FLOPs of a node and of the graphs that it runs."""
    record: OpRecord | None = node.meta.get(META_KEY)
    flops = 0 if record is None or record.cost is None else record.cost.flops
    if not isinstance(flops, int):
        msg = (
            f"the FLOPs of {node.name!r} are {flops}: a stage cannot be balanced with sizes that "
            "are open. Trace the model without dynamic shapes."
        )
        raise ModelSpecError(msg)
    return flops + sum(
        _flops(body, inner) for body in _bodies(module, node) for inner in body.graph.nodes
    )


def _bodies(module: fx.GraphModule, node: fx.Node) -> Iterator[fx.GraphModule]:
    for source in node.all_input_nodes:
        body = getattr(module, str(source.target), None) if source.op == "get_attr" else None
        if isinstance(body, fx.GraphModule):
            yield body


def _places(nodes: Sequence[fx.Node]) -> list[int]:
    """Return the positions before which a stage may begin, its first node and others before it."""
    computing = [i for i, node in enumerate(nodes) if node.op.startswith("call_")]
    closed: set[int] = set()
    for first, last in _memory_in_flux(nodes):
        closed.update(range(first + 1, last + 1))
    return [place for place in computing[1:] if place not in closed]


def _memory_in_flux(nodes: Sequence[fx.Node]) -> Iterator[tuple[int, int]]:
    """Yield the first and the last use of each memory that is written in place.

    A stage sends copies: a write in one does not reach what another has. Whatever may be a view,
    by the schema of its operator, counts as one.
    """
    memory: dict[fx.Node, Any] = {}
    spans: dict[Any, list[int]] = {}
    written: set[Any] = set()
    for position, node in enumerate(nodes):
        aliased, targets = _aliased_arguments(node), _aliased_arguments(node, written=True)
        own = node.target if node.op == "get_attr" else node
        memory[node] = memory[aliased[0]] if aliased else own
        written.update(memory[target] for target in targets)
        if node.op.startswith("call_"):
            for used in (memory[node], *(memory[source] for source in node.all_input_nodes)):
                spans.setdefault(used, []).append(position)
    for storage in written:
        yield spans[storage][0], spans[storage][-1]


def _aliased_arguments(node: fx.Node, *, written: bool = False) -> list[fx.Node]:
    """Return the arguments in whose memory a result may lie, or those that are written to."""
    if not isinstance(node.target, OpOverload):
        return node.all_input_nodes if node.target is operator.getitem and not written else []
    schema = node.target._schema
    returned = [result.alias_info.before_set for result in schema.returns if result.alias_info]
    nodes: list[fx.Node] = []
    for position, argument in enumerate(schema.arguments):
        info = argument.alias_info
        if info is None:
            continue
        is_returned = any(not info.before_set.isdisjoint(symbols) for symbols in returned)
        if info.is_write if written else is_returned:
            value = node.args[position : position + 1] or node.kwargs.get(argument.name)
            fx.map_arg(value, nodes.append)
    return nodes


def _crossing_bytes(nodes: Sequence[fx.Node]) -> list[int | None]:
    """Return the bytes of results that are used at or after each position and made before it.

    ``None`` where a value that is no tensor crosses, which no stage can send.
    """
    position = {node: index for index, node in enumerate(nodes)}
    changes, closed = [0] * (len(nodes) + 1), [0] * (len(nodes) + 1)
    for index, node in enumerate(nodes):
        last = max((position[user] for user in node.users if user.op != "output"), default=index)
        if node.op == "get_attr" or last <= index:
            continue
        value = node.meta.get("val")
        is_tensor = isinstance(value, torch.Tensor)
        for counts, amount in ((changes, _nbytes(value)), (closed, 0 if is_tensor else 1)):
            counts[index + 1] += amount
            counts[last + 1] -= amount
    sums = zip(accumulate(changes), accumulate(closed), strict=True)
    return [None if others else nbytes for nbytes, others in sums]


def _nbytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, torch.Tensor) else 0


def _pass_inputs_on(graph: fx.Graph, nodes: Sequence[fx.Node], cut: fx.Node) -> None:
    """Let later stages take inputs of the model from the first stage, which alone is given them.

    All inputs are used first in their own order: so the first stage takes them.
    """
    later = set(nodes[nodes.index(cut) :])
    inputs = [node for node in nodes if node.op == "placeholder" and node.users]
    if not any(user in later and user.op != "output" for node in inputs for user in node.users):
        return
    first = next(node for node in nodes if node.op.startswith("call_"))
    # torch asks each node for its modules: these are of the model itself.
    stack = dict(islice(first.meta.get("nn_module_stack", {}).items(), 1))
    for node in inputs:
        with graph.inserting_before(first):
            alias = graph.call_function(torch.ops.aten.alias.default, (node,))
        alias.meta = {"val": node.meta.get("val"), "nn_module_stack": stack}
        for user in list(node.users):
            if user is not alias:
                user.replace_input_with(node, alias)
