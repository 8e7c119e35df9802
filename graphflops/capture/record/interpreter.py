"""Running a graph node by node: each call belongs to the module and the line of its node."""

from __future__ import annotations

import inspect
from typing import Any

from torch import fx, nn
from torch._ops import HigherOrderOperator
from torch.fx.graph import CodeGen

from graphflops.capture.record.module_hierarchy import module_class, module_path
from graphflops.capture.record.module_stack import CallSite, ModuleStack
from graphflops.capture.record.op_calls import source_line

# Operators of Dynamo's that run the graph they are given first, and where its arguments begin.
_RUN_FIRST = {
    **dict.fromkeys(("wrap", "tag_activation_checkpoint", "wrap_activation_checkpoint"), 1),
    **dict.fromkeys(("invoke_subgraph", "autograd_function_apply"), 2),
}


def follow_nodes(model: nn.Module, own: nn.Module, running: ModuleStack) -> None:
    """Let what stands in for a graph be run by its nodes; any other model runs as it is.

    Args:
        model: The model.
        own: What stands in for it.
        running: Told whose call a node is.
    """
    if not isinstance(model, fx.GraphModule):
        return
    graph, signature = model.graph, _signature(model)

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        return _Nodes(own, graph, running).run(*given.args)

    forward.__signature__ = signature  # type: ignore[attr-defined]  # inspect looks for it
    vars(own)["forward"] = forward


def _signature(model: fx.GraphModule) -> inspect.Signature:
    if type(model.graph._codegen) is not CodeGen:
        return inspect.signature(model.forward)
    # Of a graph that is being compiled, the forward takes anything.
    return inspect.Signature(
        [
            inspect.Parameter(
                str(node.target),
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=node.args[0] if node.args else inspect.Parameter.empty,
            )
            for node in model.graph.find_nodes(op="placeholder")
        ]
    )


class _Nodes(fx.Interpreter):
    """Runs the nodes of a graph."""

    def __init__(self, module: nn.Module, graph: fx.Graph, running: ModuleStack) -> None:
        super().__init__(module, graph=graph)
        # Errors are those of the model, and say where they come from.
        self.extra_traceback = False
        self._running = running

    def run_node(self, n: fx.Node) -> Any:
        """Run a node; a module that it calls is followed by itself."""
        owner = CallSite(
            module_path(n) or "",
            module_class(n) or type(self.module).__name__,
            source_line(n),
        )
        with self._running.inside(owner):
            return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function; a graph that an operator runs is run here."""
        name = target._name if isinstance(target, HigherOrderOperator) else ""
        if name not in _RUN_FIRST:
            return super().call_function(target, args, kwargs)
        body, operands = args[0], args[_RUN_FIRST[name] :]
        results = _Nodes(body, body.graph, self._running).run(*operands)
        # Of a custom autograd function, what it saves for its backward comes second.
        return results[0] if name == "autograd_function_apply" else results
