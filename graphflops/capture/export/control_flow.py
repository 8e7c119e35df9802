"""Control flow in graphs: the branches that a count takes, and the trip counts of loops."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import fx

from graphflops.capture.record.decompose import Expander
from graphflops.capture.record.op_calls import Branching, operator_calls
from graphflops.capture.unfused_attention import mark_masked_products
from graphflops.conventions.exact import exact
from graphflops.core.call_sequence import CallSequence
from graphflops.core.cost import OpCost, as_dim
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.pricing.price import price_all


class GraphCalls(NamedTuple):
    """Calls of a graph.

    Attributes:
        calls: Operator calls; those of branches that are not taken have trip count 0.
        outputs: Tensors that the graph returns, in order.
        fallback: PyTorch's formulas and decompositions, for operators without a handler.
        notes: Notes on branches that are taken, and on loops that count one trip.
        control_flow: Operators whose graphs do not simply run in the order of the calls.
    """

    calls: tuple[OpCall, ...]
    outputs: tuple[TensorMeta, ...]
    fallback: Expander
    notes: tuple[str, ...]
    control_flow: tuple[str, ...]


def calls_of_graph(
    module: fx.GraphModule,
    resolve_path: Callable[[fx.Node], str | None],
    views: Container[fx.Node] = (),
    backward: Container[fx.Node] = (),
    qualified_names: Mapping[str, str] | None = None,
) -> GraphCalls:
    """Return the calls of a graph, of each conditional those of its most expensive branch.

    Args:
        module: Argument of ``operator_calls``, as the others.
        resolve_path: Likewise.
        views: Likewise.
        backward: Likewise.
        qualified_names: Likewise.
    """
    graph = operator_calls(module, resolve_path, views, backward, qualified_names)
    calls, fallback = list(graph.calls), Expander(graph.invocation)
    notes = []
    for branching in graph.branchings:
        costs = [
            _cost(calls[branch.start : branch.stop], fallback) for branch in branching.branches
        ]
        taken, _ = _largest(costs)
        for branch in (b for index, b in enumerate(branching.branches) if index != taken):
            for index in branch:
                calls[index] = replace(calls[index], trip_count=0)
        notes.append(_branching_note(branching, costs))
    notes += [_LOOP.format(name=name, at=_location(source)) for name, source in graph.loops]
    marked = tuple(mark_masked_products(CallSequence(calls)))
    unique_notes = tuple(dict.fromkeys(notes))
    return GraphCalls(marked, graph.outputs, fallback, unique_notes, graph.control_flow)


_LOOP = (
    "{name}{at} counts one trip, its condition and its body: how many there are is up to the "
    "values of its inputs."
)


def _cost(calls: Sequence[OpCall], fallback: Expander) -> OpCost:
    costs = (record.cost for record in price_all(calls, exact(), fallback))
    return sum(filter(None, costs), start=OpCost())


def _largest(costs: Sequence[OpCost]) -> tuple[int, bool]:
    """Return the index of the largest cost, and True if it is the largest for all sizes."""
    largest, is_certain = 0, True
    for index, cost in enumerate(costs):
        is_larger = _is_larger(cost, costs[largest])
        is_certain = is_certain and is_larger is not None
        largest = index if is_larger else largest
    return largest, is_certain


def _is_larger(cost: OpCost, other: OpCost) -> bool | None:
    """Compare by FLOPs, then by MACs and bytes; ``None`` if the result depends on sizes."""
    for (_, ours), (_, theirs) in zip(cost.items(), other.items(), strict=True):
        difference = as_dim(ours - theirs)
        if difference != 0:
            return difference > 0 if isinstance(difference, int) else difference.is_positive
    return False


def _branching_note(branching: Branching, costs: Sequence[OpCost]) -> str:
    taken, is_certain = _largest(costs)
    listed = ", ".join(
        f"the {name} branch {cost.flops} FLOPs"
        for name, cost in zip(branching.names, costs, strict=True)
    )
    reason = "the larger one" if is_certain else "though for other sizes another may be larger"
    return (
        f"{branching.op}{_location(branching.source)} counts its {branching.names[taken]} branch, "
        f"{reason}: {listed}."
    )


def _location(source_line: str) -> str:
    return f" at {source_line}" if source_line else ""
