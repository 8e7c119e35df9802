"""Shape propagation in graphs: a copy of a graph with the shapes for some inputs."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch.fx.passes.fake_tensor_prop import FakeTensorProp
from torch.fx.passes.shape_prop import TensorMetadata

from graphflops.capture.diagnose import first_line
from graphflops.capture.fake.metadata import output_metas, tensor_meta
from graphflops.capture.torch_internals.fake_mode import FakeTensorMode
from graphflops.capture.torch_internals.operators import OpOverload
from graphflops.capture.torch_internals.trees import pytree, reorder_kwargs
from graphflops.core.ir import TensorMeta
from graphflops.errors import CaptureError
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET


def propagate_shapes(
    module: fx.GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> fx.GraphModule:
    """Return a copy of a graph whose nodes have the shapes for some inputs.

    Args:
        module: Graph; it is left unchanged.
        args: Positional inputs.
        kwargs: Keyword inputs.

    Raises:
        CaptureError: The graph takes other inputs.
    """
    inputs = _flat_graph_inputs(module.graph, args, kwargs)
    if any(_is_subgraph(module, node) for node in module.graph.nodes):
        _refuse_other_inputs(module, inputs)
        if not nodes_without_shapes(module):
            return module
    try:
        return _propagated(module, inputs)
    except PropagationError as error:
        msg = (
            f"the inputs do not go through the graph: {error}. Give inputs of the shapes and "
            "dtypes it was traced with, or count the module that it was traced from."
        )
        raise CaptureError(msg) from error


class PropagationError(Exception):
    """Failure of a node to run on the shapes that it gets."""


def propagate_from_placeholders(module: fx.GraphModule) -> fx.GraphModule | None:
    """Return a copy of a graph whose nodes have the shapes that follow from its placeholders.

    Returns:
        The copy; ``None`` if the placeholders have no metadata, or sizes that are symbolic.

    Raises:
        PropagationError: A node does not run on the shapes that it gets.
    """
    values = [_recorded_value(node) for node in module.graph.find_nodes(op="placeholder")]
    if any(value is _NO_VALUE or _is_symbolic(value) for value in values):
        return None
    tensors = [*values, *module.buffers(), *module.parameters()]
    devices = (x.device for x in tensors if isinstance(x, torch.Tensor) and not x.is_meta)
    return _propagated(module, values, next(devices, None))


_NO_VALUE = object()


def _recorded_value(node: fx.Node) -> Any:
    """Return the value that a placeholder had in the trace."""
    for key in ("val", "example_value"):
        if key in node.meta:
            return node.meta[key]
    meta = node.meta.get("tensor_meta")  # of torch.fx.passes.shape_prop
    if not isinstance(meta, TensorMetadata):
        return _NO_VALUE
    return torch.empty_strided(meta.shape, meta.stride, dtype=meta.dtype, device="meta")


def _is_symbolic(value: Any) -> bool:
    symbolic = torch.SymInt | torch.SymFloat | torch.SymBool
    if isinstance(value, torch.Tensor):
        return bool(value._has_symbolic_sizes_strides)
    return isinstance(value, symbolic)


class _Propagation(FakeTensorProp):
    """Propagation that knows at which node it is."""

    node: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        """Run a node."""
        self.node = n
        return super().run_node(n)


def _propagated(
    module: fx.GraphModule, inputs: list[Any], device: torch.device | None = None
) -> fx.GraphModule:
    """Return a copy of a graph with the shapes for some inputs.

    Args:
        module: The graph.
        inputs: Values of its placeholders.
        device: Device of inputs that are on meta.

    Raises:
        PropagationError: A node does not run on the shapes that it gets.
    """
    copy = copy_graph(module)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    placeholders = copy.graph.find_nodes(op="placeholder")
    fakes = [
        _fake(mode, node, value, device) for node, value in zip(placeholders, inputs, strict=True)
    ]
    propagation = _Propagation(copy, mode)
    try:
        with QUIET.holding():
            propagation.propagate_dont_convert_inputs(*fakes)
    except Exception as error:
        raise_interruption(error)
        name = propagation.node.name if propagation.node is not None else ""
        raise PropagationError(f"node {name!r} fails, {first_line(error)}") from error
    return copy


def matches(metas: Sequence[TensorMeta], inputs: Sequence[Any]) -> bool:
    """Return True if inputs have the shapes and dtypes of the inputs of a graph."""
    input_metas = [tensor_meta(leaf) for leaf in inputs if isinstance(leaf, torch.Tensor)]
    return [(meta.shape, meta.dtype) for meta in metas] == [
        (meta.shape, meta.dtype) for meta in input_metas
    ]


def flat_inputs(args: tuple[Any, ...], kwargs: Mapping[str, Any], spec: Any) -> list[Any]:
    """Return flattened inputs, in the order in which a graph with an input spec takes them.

    Raises:
        CaptureError: A keyword input is missing, or there is one too many.
    """
    try:
        ordered_kwargs = reorder_kwargs(dict(kwargs), spec)
    except Exception as error:
        raise_interruption(error)
        msg = f"the inputs are not those of the graph: {first_line(error)}. Give those it takes."
        raise CaptureError(msg) from error
    return _leaves((args, ordered_kwargs))


def _leaves(inputs: Any) -> list[Any]:
    return pytree.tree_leaves(inputs, is_leaf=lambda leaf: leaf is None)


def _flat_graph_inputs(
    graph: fx.Graph, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Any]:
    names = [str(node.target) for node in graph.find_nodes(op="placeholder")]
    pytree_info = getattr(graph._codegen, "pytree_info", None)
    if pytree_info is not None and pytree_info.in_spec.num_children == _ARGS_AND_KWARGS:
        inputs = flat_inputs(args, kwargs, pytree_info.in_spec)
    else:
        inputs = _leaves(args)
        inputs += [kwargs[name] for name in names[len(inputs) :] if name in kwargs]
    if len(inputs) != len(names) or len(_leaves((args, kwargs))) != len(names):
        msg = (
            f"the graph takes {len(names)} inputs ({', '.join(names)}), and "
            f"{len(_leaves((args, kwargs)))} that do not fit were given. Give each of them, or "
            "none: then its own shapes are counted."
        )
        raise CaptureError(msg)
    return inputs


_ARGS_AND_KWARGS = 2


def _fake(
    mode: FakeTensorMode, node: fx.Node, value: Any, device: torch.device | None = None
) -> Any:
    """Return a fake input with the metadata of ``value``, on the device of the placeholder."""
    traced = node.meta.get("val")
    if isinstance(value, torch.Tensor) and isinstance(traced, torch.Tensor):
        device = device if traced.is_meta and device is not None else traced.device
    if isinstance(value, torch.Tensor) and device is not None:
        with mode:
            size, stride = value.shape, value.stride()
            return torch.empty_strided(size, stride, dtype=value.dtype, device=device)
    return mode.from_tensor(value) if isinstance(value, torch.Tensor) else value


def _is_subgraph(module: fx.GraphModule, node: fx.Node) -> bool:
    if node.op != "get_attr":
        return False
    return isinstance(operator.attrgetter(str(node.target))(module), fx.GraphModule)


def _refuse_other_inputs(module: fx.GraphModule, inputs: list[Any]) -> None:
    """Refuse inputs that a graph with subgraphs, where none are propagated, was not traced with.

    Raises:
        CaptureError: The inputs are others.
    """
    placeholders = module.graph.find_nodes(op="placeholder")
    metas = [meta for node in placeholders for meta in output_metas(node.meta.get("val"), "")]
    if not matches(metas, inputs):
        msg = (
            "the graph holds others (the branches of a cond, a loop), and the inputs are not "
            "those that it was traced with. Count the module that it was traced from."
        )
        raise CaptureError(msg)


def nodes_without_shapes(module: fx.GraphModule) -> list[fx.Node]:
    """Return the calls in a graph that lack the metadata of their outputs."""
    return [
        node
        for node in module.graph.nodes
        if node.op == "call_function"
        and node.target is not operator.getitem
        and "val" not in node.meta
        and _has_outputs(node.target)
    ]


def _has_outputs(target: Any) -> bool:
    """Return False for an operator without outputs, such as an assertion."""
    return not isinstance(target, OpOverload) or bool(target._schema.returns)


def copy_graph(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy of the graph over the same parameters."""
    graph = fx.Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    return fx.GraphModule(module, graph)
