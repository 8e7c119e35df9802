"""Critical path of a graph, and what could run side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from graphflops.core.ir import OpRecord
from graphflops.errors import UnboundSymbolError

if TYPE_CHECKING:
    import networkx as nx

Weight: TypeAlias = Literal["flops", "bytes"]
"""What a call weighs: its FLOPs, or the bytes that it reads and writes."""


@dataclass(frozen=True, kw_only=True)
class CriticalPath:
    """Longest chain of calls, each of which needs the result of the one before.

    Attributes:
        records: Records of its calls, in order.
        length: Sum of their weights.
        total: Sum of the weights of all calls. ``total / length`` is the most that running calls
            side by side can gain.
    """

    records: tuple[OpRecord, ...]
    length: int
    total: int


@dataclass(frozen=True, kw_only=True)
class Generation:
    """Calls at the same depth of a graph: none needs the result of another.

    Attributes:
        records: Their records.
        weight: Sum of their weights.
    """

    records: tuple[OpRecord, ...]
    weight: int


def weight_function(weight: Weight) -> Callable[[OpRecord], int]:
    """Return the function that gives the weight of a record; one without a price has none.

    Raises:
        UnboundSymbolError: A cost is symbolic.
    """

    def weigh(record: OpRecord) -> int:
        if record.cost is None:
            return 0
        cost = record.cost
        value = cost.flops if weight == "flops" else cost.bytes_read + cost.bytes_written
        if not isinstance(value, int):
            msg = (
                f"the cost of {record.call.name} is {value}: a path needs numbers. Count with "
                "sizes that are given."
            )
            raise UnboundSymbolError(msg)
        return value

    return weigh


def critical_path(
    graph: nx.MultiDiGraph[Any], nodes: Mapping[str, OpRecord], weight: Weight
) -> CriticalPath:
    """Return the critical path of a graph of calls."""
    import networkx as nx

    weigh = weight_function(weight)
    weights = {name: weigh(record) for name, record in nodes.items()}
    # networkx weighs edges: each has the weight of the call that it leads to.
    weighted: nx.DiGraph[str] = nx.DiGraph()
    weighted.add_nodes_from([_START, *nodes])
    weighted.add_weighted_edges_from((_START, name, weights[name]) for name in nodes)
    weighted.add_weighted_edges_from((u, v, weights[v]) for u, v in set(graph.edges()))
    path: Sequence[str] = nx.dag_longest_path(weighted)
    names = [name for name in path if name != _START]
    return CriticalPath(
        records=tuple(nodes[name] for name in names),
        length=sum(weights[name] for name in names),
        total=sum(weights.values()),
    )


_START = ""


def generations(
    graph: nx.MultiDiGraph[Any], nodes: Mapping[str, OpRecord], weight: Weight
) -> tuple[Generation, ...]:
    """Return the calls of a graph by their depth."""
    import networkx as nx

    weigh = weight_function(weight)
    levels = ([nodes[name] for name in names] for names in nx.topological_generations(graph))
    return tuple(
        Generation(records=tuple(records), weight=sum(map(weigh, records))) for records in levels
    )
