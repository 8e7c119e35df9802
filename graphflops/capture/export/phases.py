"""Forward and backward in graphs that hold both, where nodes do not say to which they belong."""

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

    Where gradients are among the outputs, as a signature says, they are what no other output
    needs; where the gradients of the outputs are among the inputs, what depends on these.
    """
    if any("partitioner_tag" in node.meta for node in graph.nodes):
        return ()
    gradients = _gradients(signature)
    if gradients:
        outputs = graph.output_node().all_input_nodes
        return set(graph.nodes) - _needed([out for out in outputs if out.name not in gradients])
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if _is_tangent(node) or not found.isdisjoint(node.all_input_nodes):
            found.add(node)
    return found


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


def _needed(outputs: list[fx.Node]) -> set[fx.Node]:
    """Return some nodes and all that they are computed from."""
    found: set[fx.Node] = set()
    while outputs:
        node = outputs.pop()
        if node not in found:
            found.add(node)
            outputs += node.all_input_nodes
    return found


def _is_tangent(node: fx.Node) -> bool:
    # AOTAutograd calls them so, as does its partitioner look for them.
    return node.op == "placeholder" and str(node.target).startswith("tangents")
