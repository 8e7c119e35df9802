"""Captures of exported programs and graph modules."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind

from graphflops.capture.export.consistent_shapes import with_consistent_shapes
from graphflops.capture.export.control_flow import calls_of_graph
from graphflops.capture.export.graph_sizes import sizes_in_graph
from graphflops.capture.export.phases import backward_nodes, unknown_phases
from graphflops.capture.export.propagation import flat_inputs, matches, propagate_shapes
from graphflops.capture.export.views import reshape_views
from graphflops.capture.fake.metadata import output_metas
from graphflops.capture.record.invocation import is_operator
from graphflops.capture.record.module_hierarchy import (
    module_path,
    modules_of_graph,
    modules_of_program,
)
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.ir import Capture, Module, NamedTensors


class SignedGraph(Protocol):
    """Graph with a signature: an exported program, or the parts of one read from a file."""

    @property
    def graph_module(self) -> fx.GraphModule:
        """Graph whose nodes have shapes."""

    @property
    def graph_signature(self) -> ExportGraphSignature:
        """Kinds of the inputs and outputs of the graph."""


def capture_program(
    program: ExportedProgram, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Capture:
    """Capture an exported program, undecomposed.

    If the inputs have other shapes than those of the export, shapes are propagated again.

    Raises:
        CaptureError: The program does not take the inputs.
    """
    if args or kwargs:
        inputs = flat_inputs(args, kwargs, program.call_spec.in_spec)
        if not matches([meta for _, meta in program_inputs(program)], inputs):
            graph = propagate_shapes(program.module(), args, kwargs)
            return replace(_capture_nodes(graph), method="exported program")
    graph, notes = with_consistent_shapes(program.graph_module)
    modules = modules_of_program(program)
    return capture_signed_graph(program, modules, "exported program", notes, graph=graph)


def capture_signed_graph(
    program: SignedGraph,
    modules: tuple[Module, ...],
    method: str,
    notes: tuple[str, ...] = (),
    *,
    graph: fx.GraphModule | None = None,
) -> Capture:
    """Return the capture of a graph with a signature.

    Args:
        program: Graph whose nodes have shapes.
        modules: Modules of the program.
        method: Capture method.
        notes: Notes for the reader of the report.
        graph: A copy of its graph with other shapes.
    """
    graph = program.graph_module if graph is None else graph
    views, view_notes = reshape_views(graph)
    backward = backward_nodes(graph.graph, program.graph_signature)
    calls, outputs, fallback, control_flow_notes, control_flow = calls_of_graph(
        graph, module_path, views, backward, _qualified_names(program.graph_signature)
    )
    user_outputs = set(program.graph_signature.user_outputs)
    returned = zip(_output_names(graph.graph), outputs, strict=True)
    return Capture(
        calls=calls,
        outputs=tuple(meta for name, meta in returned if name in user_outputs),
        constants=_constants(program),
        control_flow=control_flow,
        fallback=fallback,
        modules=modules,
        method=method,
        inputs=program_inputs(program),
        notes=(*notes, *view_notes, *control_flow_notes, *unknown_phases(calls)),
        data_sizes=sizes_in_graph(graph),
    )


def _qualified_names(signature: ExportGraphSignature) -> dict[str, str]:
    """Return the names of parameters, buffers and constants by those of their placeholders."""
    return {
        spec.arg.name: spec.target
        for spec in signature.input_specs
        if spec.target is not None and spec.kind != InputKind.USER_INPUT
    }


def _output_names(graph: fx.Graph) -> list[str]:
    """Return the names of the nodes that a graph returns, without those that are no tensor."""
    leaves = pytree.tree_leaves(graph.output_node().args)
    nodes = (leaf for leaf in leaves if isinstance(leaf, fx.Node))
    return [node.name for node in nodes if isinstance(node.meta.get("val"), torch.Tensor)]


def _constants(program: SignedGraph) -> dict[str, Any]:
    """Return the constants of a program by name; a file's are not read."""
    names = {
        spec.target: None
        for spec in program.graph_signature.input_specs
        if spec.kind == InputKind.CONSTANT_TENSOR
    }
    values = program.constants if isinstance(program, ExportedProgram) else {}
    return {name: values.get(name) for name in names if name is not None}


def program_inputs(program: SignedGraph) -> NamedTensors:
    """Return the user's input tensors of a program, by name."""
    kinds = {spec.arg.name: spec.kind for spec in program.graph_signature.input_specs}
    return tuple(
        (node.name, meta)
        for node in program.graph_module.graph.find_nodes(op="placeholder")
        if kinds.get(node.name) == InputKind.USER_INPUT
        for meta in output_metas(node.meta.get("val"), node.name)
    )


def is_aten_graph(module: fx.GraphModule) -> bool:
    """Return True if a graph and its subgraphs call ATen or higher-order operators only.

    Python functions may be called for arithmetic on sizes and to pick items of tuples.
    """
    operators = 0
    for submodule in module.modules():
        for node in submodule.graph.nodes if isinstance(submodule, fx.GraphModule) else ():
            if node.op == "call_function" and is_operator(node.target):
                operators += 1
            elif _is_python(submodule, node):
                return False
    return operators > 0


def _is_python(module: nn.Module, node: fx.Node) -> bool:
    """Return True if a node that is no operator calls Python that may compute on tensors."""
    if node.op == "call_module":
        # ExportedProgram.module() checks its inputs in a submodule of this class.
        return type(module.get_submodule(str(node.target))).__name__ != "GuardsFn"
    if node.op != "call_function":
        return node.op == "call_method"
    results = (node.meta.get(key) for key in ("example_value", "val"))
    returns_tensor = any(isinstance(result, torch.Tensor) for result in results)
    is_getitem = node.target is operator.getitem
    is_arithmetic = getattr(node.target, "__module__", "") in {"_operator", "math", "torch"}
    return not is_arithmetic or (returns_tensor and not is_getitem)


def capture_graph(
    module: fx.GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Capture:
    """Capture a graph of ATen operators.

    Shapes are propagated from the inputs. Without inputs, they are those of ``meta["val"]`` of the
    nodes; where these are missing or stale, they are propagated from the placeholders.

    Raises:
        CaptureError: There are neither shapes nor inputs, or the inputs do not fit.
    """
    if args or kwargs:
        return _capture_nodes(propagate_shapes(module, args, kwargs))
    graph, notes = with_consistent_shapes(module)
    captured = _capture_nodes(graph)
    return replace(captured, notes=(*notes, *captured.notes))


def _capture_nodes(module: fx.GraphModule) -> Capture:
    backward = backward_nodes(module.graph)
    calls, outputs, fallback, notes, control_flow = calls_of_graph(
        module, module_path, backward=backward
    )
    return Capture(
        calls=calls,
        outputs=outputs,
        control_flow=control_flow,
        fallback=fallback,
        modules=modules_of_graph(module),
        method="graph module",
        inputs=tuple(
            (node.name, meta)
            for node in module.graph.find_nodes(op="placeholder")
            for meta in output_metas(node.meta.get("val"), node.name)
        ),
        notes=(*notes, *unknown_phases(calls)),
        data_sizes=sizes_in_graph(module),
    )
