"""Shapes of a graph that is counted without inputs: its own, or propagated where these disagree."""

from __future__ import annotations

import operator

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
    for name, part in _subgraphs(module).items():
        other, other_notes = with_consistent_shapes(_with_operands(graph, name), is_subgraph=True)
        notes += other_notes
        if other is not part:
            graph = copy_graph(module) if graph is module else graph
            path, _, attribute = name.rpartition(".")
            setattr(graph.get_submodule(path), attribute, other)
    return graph, tuple(dict.fromkeys(notes))


def _subgraphs(module: fx.GraphModule) -> dict[str, fx.GraphModule]:
    """Return the graphs that operators of a graph run, by name."""
    names = dict.fromkeys(str(node.target) for node in module.graph.find_nodes(op="get_attr"))
    values = {name: operator.attrgetter(name)(module) for name in names}
    return {name: part for name, part in values.items() if isinstance(part, fx.GraphModule)}


def _operands(module: fx.GraphModule, name: str) -> list[tuple[fx.Node, fx.Node]]:
    """Return the placeholders of a subgraph with the nodes that an operator gives for them."""
    part = _subgraphs(module)[name]
    placeholders = part.graph.find_nodes(op="placeholder")
    for source in module.graph.find_nodes(op="get_attr"):
        for node in source.users if source.target == name else ():
            leaves = pytree.tree_leaves(node.args)
            if getattr(node.target, "_name", "") in GIVES_OPERANDS and placeholders:
                pairs = zip(placeholders, leaves[-len(placeholders) :], strict=False)
                return [(inner, outer) for inner, outer in pairs if isinstance(outer, fx.Node)]
    return []


def _with_operands(module: fx.GraphModule, name: str) -> fx.GraphModule:
    """Return a subgraph whose placeholders have the shapes of what they are given."""
    part = _subgraphs(module)[name]
    values = {inner.name: outer.meta.get("val") for inner, outer in _operands(module, name)}
    if not _stale_operands(module, name):
        return part
    copy = copy_graph(part)
    for node in copy.graph.find_nodes(op="placeholder"):
        if node.name in values:
            node.meta["val"] = values[node.name]
    return copy


def _stale_operands(module: fx.GraphModule, name: str) -> list[str]:
    """Return a description of each placeholder of a subgraph that is given another shape."""
    pairs = _operands(module, name)
    differences = (
        (inner, difference(inner.meta.get("val"), outer.meta.get("val"))) for inner, outer in pairs
    )
    return [f"{inner.name!r} of {name} {text}" for inner, text in differences if text]


def _with_own_shapes(
    module: fx.GraphModule, *, is_subgraph: bool
) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """Return a graph whose nodes, without those of subgraphs, have shapes that agree, and notes."""
    missing = nodes_without_shapes(module)
    stale = stale_nodes(module.graph, with_dtypes=not is_subgraph)
    stale += [text for name in _subgraphs(module) for text in _stale_operands(module, name)]
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
