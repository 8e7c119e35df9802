"""Costs on the nodes of a graph, for passes and partitioners to read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx
from torch.fx.passes.infra.pass_base import PassBase, PassResult

from graphflops.capture.counting_thread import in_counting_thread
from graphflops.compiler.node_records import records_by_node
from graphflops.core import arguments
from graphflops.counting.forward import OnUnknown, count
from graphflops.errors import ModelSpecError
from graphflops.graph.fx_builder import META_KEY
from graphflops.pricing.registry import Registry
from graphflops.reports.report import Report


@in_counting_thread
def annotate(
    graph_module: fx.GraphModule,
    args: Sequence[Any] | Tensor = (),
    *,
    convention: str = "exact",
    registry: Registry | None = None,
    on_unknown: OnUnknown = "warn",
) -> Report:
    """Count a graph, and leave the record of each node in ``node.meta["graphflops"]``.

    Nodes of subgraphs have theirs too: in a branch that is not taken it costs nothing, in a loop
    as much as all trips. Nodes that call no operator (inputs, ``getitem``, arithmetic on sizes,
    the ``cond`` around its branches) have none, and one from an earlier call is removed. Nothing
    else of the graph changes.

    Args:
        graph_module: A graph that :func:`graphflops.count` takes: of ``make_fx``, ``torch.export``,
            Dynamo, AOTAutograd or Inductor.
        args: Inputs, if the graph has no shapes, or others are to be counted.
        convention: Way of counting, as in :func:`graphflops.count`.
        registry: Your own handlers, which precede those of the convention.
        on_unknown: As in :func:`graphflops.count`.

    Returns:
        The report. The record of a node is one of its records, or the sum of several (of the
        operators that a torch function calls, of a subgraph that runs more than once).

    Raises:
        ModelSpecError: It is no graph module.
        CaptureError: The graph has no shapes, or does not take the inputs.

    Example:
        >>> import torch
        >>> from torch.fx.experimental.proxy_tensor import make_fx
        >>> graph = make_fx(lambda x, w: (x @ w).relu())(torch.ones(2, 3), torch.ones(3, 4))
        >>> report = annotate(graph)
        >>> for node in graph.graph.nodes:
        ...     if "graphflops" in node.meta:
        ...         print(node.name, node.meta["graphflops"].cost.flops)
        mm 48
        relu 8
    """
    _check_graph(graph_module)
    inputs, _ = arguments.model_inputs(args, None)
    report = count(
        graph_module, inputs, convention=convention, registry=registry, on_unknown=on_unknown
    )
    records = records_by_node(graph_module, report.records, inputs)
    for part in graph_module.modules():
        for node in part.graph.nodes if isinstance(part, fx.GraphModule) else ():
            node.meta.pop(META_KEY, None)
            if node in records:
                node.meta[META_KEY] = records[node]
    return report


def _check_graph(graph_module: object) -> None:
    if not isinstance(graph_module, fx.GraphModule):
        msg = (
            f"a {type(graph_module).__name__} has no nodes to annotate. Give an fx.GraphModule, "
            "such as ExportedProgram.graph_module, or count it with graphflops.count."
        )
        raise ModelSpecError(msg)


class AnnotatePass(PassBase):
    """Pass that annotates a graph, for ``torch.fx.passes.infra.pass_manager.PassManager``.

    Attributes:
        report: Report of the last graph; ``None`` before the first.

    Example:
        >>> import torch
        >>> from torch.fx.experimental.proxy_tensor import make_fx
        >>> from torch.fx.passes.infra.pass_manager import PassManager
        >>> annotate_pass = AnnotatePass()
        >>> result = PassManager([annotate_pass])(make_fx(torch.relu)(torch.ones(2)))
        >>> annotate_pass.report.flops
        2
    """

    def __init__(self) -> None:
        self.report: Report | None = None

    def call(self, graph_module: fx.GraphModule) -> PassResult:
        """Annotate the graph; it is not modified otherwise."""
        self.report = annotate(graph_module, on_unknown="ignore")
        return PassResult(graph_module, False)
