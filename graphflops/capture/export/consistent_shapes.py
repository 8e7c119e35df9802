"""Shapes of a graph that is counted without inputs: its own, or propagated where these disagree."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import NamedTuple

from torch import fx

from graphflops.capture.export.propagation import (
    PropagationError,
    copy_graph,
    nodes_without_shapes,
    propagate_from_placeholders,
)
from graphflops.capture.export.stale_shapes import difference, stale_nodes
from graphflops.capture.record.op_calls import GIVES_OPERANDS
from graphflops.capture.torch_internals.trees import pytree
from graphflops.errors import CaptureError


def with_consistent_shapes(
    module: fx.GraphModule, *, is_subgraph: bool = False
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Return a graph whose nodes have shapes, and notes if they are not those of ``module``.

    If shapes are missing or stale, all are propagated from the placeholders, in a copy. Stale ones
    are left if that is impossible: sizes are symbolic, or a node does not run on what it gets.

    Args:
        module: The graph; it is left unchanged.
        is_subgraph: True for a graph that an operator runs, perhaps under autocast.

    Raises:
        CaptureError: Shapes are missing, and cannot be propagated.
    """
    graph, notes = _with_own_shapes(module, is_subgraph=is_subgraph)
    for subgraph in _subgraphs(graph):
        other, other_notes = with_consistent_shapes(subgraph.with_operands(), is_subgraph=True)
        notes += other_notes
        if other is not subgraph.module:
            graph = copy_graph(module) if graph is module else graph
            path, _, attribute = subgraph.name.rpartition(".")
            setattr(graph.get_submodule(path), attribute, other)
    return graph, tuple(dict.fromkeys(notes))


class _Subgraph(NamedTuple):
    """Graph that operators of another graph run.

    Attributes:
        name: Name of it as an attribute of the other one.
        module: The graph.
        operands: Its placeholders with the nodes that an operator gives for them.
    """

    name: str
    module: fx.GraphModule
    operands: tuple[tuple[fx.Node, fx.Node], ...]

    def stale_placeholders(self) -> list[str]:
        """Return a description of each placeholder that is given another shape."""
        differences = (
            (inner, difference(inner.meta.get("val"), outer.meta.get("val")))
            for inner, outer in self.operands
        )
        return [f"{inner.name!r} of {self.name} {text}" for inner, text in differences if text]

    def with_operands(self) -> fx.GraphModule:
        """Return the graph, or a copy whose placeholders have the shapes of what they are given."""
        if not self.stale_placeholders():
            return self.module
        copy = copy_graph(self.module)
        values = {inner.name: outer.meta.get("val") for inner, outer in self.operands}
        for node in copy.graph.find_nodes(op="placeholder"):
            if node.name in values:
                node.meta["val"] = values[node.name]
        return copy


def _subgraphs(module: fx.GraphModule) -> tuple[_Subgraph, ...]:
    """Return the graphs that operators of a graph run, each once."""
    sources: dict[str, list[fx.Node]] = {}
    for node in module.graph.find_nodes(op="get_attr"):
        sources.setdefault(str(node.target), []).append(node)
    parts = {name: operator.attrgetter(name)(module) for name in sources}
    return tuple(
        _Subgraph(name, part, _operands(part, sources[name]))
        for name, part in parts.items()
        if isinstance(part, fx.GraphModule)
    )


def _operands(
    part: fx.GraphModule, sources: Iterable[fx.Node]
) -> tuple[tuple[fx.Node, fx.Node], ...]:
    """Return the placeholders of a subgraph with the nodes that the first operator gives for them.

    Args:
        part: The subgraph.
        sources: Nodes that read it.
    """
    placeholders = part.graph.find_nodes(op="placeholder")
    for node in (user for source in sources for user in source.users):
        if getattr(node.target, "_name", "") in GIVES_OPERANDS and placeholders:
            leaves = pytree.tree_leaves(node.args)
            pairs = zip(placeholders, leaves[-len(placeholders) :], strict=False)
            return tuple((inner, outer) for inner, outer in pairs if isinstance(outer, fx.Node))
    return ()


def _with_own_shapes(
    module: fx.GraphModule, *, is_subgraph: bool
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Return a graph whose nodes, without those of subgraphs, have shapes that agree, and notes."""
    missing = nodes_without_shapes(module)
    stale = stale_nodes(module.graph, with_dtypes=not is_subgraph)
    stale += [text for part in _subgraphs(module) for text in part.stale_placeholders()]
    if not (missing or stale):
        return module, ()
    if missing:
        problem = (
            f"meta['val'] is missing at {len(missing)} of the graph's nodes, "
            f"{missing[0].name!r} first"
        )
    else:
        others = f" (the first of {len(stale)} nodes)" if len(stale) > 1 else ""
        problem = f"meta['val'] of the graph is stale: {stale[0]}{others}"
    obstacle = "sizes are symbolic, or placeholders have none"
    try:
        graph = propagate_from_placeholders(module)
    except PropagationError as error:
        graph, obstacle = None, f"from those of the placeholders, {error}"
    if graph is not None:
        return graph, (f"{problem}. The shapes are propagated from those of the placeholders.",)
    if missing:
        msg = (
            f"{problem}, so there are no shapes to price ({obstacle}). Give example inputs: "
            "count(graph_module, args)."
        )
        raise CaptureError(msg)
    note = f"{problem}. It counts as it stands, since shapes cannot be propagated: {obstacle}."
    return module, (note,)
