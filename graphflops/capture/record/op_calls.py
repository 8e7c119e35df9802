"""Operator calls of an ATen graph and its subgraphs."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import replace
from functools import cache
from math import prod
from typing import Any, NamedTuple

import torch
from torch import fx

from graphflops.capture.fake.metadata import (
    bind_arguments,
    convert_argument,
    dim,
    holds_tensor,
    masked_output,
    output_metas,
    written_arguments,
)
from graphflops.capture.record.aliasing import returns_written, shares_memory
from graphflops.capture.record.fused_kernels import split_fused
from graphflops.capture.record.invocation import Invocation, invocation_at, is_operator
from graphflops.capture.record.module_hierarchy import module_class
from graphflops.capture.record.value_names import ValueNames
from graphflops.capture.record.vmap_instances import enters_or_leaves_vmap, instances_by_node
from graphflops.capture.source_lines import line_of_trace
from graphflops.capture.torch_internals.operators import HigherOrderOperator, OpOverload
from graphflops.capture.unfused_attention import MASKING
from graphflops.core.cost import Dim
from graphflops.core.ir import OpCall, Phase, TensorMeta, Tensors

_AUTOCAST = "wrap_with_autocast"
# Higher-order operators that run the one graph they hold exactly once.
_RUN_ONCE = {
    *("wrap_with_set_grad_enabled", _AUTOCAST, "wrap", "hints_wrapper", "strict_mode"),
    *("tag_activation_checkpoint", "wrap_activation_checkpoint", "invoke_subgraph"),
    *("wrap_inductor_compiled_graph", "dynamo_bypassing_wrapper"),
}
_BRANCHES = "cond"
# Loops with a condition and a body, whose trip count is unknown.
_OPEN_LOOPS = {"while_loop", "while_loop_stack_output"}
_TWO_GRAPHS = 2
GIVES_OPERANDS = _RUN_ONCE | _OPEN_LOOPS | {_BRANCHES}
"""Operators whose last arguments are the inputs of each graph they run."""


class Branching(NamedTuple):
    """Branches of a conditional, of which one is taken.

    Attributes:
        op: The operator that branches.
        names: Name of each branch.
        branches: Numbers of the calls in each branch.
        source: ``file:line`` of the code that branches, if known.
    """

    op: str
    names: tuple[str, ...]
    branches: tuple[range, ...]
    source: str


class Calls(NamedTuple):
    """The calls of a graph.

    Attributes:
        calls: Calls in order, numbered: of all branches, and of one trip of a loop whose trip count
            is unknown.
        invocation: Returns the invocation of a call, by its number.
        branchings: Conditionals, inner ones first.
        loops: Name and line of the loops whose trip count is unknown.
        outputs: Tensors that the graph returns, in order.
        control_flow: Operators whose graphs do not simply run in the order of the calls.
    """

    calls: tuple[OpCall, ...]
    invocation: Callable[[int], Invocation]
    branchings: tuple[Branching, ...]
    loops: tuple[tuple[str, str], ...]
    outputs: tuple[TensorMeta, ...]
    control_flow: tuple[str, ...]


class _Context(NamedTuple):
    """Context of a graph within other graphs."""

    module: fx.GraphModule
    path: str = ""
    trip_count: Dim = 1
    phase: Phase = Phase.FORWARD


def operator_calls(
    module: fx.GraphModule,
    resolve_path: Callable[[fx.Node], str | None],
    views: Container[fx.Node] = (),
    backward: Container[fx.Node] = (),
    qualified_names: Mapping[str, str] | None = None,
) -> Calls:
    """Return every operator call of a graph, in order.

    Args:
        module: A graph of ATen operators whose nodes carry ``meta["val"]``.
        resolve_path: Returns the path of the module that made a node, or ``None`` if the node has
            no module stack.
        views: Nodes known to share memory with an input, regardless of their values.
        backward: Nodes known to be of a backward pass, regardless of their metadata.
        qualified_names: Names of parameters and buffers by those of their placeholders.

    Returns:
        The calls. Arithmetic on sizes and ``getitem`` on tuples are not calls.
    """
    names = ValueNames(module.graph, qualified_names or {})
    walker = _Walker(resolve_path, views, backward, names)
    walker.walk(_Context(module))
    calls = tuple(call for call, _ in walker.calls)
    outputs = names.outputs(module.graph)
    return Calls(
        calls,
        walker.invocation,
        tuple(walker.branchings),
        tuple(walker.loops),
        outputs,
        tuple(dict.fromkeys(walker.control_flow)),
    )


class _Walker:
    """Walker of a graph and its subgraphs, which collects the calls."""

    def __init__(
        self,
        resolve_path: Callable[[fx.Node], str | None],
        views: Container[fx.Node],
        backward: Container[fx.Node],
        names: ValueNames,
    ) -> None:
        self.calls: list[tuple[OpCall, Invocation]] = []
        self.branchings: list[Branching] = []
        self.loops: list[tuple[str, str]] = []
        self.control_flow: list[str] = []
        self._node_values: dict[fx.Node, Any] = {}
        self._resolve_path = resolve_path
        self._views = views
        self._backward = backward
        self._names = names

    def invocation(self, index: int) -> Invocation:
        """Return the invocation of a call, with nodes replaced by their values."""
        target, args, kwargs, result = self.calls[index][1]
        arg_values: Any = fx.map_arg(args, self._node_values.__getitem__)
        kwarg_values: Any = fx.map_arg(kwargs, self._node_values.__getitem__)
        return Invocation(target, arg_values, kwarg_values, result)

    def walk(self, context: _Context) -> None:
        """Collect the calls of a graph."""
        instances = instances_by_node(context.module.graph)
        for node in context.module.graph.nodes:
            if enters_or_leaves_vmap(node):
                self.control_flow.append("vmap")
            elif node.op == "call_function" and not _computes_no_tensor(node):
                self._visit(node, self._node_context(node, context, instances))

    def _node_context(
        self, node: fx.Node, context: _Context, instances: Mapping[fx.Node, Dim]
    ) -> _Context:
        path = self._resolve_path(node)
        phase = Phase.BACKWARD if node in self._backward else _tagged_phase(node)
        return _Context(
            context.module,
            context.path if path is None else path,
            context.trip_count * instances.get(node, 1),
            phase or context.phase,
        )

    def _visit(self, node: fx.Node, context: _Context) -> None:
        invocation = invocation_at(node)
        if isinstance(invocation.target, OpOverload):
            is_view = (
                node in self._views or shares_memory(node) or returns_written(invocation.target)
            )
            self._add(self._call(node, invocation, context, is_view=is_view), invocation, node)
        elif (bodies := _bodies(invocation, context)) is not None:
            self._nested(node, _name(invocation.target), bodies)
        elif _is_indexing(node):
            self._add(self._index(node, context), invocation, node)
        else:
            self._add(self._opaque(node, invocation, context), invocation, node)
            if (score := _score_graph(node, context)) is not None:
                self.walk(score)

    def _nested(self, node: fx.Node, name: str, bodies: Sequence[_Context]) -> None:
        """Collect the calls of the graphs that an operator runs."""
        if name not in _RUN_ONCE - {_AUTOCAST}:
            self.control_flow.append(name)
        starts, source = [], source_line(node)
        for body in bodies:
            starts.append(len(self.calls))
            self._names.enter(node, body.module.graph)
            self.walk(body)
        self._names.leave(node, bodies[0 if name == _BRANCHES else -1].module.graph)
        stops = (*starts[1:], len(self.calls))
        if name == _BRANCHES:
            branches = tuple(map(range, starts, stops))
            self.branchings.append(Branching(name, ("true", "false"), branches, source))
        elif name in _OPEN_LOOPS:
            self.loops.append((name, source))

    def _call(
        self, node: fx.Node, invocation: Invocation, context: _Context, *, is_view: bool
    ) -> OpCall:
        op = invocation.target
        inputs, attrs = bind_arguments(op, invocation.args, invocation.kwargs, self._names.describe)
        outputs = self._names.results(node, invocation, inputs, is_view=is_view)
        if op._schema.name in MASKING:
            outputs = (masked_output(outputs[0], invocation.result), *outputs[1:])
        return OpCall(
            op=op._schema.name,
            overload=op._overloadname,
            inputs=inputs,
            attrs=attrs,
            outputs=outputs,
            writes=written_arguments(op),
            is_view=is_view,
            **self._origin(node, context),
        )

    def _opaque(self, node: fx.Node, invocation: Invocation, context: _Context) -> OpCall:
        """Return the call of a callable without an ATen schema."""
        values = [convert_argument(arg, self._names.describe) for arg in invocation.args]
        bound = dict(zip(_parameters(invocation.target, len(values)), values, strict=True))
        inputs = {name: _tensors(value) for name, value in bound.items() if holds_tensor(value)}
        return OpCall(
            op=f"{_namespace(invocation.target)}::{_name(invocation.target)}",
            inputs=inputs,
            outputs=self._names.results(node, invocation, inputs, is_view=False),
            **self._origin(node, context),
        )

    def _index(self, node: fx.Node, context: _Context) -> OpCall:
        values = map(self._names.describe, node.all_input_nodes)
        picked, *indices = (value for value in values if isinstance(value, TensorMeta))
        inputs: dict[str, Tensors] = {"self": picked, "indices": tuple(indices)}
        opaque = self._opaque(node, invocation_at(node), context)
        return replace(opaque, op="aten::index", overload="Tensor", inputs=inputs)

    def _origin(self, node: fx.Node, context: _Context) -> dict[str, Any]:
        """Return the fields of a call that say where in the model and graph it is."""
        return {
            "module_path": context.path,
            "index": len(self.calls),
            "name": self._names.call_name(node),
            "trip_count": context.trip_count,
            "source_line": source_line(node),
            "torch_function": _torch_function(node),
            "module_class": module_class(node),
            "phase": context.phase,
        }

    def _add(self, call: OpCall, invocation: Invocation, node: fx.Node) -> None:
        # Values are stored now: some graphs have shapes for a while only.
        self._node_values.update(
            {source: source.meta.get("val") for source in node.all_input_nodes}
        )
        first, *others = split_fused(call)
        self.calls.append((first, invocation))
        for part in others:
            self.calls.append((replace(part, index=len(self.calls)), invocation))


def _computes_no_tensor(node: fx.Node) -> bool:
    """Return True for a node that computes no tensor: size arithmetic, ``getitem``."""
    if isinstance(node.target, OpOverload):
        return _reads_size(node.target)
    if node.target is operator.getitem:
        return True
    return not is_operator(node.target) and not output_metas(node.meta.get("val"), node.name)


@cache
def _reads_size(target: OpOverload) -> bool:
    returns = target._schema.returns
    return bool(returns) and all(isinstance(item.real_type, torch.SymIntType) for item in returns)


def _is_indexing(node: fx.Node) -> bool:
    """Return True for an index by tensors in a mask function, as an autograd function.

    transformers' padding masks have them, under ``TransformGetItemToIndex``.
    """
    hidden = (arg for arg in node.args if isinstance(arg, fx.Node) and arg.op == "get_attr")
    return _name(node.target) == "flat_apply" and any("ModIndex" in str(a.target) for a in hidden)


_POSITIONAL = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


def _parameters(target: Any, count: int) -> list[str]:
    """Return names of positional arguments: of a higher-order operator, else ``arg0``, ``arg1``."""
    if isinstance(target, HigherOrderOperator):
        _, *declared = inspect.signature(type(target).__call__).parameters.values()
        named = [p.name for p in declared if p.kind in _POSITIONAL]
        if len(named) >= count:
            return named[:count]
    return [f"arg{i}" for i in range(count)]


def _tensors(value: Tensors) -> Tensors:
    # A tuple argument of a higher-order operator may hold sizes and graphs beside tensors.
    return tuple(filter(holds_tensor, value)) if isinstance(value, tuple) else value


def _score_graph(node: fx.Node, context: _Context) -> _Context | None:
    """Return the score modification of flex attention, which runs once per score."""
    if _name(node.target) != "flex_attention":
        return None
    query, key, _, score_mod, *_ = (arg for arg in node.args if isinstance(arg, fx.Node))
    graph = operator.attrgetter(str(score_mod.target))(context.module)
    *rows, _ = query.meta["val"].shape
    scores = prod(map(dim, (*rows, key.meta["val"].shape[-2])))
    return context._replace(module=graph, trip_count=context.trip_count * scores)


def _bodies(invocation: Invocation, context: _Context) -> list[_Context] | None:
    """Return the graphs a higher-order operator runs, if they and their trip counts are known."""
    graphs = [
        operator.attrgetter(str(arg.target))(context.module)
        for arg in invocation.args
        if isinstance(arg, fx.Node) and arg.op == "get_attr" and isinstance(arg.target, str)
    ]
    graphs = [graph for graph in graphs if isinstance(graph, fx.GraphModule)]
    name = _name(invocation.target)
    if (name == _BRANCHES or name in _OPEN_LOOPS) and len(graphs) == _TWO_GRAPHS:
        return [context._replace(module=graph) for graph in graphs]
    if name in _RUN_ONCE and len(graphs) == 1:
        return [context._replace(module=graphs[0])]
    if name in {"scan", "map_impl"} and len(graphs) == 1:
        return [
            context._replace(
                module=graphs[0], trip_count=context.trip_count * _loop_length(invocation)
            )
        ]
    return None


def _loop_length(invocation: Invocation) -> Dim:
    # scan(body, init, xs, ...) and map(body, xs, ...) run once per slice of the first axis.
    xs: Any = invocation.args[2] if _name(invocation.target) == "scan" else invocation.args[1]
    return dim(xs[0].meta["val"].shape[0])


def _name(target: Any) -> str:
    name = getattr(target, "_name", None) or getattr(target, "__name__", None)
    return str(name or target)


def _namespace(target: Any) -> str:
    if isinstance(target, HigherOrderOperator):
        return "higher_order"
    return _module(target).partition(".")[0]


def _module(target: Any) -> str:
    return str(getattr(target, "__module__", "python"))


def _torch_function(node: fx.Node) -> str:
    # ("softmax_1", "function.softmax"): the second is the callable, the first is unique.
    return str(node.meta.get("torch_fn", ("", ""))[1])


def _tagged_phase(node: fx.Node) -> Phase | None:
    """Return the phase of a node of the backward pass by AOTAutograd's tags; else ``None``.

    A forward node in a graph of the backward pass is recomputed there.
    """
    tag = node.meta.get("partitioner_tag")
    if node.meta.get("autograd_backward"):
        return Phase.RECOMPUTE if tag == "is_forward" else Phase.BACKWARD
    return Phase.BACKWARD if tag == "is_backward" else None


def source_line(node: fx.Node) -> str:
    """Return ``file:line`` of the model code that made a node, if the node has a stack trace."""
    trace = node.meta.get("stack_trace")
    return line_of_trace(trace) if trace else ""
