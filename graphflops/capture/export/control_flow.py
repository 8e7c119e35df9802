"""Branches and loops of a graph: which of them a count takes, and how often."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import fx

from graphflops.capture.record.decompose import Expander
from graphflops.capture.record.op_calls import Branching, operator_calls
from graphflops.conventions.exact import exact
from graphflops.core.cost import OpCost, as_dim
from graphflops.core.ir import OpCall
from graphflops.pricing.price import price_all


class GraphCalls(NamedTuple):
    """What is read off a graph.

    Attributes:
        calls: Its operator calls; those of branches that are not taken run 0 times.
        fallback: What PyTorch knows of operators without a handler.
        notes: Which branches are taken, and which loops count one trip.
    """

    calls: tuple[OpCall, ...]
    fallback: Expander
    notes: tuple[str, ...]


def calls_of_graph(
    module: fx.GraphModule,
    resolve_path: Callable[[fx.Node], str | None],
    views: Container[fx.Node] = (),
    backward: Container[fx.Node] = (),
) -> GraphCalls:
    """Read the calls of a graph, of each branching the branch that costs most.

    Args:
        module: As ``operator_calls`` takes it, like the others.
        resolve_path: Likewise.
        views: Likewise.
        backward: Likewise.
    """
    found = operator_calls(module, resolve_path, views, backward)
    calls, fallback = list(found.calls), Expander(found.invocation)
    notes = []
    for branching in found.branchings:
        costs = [
            _cost(calls[branch.start : branch.stop], fallback) for branch in branching.branches
        ]
        taken, _ = _largest(costs)
        for branch in (b for at, b in enumerate(branching.branches) if at != taken):
            for index in branch:
                calls[index] = replace(calls[index], trip_count=0)
        notes.append(_branching_note(branching, costs))
    notes += [_LOOP.format(name=name, at=_at(source)) for name, source in found.loops]
    return GraphCalls(tuple(calls), fallback, tuple(dict.fromkeys(notes)))


_LOOP = (
    "{name}{at} counts one trip, its condition and its body: how many there are is up to the "
    "values of its inputs."
)


def _cost(calls: Sequence[OpCall], fallback: Expander) -> OpCost:
    costs = (record.cost for record in price_all(calls, exact(), fallback))
    return sum(filter(None, costs), start=OpCost())


def _largest(costs: Sequence[OpCost]) -> tuple[int, bool]:
    """Return which of some costs is the largest, and whether that holds for all sizes."""
    taken, certain = 0, True
    for at, cost in enumerate(costs):
        is_larger = _is_larger(cost, costs[taken])
        certain = certain and is_larger is not None
        taken = at if is_larger else taken
    return taken, certain


def _is_larger(cost: OpCost, other: OpCost) -> bool | None:
    """Compare by FLOPs, then by MACs and bytes; ``None`` if it is up to sizes."""
    for (_, ours), (_, theirs) in zip(cost.items(), other.items(), strict=True):
        difference = as_dim(ours - theirs)
        if difference != 0:
            return difference > 0 if isinstance(difference, int) else difference.is_positive
    return False


def _branching_note(branching: Branching, costs: Sequence[OpCost]) -> str:
    taken, certain = _largest(costs)
    each = ", ".join(
        f"the {name} branch {cost.flops} FLOPs"
        for name, cost in zip(branching.names, costs, strict=True)
    )
    why = "the larger one" if certain else "though for other sizes another may be larger"
    return (
        f"{branching.op}{_at(branching.source)} counts its {branching.names[taken]} branch, "
        f"{why}: {each}."
    )


def _at(source: str) -> str:
    return f" at {source}" if source else ""
