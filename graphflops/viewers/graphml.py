"""Graphs in GraphML, which yEd, Gephi, Cytoscape and networkx read."""

from __future__ import annotations

import re
from typing import Any

from graphflops.viewers.joined_graph import joined_graph
from graphflops.viewers.viewed import Viewed

_NOT_XML = re.compile("[^\t\n\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML has no place for, and the carriage return, which is read as a line feed."""


def graphml(report: Viewed) -> str:
    """Return the graphs of a report in GraphML, as one graph.

    Symbolic costs are texts. Characters that XML has no place for become U+FFFD.

    Args:
        report: Report of any kind. Of a graph that runs several times, it is the first run's.
    """
    import networkx as nx

    graph = nx.relabel_nodes(joined_graph(report), _xml)
    facts = [*(facts for _, facts in graph.nodes(data=True))]
    facts += [facts for *_, facts in graph.edges(data=True)]
    for attributes in facts:
        attributes.update({key: _xml(value) for key, value in attributes.items()})
    return "\n".join(nx.generate_graphml(graph))


def _xml(value: Any) -> Any:
    return _NOT_XML.sub("\ufffd", value) if isinstance(value, str) else value
