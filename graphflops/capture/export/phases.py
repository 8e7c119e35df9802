"""Forward and backward phases of joint graphs whose nodes are not tagged."""

from __future__ import annotations

from collections.abc import Container, Iterable

from torch import fx
from torch.export.graph_signature import ExportGraphSignature, OutputKind

from graphflops.core.ir import OpCall, Phase

_GRADIENTS = {OutputKind.GRADIENT_TO_PARAMETER, OutputKind.GRADIENT_TO_USER_INPUT}
_PHASES_UNKNOWN = (
    "The graph holds a backward pass ({ops}), and nothing in it says where that begins: all of it "
    "counts as forward. Count the training step of the module with count_training."
)


def backward_nodes(
    graph: fx.Graph, signature: ExportGraphSignature | None = None
) -> Container[fx.Node]:
    """Return the nodes of the backward pass in a joint graph whose nodes are not tagged.

    If the signature has gradients among the outputs, these are the nodes that no other output
    depends on; if the graph has tangents among the inputs, the nodes that depend on them.
    """
    if any("partitioner_tag" in node.meta for node in graph.nodes):
        return ()
    gradients = _gradients(signature)
    if gradients:
        outputs = graph.output_node().all_input_nodes
        forward_outputs = [out for out in outputs if out.name not in gradients]
        return set(graph.nodes) - _with_dependencies(forward_outputs)
    backward: set[fx.Node] = set()
    for node in graph.nodes:
        if _is_tangent(node) or not backward.isdisjoint(node.all_input_nodes):
            backward.add(node)
    return backward


def unknown_phases(calls: Iterable[OpCall]) -> tuple[str, ...]:
    """Return a note if operators of a backward pass count as forward."""
    phases = {(call.op, call.phase) for call in calls}
    ops = sorted(op for op, phase in phases if op.endswith("_backward"))
    if not ops or any(phase is not Phase.FORWARD for _, phase in phases):
        return ()
    return (_PHASES_UNKNOWN.format(ops=", ".join(ops)),)


def _gradients(signature: ExportGraphSignature | None) -> set[str]:
    specs = signature.output_specs if signature is not None else ()
    return {spec.arg.name for spec in specs if spec.kind in _GRADIENTS}


def _with_dependencies(nodes: list[fx.Node]) -> set[fx.Node]:
    """Return nodes with all nodes that they are computed from."""
    visited: set[fx.Node] = set()
    while nodes:
        node = nodes.pop()
        if node not in visited:
            visited.add(node)
            nodes += node.all_input_nodes
    return visited


def _is_tangent(node: fx.Node) -> bool:
    # The name that AOTAutograd gives them and that its partitioner tests.
    return node.op == "placeholder" and str(node.target).startswith("tangents")
