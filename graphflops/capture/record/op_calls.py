"""From an ATen graph to operator calls, subgraphs included."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
from graphflops.capture.record.fused_kernels import parts
from graphflops.capture.record.invocation import Invocation, invocation_at, is_operator
from graphflops.capture.record.module_hierarchy import module_class
from graphflops.capture.source_lines import line_of_trace
from graphflops.capture.unfused_attention import MASKING
from graphflops.core.cost import Dim
from graphflops.core.ir import OpCall, Phase, TensorMeta, Tensors

_functorch: Any = torch._C._functorch
# Higher-order operators that run the one graph they hold exactly once.
_RUN_ONCE = {
    *("wrap_with_set_grad_enabled", "wrap_with_autocast", "wrap", "hints_wrapper", "strict_mode"),
    *("tag_activation_checkpoint", "wrap_activation_checkpoint", "invoke_subgraph"),
    *("wrap_inductor_compiled_graph", "dynamo_bypassing_wrapper"),
}


_BRANCHES = "cond"
# Loops that run a condition and a body, who knows how often.
_OPEN_LOOPS = {"while_loop", "while_loop_stack_output"}
_PAIR = 2


class Branching(NamedTuple):
    """Branches of which one is taken.

    Attributes:
        op: The operator that takes one.
        names: What each is called.
        branches: The numbers of the calls in each.
        source: ``file:line`` of the code that branches, if known.
    """

    op: str
    names: tuple[str, ...]
    branches: tuple[range, ...]
    source: str


class Calls(NamedTuple):
    """The calls of a graph.

    Attributes:
        calls: In order, numbered; of all branches, and of loops of open length those of one trip.
        invocation: What was invoked, by the number of a call.
        branchings: Where one of some branches is taken, inner ones first.
        loops: Name and line of the loops of open length.
    """

    calls: tuple[OpCall, ...]
    invocation: Callable[[int], Invocation]
    branchings: tuple[Branching, ...]
    loops: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Context:
    """Where in the nest of graphs the walk is."""

    module: fx.GraphModule
    path: str = ""
    trip_count: Dim = 1
    phase: Phase = Phase.FORWARD


def operator_calls(
    module: fx.GraphModule,
    resolve_path: Callable[[fx.Node], str | None],
    views: Container[fx.Node] = (),
    backward: Container[fx.Node] = (),
) -> Calls:
    """Every operator call of a graph, in order.

    Args:
        module: A graph of ATen operators whose nodes carry ``meta["val"]``.
        resolve_path: From a node to the path of the module that made the call, or ``None``
            where the node does not say.
        views: Nodes known to share memory with an input, whatever their values say.
        backward: Nodes known to be of a backward pass, whatever they say.

    Returns:
        The calls. Arithmetic on sizes and picking from tuples are none.
    """
    walk = _Walk(resolve_path, views, backward)
    walk.through(_Context(module))
    calls = tuple(call for call, _ in walk.found)
    return Calls(calls, walk.invocation, tuple(walk.branchings), tuple(walk.loops))


class _Walk:
    """Finds the calls of a graph and of the graphs within."""

    def __init__(
        self,
        resolve_path: Callable[[fx.Node], str | None],
        views: Container[fx.Node],
        backward: Container[fx.Node],
    ) -> None:
        self.found: list[tuple[OpCall, Invocation]] = []
        self.branchings: list[Branching] = []
        self.loops: list[tuple[str, str]] = []
        self._held: dict[fx.Node, Any] = {}
        self._resolve_path = resolve_path
        self._views = views
        self._backward = backward

    def invocation(self, index: int) -> Invocation:
        """Return what was invoked in a call, with the values that its nodes had."""
        target, args, kwargs, result = self.found[index][1]
        given: Any = fx.map_arg(args, self._held.__getitem__)
        named: Any = fx.map_arg(kwargs, self._held.__getitem__)
        return Invocation(target, given, named, result)

    def through(self, context: _Context) -> None:
        """Find the calls from a place on."""
        mapped = _instances(context.module.graph)
        for node in context.module.graph.nodes:
            if node.op == "call_function" and not _is_plumbing(node):
                self._visit(node, self._place(node, context, mapped))

    def _place(self, node: fx.Node, context: _Context, mapped: Mapping[fx.Node, Dim]) -> _Context:
        path = self._resolve_path(node)
        here = context if path is None else replace(context, path=path)
        if (batch := mapped.get(node, 1)) != 1:
            here = replace(here, trip_count=here.trip_count * batch)
        if node in self._backward or _is_tagged_backward(node):
            here = replace(here, phase=Phase.BACKWARD)
        return here

    def _visit(self, node: fx.Node, here: _Context) -> None:
        ran = invocation_at(node)
        if isinstance(ran.target, torch._ops.OpOverload):
            is_view = node in self._views or shares_memory(node)
            self._add(_call(node, ran, here, is_view=is_view), ran, node)
        elif (bodies := _bodies(ran, here)) is not None:
            self._nested(_name(ran.target), bodies, source_line(node))
        elif _is_indexing(node):
            self._add(_index(node, here), ran, node)
        else:
            self._add(_opaque(node, ran, here), ran, node)
            if (score := _score_graph(node, here)) is not None:
                self.through(score)

    def _nested(self, name: str, bodies: Sequence[_Context], source: str) -> None:
        """Find the calls of the graphs that an operator runs."""
        starts = []
        for body in bodies:
            starts.append(len(self.found))
            self.through(body)
        stops = (*starts[1:], len(self.found))
        if name == _BRANCHES:
            branches = tuple(map(range, starts, stops))
            self.branchings.append(Branching(name, ("true", "false"), branches, source))
        elif name in _OPEN_LOOPS:
            self.loops.append((name, source))

    def _add(self, call: OpCall, ran: Invocation, node: fx.Node) -> None:
        # Taken now: a graph that lent its nodes shapes for a while has lost them later.
        self._held.update({given: given.meta.get("val") for given in node.all_input_nodes})
        for part in parts(call):
            self.found.append((replace(part, index=len(self.found)), ran))


def _is_plumbing(node: fx.Node) -> bool:
    """Arithmetic on sizes, picking from tuples, entering vmap: no tensor is computed."""
    if node.target is operator.getitem or _module(node.target) == _VMAP:
        return True
    returns_tensor = bool(output_metas(node.meta.get("val"), node.name))
    return not is_operator(node.target) and not returns_tensor


_VMAP = "torch._functorch.predispatch"


def _instances(graph: fx.Graph) -> dict[fx.Node, Dim]:
    """How many instances of a node ``torch.vmap`` computes, where it is more than one.

    Of a graph that was saved, only the nodes that enter and leave ``vmap`` still say so.
    """
    levels: dict[fx.Node, dict[Any, Dim]] = {}
    for node in graph.nodes:
        axes = {k: v for given in node.all_input_nodes for k, v in levels[given].items()}
        if _module(node.target) == _VMAP and _name(node.target) == "_add_batch_dim":
            batched, axis, level = node.args
            axes[level] = dim(batched.meta["val"].shape[axis])
        elif _module(node.target) == _VMAP and _name(node.target) == "_remove_batch_dim":
            axes.pop(node.args[1], None)
        levels[node] = axes
    found = {node: prod(axes.values()) for node, axes in levels.items()}
    return {
        node: instances
        for node in graph.nodes
        if (instances := found[node]) != 1
        or (instances := instances_mapped(node.meta.get("val"))) != 1
    }


def instances_mapped(value: Any) -> Dim:
    """How many instances of a value ``torch.vmap`` computes; its shape shows one of them."""
    if isinstance(value, list | tuple):
        value = next((item for item in value if isinstance(item, torch.Tensor)), None)
    batch: Dim = 1
    while isinstance(value, torch.Tensor) and _functorch.is_functorch_wrapped_tensor(value):
        inner = _functorch.get_unwrapped(value)
        if _functorch.is_batchedtensor(value):
            batch *= dim(inner.shape[_functorch.maybe_get_bdim(value)])
        value = inner
    return batch


def _call(node: fx.Node, ran: Invocation, here: _Context, *, is_view: bool) -> OpCall:
    op = ran.target
    inputs, attrs = bind_arguments(op, ran.args, ran.kwargs)
    outputs = output_metas(ran.result, node.name)
    if op._schema.name in MASKING:
        outputs = (masked_output(outputs[0], ran.result),)
    return OpCall(
        op=op._schema.name,
        overload=op._overloadname,
        inputs=inputs,
        attrs=attrs,
        outputs=outputs,
        writes=written_arguments(op),
        is_view=is_view,
        module_path=here.path,
        name=node.name,
        trip_count=here.trip_count,
        source_line=source_line(node),
        torch_function=_caller(node),
        module_class=module_class(node),
        phase=here.phase,
    )


def _opaque(node: fx.Node, ran: Invocation, here: _Context) -> OpCall:
    """A callable without an ATen schema: named, with what it takes and returns."""
    values = [convert_argument(arg) for arg in ran.args]
    bound = dict(zip(_parameters(ran.target, len(values)), values, strict=True))
    return OpCall(
        op=f"{_namespace(ran.target)}::{_name(ran.target)}",
        inputs={name: _tensors(value) for name, value in bound.items() if holds_tensor(value)},
        outputs=output_metas(ran.result, node.name),
        module_path=here.path,
        name=node.name,
        trip_count=here.trip_count,
        source_line=source_line(node),
        torch_function=_caller(node),
        module_class=module_class(node),
        phase=here.phase,
    )


def _is_indexing(node: fx.Node) -> bool:
    """Whether a mask function picks values by tensors: an index hidden in an autograd function.

    transformers' masks of padding do so, under ``TransformGetItemToIndex``.
    """
    hidden = (arg for arg in node.args if isinstance(arg, fx.Node) and arg.op == "get_attr")
    return _name(node.target) == "flat_apply" and any("ModIndex" in str(a.target) for a in hidden)


def _index(node: fx.Node, here: _Context) -> OpCall:
    values = (convert_argument(arg) for arg in node.all_input_nodes)
    picked, *indices = (value for value in values if isinstance(value, TensorMeta))
    inputs: dict[str, Tensors] = {"self": picked, "indices": tuple(indices)}
    opaque = _opaque(node, invocation_at(node), here)
    return replace(opaque, op="aten::index", overload="Tensor", inputs=inputs)


_POSITIONAL = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}


def _parameters(target: Any, count: int) -> list[str]:
    """Names of positional arguments: a higher-order operator's own, else ``arg0``, ``arg1``."""
    if isinstance(target, torch._ops.HigherOrderOperator):
        _, *declared = inspect.signature(type(target).__call__).parameters.values()
        named = [p.name for p in declared if p.kind in _POSITIONAL]
        if len(named) >= count:
            return named[:count]
    return [f"arg{i}" for i in range(count)]


