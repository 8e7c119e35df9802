"""Graphs of all passes of a report as one ``networkx`` graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphflops.viewers.viewed import Viewed

if TYPE_CHECKING:
    import networkx as nx


def joined_graph(report: Viewed) -> nx.MultiDiGraph[Any]:
    """Return the graphs of a report as one, with inputs and parameters as nodes.

    Nodes have the attributes of ``report.graph.to_networkx()``. Where there are several graphs,
    they have the name of the pass as ``pass`` too, and names of nodes begin with it.

    Args:
        report: Report of any kind. Of a graph that runs several times, it is the first run's.
    """
    import networkx as nx

    graphs = {
        name: execution.run_of(0.0).graph.to_networkx(sources=True)
        for name, execution in report.executions.items()
    }
    if len(graphs) == 1:
        return next(iter(graphs.values()))
    for name, graph in graphs.items():
        nx.set_node_attributes(graph, name, "pass")
    return nx.union_all(graphs.values(), rename=[f"{name}/" for name in graphs])
