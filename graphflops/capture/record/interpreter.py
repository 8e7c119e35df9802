"""Interpreter of fx graphs: each call belongs to the module and the line of its node."""

from __future__ import annotations

import inspect
from typing import Any

from torch import fx, nn
from torch.fx.graph import CodeGen

from graphflops.capture.record.module_hierarchy import module_class, module_path
from graphflops.capture.record.module_stack import CallSite, ModuleStack
from graphflops.capture.record.op_calls import source_line
from graphflops.capture.torch_internals.operators import HigherOrderOperator

# Dynamo's operators that run the graph in their first argument, and index of its first operand.
_SUBGRAPH_RUNNERS = {
    **dict.fromkeys(("wrap", "tag_activation_checkpoint", "wrap_activation_checkpoint"), 1),
    **dict.fromkeys(("invoke_subgraph", "autograd_function_apply"), 2),
}


def install_interpreter(model: nn.Module, fake_model: nn.Module, module_stack: ModuleStack) -> None:
    """Let an interpreter run the stand-in of a graph module; other models are left alone.

    Args:
        model: The model.
        fake_model: Stand-in of the model.
        module_stack: Module stack, on which the call site of each node is put.
    """
    if not isinstance(model, fx.GraphModule):
        return
    graph, signature = model.graph, _signature(model)

    def forward(*args: Any, **kwargs: Any) -> Any:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return _NodeInterpreter(fake_model, graph, module_stack).run(*bound.args)

    forward.__signature__ = signature  # type: ignore[attr-defined]  # inspect looks for it
    vars(fake_model)["forward"] = forward


def _signature(model: fx.GraphModule) -> inspect.Signature:
    if type(model.graph._codegen) is not CodeGen:
        return inspect.signature(model.forward)
    # While a graph is compiled its forward takes ``*args``: the placeholders have the names.
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


class _NodeInterpreter(fx.Interpreter):
    """Interpreter that puts the call site of each node on the module stack."""

    def __init__(self, module: nn.Module, graph: fx.Graph, module_stack: ModuleStack) -> None:
        super().__init__(module, graph=graph)
        # Errors of the model have a traceback of their own.
        self.extra_traceback = False
        self._module_stack = module_stack

    def run_node(self, n: fx.Node) -> Any:
        """Run a node at its call site; a module that it calls has its own."""
        call_site = CallSite(
            module_path(n) or "",
            module_class(n) or type(self.module).__name__,
            source_line(n),
        )
        with self._module_stack.at_call_site(call_site):
            return super().run_node(n)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function; a subgraph that an operator runs is interpreted too."""
        name = target._name if isinstance(target, HigherOrderOperator) else ""
        if name not in _SUBGRAPH_RUNNERS:
            return super().call_function(target, args, kwargs)
        body, operands = args[0], args[_SUBGRAPH_RUNNERS[name] :]
        results = _NodeInterpreter(body, body.graph, self._module_stack).run(*operands)
        # The second result of a custom autograd function is what it saves for its backward.
        return results[0] if name == "autograd_function_apply" else results
