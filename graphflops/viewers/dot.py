"""Graphs in DOT, which Graphviz draws: modules are boxes around their calls."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graphflops.errors import OutputError
from graphflops.render.escape import visible
from graphflops.render.units import quantity
from graphflops.viewers.joined_graph import joined_graph
from graphflops.viewers.viewed import Viewed

if TYPE_CHECKING:
    import pydot

_SOURCE_STYLE = {"shape": "ellipse", "fillcolor": '"#e8e8e8"'}
_ESCAPES = str.maketrans({"&": "&amp;", "\\": r"\\", '"': "&quot;"})
_HUE = 0.083
"""Hue of the calls that cost something: orange, deeper for a larger share."""


def check_pydot() -> None:
    """Check that a graph in DOT can be written.

    Raises:
        OutputError: pydot is not installed.
    """
    if importlib.util.find_spec("pydot") is None:
        msg = "DOT needs pydot, which is not installed: pip install 'graphflops[viewers]'."
        raise OutputError(msg)


def dot(report: Viewed) -> str:
    """Return the graphs of a report in DOT, as one graph.

    The colour of a call is deeper the more FLOPs it has, next to the one that has most. Parameters
    and constants are left out, which would hide what the graph does.

    Args:
        report: Report of any kind. Of a graph that runs several times, it is the first run's.

    Raises:
        OutputError: pydot is not installed.
    """
    check_pydot()
    import pydot

    graph = joined_graph(report)
    kinds = graph.nodes(data="kind")
    graph.remove_nodes_from([name for name, kind in kinds if kind == "parameter"])
    whole = pydot.Dot(_quoted(report.model), graph_type="digraph", compound="true")
    whole.set_node_defaults(shape="box", style="filled", fillcolor="white", fontname="sans-serif")
    clusters = _Clusters(whole)
    counts = (facts.get("flops") for _, facts in graph.nodes(data=True))
    most = max((count for count in counts if isinstance(count, int)), default=0)
    for name, facts in graph.nodes(data=True):
        node = pydot.Node(_quoted(name))
        for attribute, value in _node_style(facts, most).items():
            node.set(attribute, value)
        clusters.of(_place(facts)).add_node(node)
    for producer, consumer, facts in graph.edges(data=True):
        label = _quoted(f"{facts['dtype']}[{facts['shape']}]")
        whole.add_edge(pydot.Edge(_quoted(producer), _quoted(consumer), label=label))
    return str(whole.to_string())


class _Clusters:
    """Boxes around the calls of modules, each in that of the module around it.

    Args:
        whole: The graph.
    """

    def __init__(self, whole: pydot.Dot) -> None:
        self._clusters: dict[tuple[str, ...], pydot.Graph] = {(): whole}

    def of(self, place: tuple[str, ...]) -> pydot.Graph:
        """Return the box of a module by the names of those around it and its own."""
        import pydot

        if place not in self._clusters:
            outer = self.of(place[:-1])
            cluster = pydot.Cluster(str(len(self._clusters)), label=_quoted(place[-1]))
            outer.add_subgraph(cluster)  # type: ignore[arg-type]  # all of pydot's graphs will do
            self._clusters[place] = cluster
        return self._clusters[place]


def _place(facts: Mapping[str, Any]) -> tuple[str, ...]:
    names = (facts.get("pass", ""), *facts.get("module", "").split("."))
    return tuple(name for name in names if name)


def _node_style(facts: Mapping[str, Any], most: int) -> dict[str, str]:
    if facts["kind"] != "call":
        label = _quoted(facts["tensor"], f"{facts['dtype']}[{facts['shape']}]")
        return {**_SOURCE_STYLE, "label": label}
    flops = facts.get("flops", 0)
    lines = [facts["op"], *([quantity(flops, "FLOPs")] if isinstance(flops, int) and flops else [])]
    place = f"{facts['module_class']} {facts['module']}, {facts['line']}".strip()
    share = flops / most if len(lines) > 1 else 0.0
    return {
        "label": _quoted(*lines),
        "fillcolor": _quoted(f"{_HUE} {share:.3f} 1.0"),
        # Some versions of Graphviz read escapes in a tooltip twice.
        "tooltip": _quoted(visible(place).replace("\\", "\u29f5")),
    }


def _quoted(*lines: str) -> str:
    """Return lines as a string of DOT that is shown as it is.

    A quote ends the string, a backslash begins an escape, and Graphviz reads entities of HTML.
    """
    return '"' + r"\n".join(visible(line).translate(_ESCAPES) for line in lines) + '"'
