"""Partitions of graphs: parts that a pass has moved into graph modules of their own."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from torch import fx, nn

from graphflops.capture.record.module_hierarchy import module_class, module_path


def inline_partitions(module: fx.GraphModule) -> fx.GraphModule:
    """Return a graph with the nodes of its partitions in place of their calls.

    A partition is a graph module whose nodes have the module stacks of the whole: it is no module
    of the model. Modules that it calls are called by their paths in the model. A graph without
    partitions is returned as it is.
    """
    if not any(_is_partition(module, node) for node in module.graph.nodes):
        return module
    inliner = _Inliner()
    inliner.graph.set_codegen(module.graph._codegen)
    inliner.inline(module, {})
    flat = fx.GraphModule(inliner.attributes, inliner.graph, type(module).__name__)
    flat.train(module.training)
    return flat


def _is_partition(module: nn.Module, node: fx.Node) -> bool:
    """Return True if a node calls a partition; a traced module stands on its own module stack."""
    if node.op != "call_module" or module_path(node) == str(node.target):
        return False
    called = module.get_submodule(str(node.target))
    return isinstance(called, fx.GraphModule) and any(
        module_path(inner) is not None for inner in called.graph.nodes
    )


class _Inliner:
    """Copier of the nodes of graphs into one graph.

    Attributes:
        graph: Graph with the copies.
        attributes: Tensors and modules that it refers to, by name.
    """

    def __init__(self) -> None:
        self.graph = fx.Graph()
        self.attributes: dict[str, Any] = {}

    def inline(
        self, module: fx.GraphModule, inputs: Mapping[str, Any], prefix: str | None = None
    ) -> Any:
        """Copy the nodes of a graph and return its output.

        Args:
            module: The graph.
            inputs: Values of the placeholders of a partition, by name.
            prefix: Path of a partition, with a dot; ``None`` for the whole graph.
        """
        copies: dict[fx.Node, Any] = {}

        def copied(value: Any) -> Any:
            return fx.map_arg(value, lambda node: copies[node])

        for node in module.graph.nodes:
            if node.op == "placeholder" and prefix is not None:
                given = str(node.target) in inputs
                copies[node] = inputs[str(node.target)] if given else node.args[0]
            elif node.op == "output" and prefix is not None:
                return copied(node.args[0])
            elif _is_partition(module, node):
                part: Any = module.get_submodule(str(node.target))
                names = [str(p.target) for p in part.graph.find_nodes(op="placeholder")]
                values = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
                path = f"{prefix or ''}{node.target}."
                copies[node] = self.inline(part, copied(values), path)
            elif node.target is operator.getitem and isinstance(
                items := copied(node.args[0]), tuple | list
            ):
                copies[node] = items[node.args[1]]
            else:
                copies[node] = self._copy(module, node, copies, prefix or "")
        return None

    def _copy(
        self, module: fx.GraphModule, node: fx.Node, copies: Mapping[fx.Node, Any], prefix: str
    ) -> fx.Node:
        copy = self.graph.node_copy(node, lambda source: copies[source])
        if hasattr(node, "_dynamo_source"):
            copy._dynamo_source = node._dynamo_source
        if node.op in {"get_attr", "call_module"}:
            value = operator.attrgetter(str(node.target))(module)
            # Checks of inputs that export adds stand in a module that is not the node's own.
            is_module = node.op == "call_module" and module_class(node) == type(value).__name__
            name = module_path(node) if prefix and is_module else None
            copy.target = name or f"{prefix}{node.target}"
            self.attributes[copy.target] = value
        return copy