def _tensors(value: Tensors) -> Tensors:
    # A higher-order operator's tuple may hold sizes and graphs beside tensors.
    return tuple(filter(holds_tensor, value)) if isinstance(value, tuple) else value


def _score_graph(node: fx.Node, here: _Context) -> _Context | None:
    """What flex attention does to each score, once per score."""
    if _name(node.target) != "flex_attention":
        return None
    query, key, _, score_mod, *_ = (arg for arg in node.args if isinstance(arg, fx.Node))
    graph = operator.attrgetter(str(score_mod.target))(here.module)
    *rows, _ = query.meta["val"].shape
    scores = prod(map(dim, (*rows, key.meta["val"].shape[-2])))
    return replace(here, module=graph, trip_count=here.trip_count * scores)


def _bodies(ran: Invocation, here: _Context) -> list[_Context] | None:
    """The graphs a higher-order call runs, if it is known which and how often."""
    graphs = [
        operator.attrgetter(str(arg.target))(here.module)
        for arg in ran.args
        if isinstance(arg, fx.Node) and arg.op == "get_attr" and isinstance(arg.target, str)
    ]
    graphs = [graph for graph in graphs if isinstance(graph, fx.GraphModule)]
    name = _name(ran.target)
    if (name == _BRANCHES or name in _OPEN_LOOPS) and len(graphs) == _PAIR:
        return [replace(here, module=graph) for graph in graphs]
    if name in _RUN_ONCE and len(graphs) == 1:
        return [replace(here, module=graphs[0])]
    if name in {"scan", "map_impl"} and len(graphs) == 1:
        return [replace(here, module=graphs[0], trip_count=here.trip_count * _loop_length(ran))]
    return None


def _loop_length(ran: Invocation) -> Dim:
    # scan(body, init, xs, ...) and map(body, xs, ...) run once per slice of the first axis.
    xs: Any = ran.args[2] if _name(ran.target) == "scan" else ran.args[1]
    return dim(xs[0].meta["val"].shape[0])


def _name(target: Any) -> str:
    name = getattr(target, "_name", None) or getattr(target, "__name__", None)
    return str(name or target)


def _namespace(target: Any) -> str:
    if isinstance(target, torch._ops.HigherOrderOperator):
        return "higher_order"
    return _module(target).partition(".")[0]


def _module(target: Any) -> str:
    return str(getattr(target, "__module__", "python"))


def shares_memory(node: fx.Node) -> bool:
    """Whether the result of a node lives in the memory of an input."""
    return is_view(node.meta.get("val"), (n.meta.get("val") for n in node.all_input_nodes))


def is_view(result: object, inputs: Iterable[object]) -> bool:
    """Whether a tensor lives in the memory of one of some values."""
    if not isinstance(result, torch.Tensor):
        return False
    return _storage(result) in set(map(_storage, inputs)) - {None}


def _storage(value: object) -> int | None:
    if not isinstance(value, torch.Tensor):
        return None
    if value.layout != torch.strided:
        return id(value)  # it has no storage
    inner: torch.Tensor = value
    while _functorch.is_functorch_wrapped_tensor(inner):
        inner = _functorch.get_unwrapped(inner)
    return int(inner.untyped_storage()._cdata)


def _caller(node: fx.Node) -> str:
    # ("softmax_1", "function.softmax"): the second says what was called, the first which time.
    return str(node.meta.get("torch_fn", ("", ""))[1])


def _is_tagged_backward(node: fx.Node) -> bool:
    """Return True for a node that AOTAutograd says is of the backward pass."""
    tag = node.meta.get("partitioner_tag")
    return tag == "is_backward" or bool(node.meta.get("autograd_backward"))


def source_line(node: fx.Node) -> str:
    """``file:line`` of the model code that made a node, if it says so."""
    trace = node.meta.get("stack_trace")
    return line_of_trace(trace) if trace else ""
