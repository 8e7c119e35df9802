"""Captures of what is a graph already: exported programs and graph modules."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind

from graphflops.capture.export.control_flow import calls_of_graph
from graphflops.capture.export.graph_sizes import sizes_in_graph
from graphflops.capture.export.phases import backward_nodes, unknown_phases
from graphflops.capture.export.propagation import agrees, flat_inputs, propagated
from graphflops.capture.export.views import unseen_views
from graphflops.capture.fake.metadata import output_metas
from graphflops.capture.record.invocation import is_operator
from graphflops.capture.record.module_hierarchy import (
    module_path,
    modules_of_graph,
    modules_of_program,
)
from graphflops.core.ir import Capture, Module, NamedTensors
from graphflops.errors import CaptureError


class Signed(Protocol):
    """A graph with a signature: an exported program, or what was read of one."""

    @property
    def graph_module(self) -> fx.GraphModule:
        """The graph; its nodes have shapes."""

    @property
    def graph_signature(self) -> ExportGraphSignature:
        """What the inputs of the graph are."""


def capture_program(
    program: ExportedProgram, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Capture:
    """Capture an exported program, undecomposed.

    Inputs that it was not exported with have the shapes computed anew.

    Raises:
        CaptureError: It does not take the inputs that were given.
    """
    if args or kwargs:
        given = flat_inputs(args, kwargs, program.call_spec.in_spec)
        if not agrees([meta for _, meta in program_inputs(program)], given):
            graph = propagated(program.module(), args, kwargs)
            return replace(_captured(graph), method="exported program")
    return captured(program, modules_of_program(program), "exported program")


def captured(
    program: Signed, modules: tuple[Module, ...], method: str, notes: tuple[str, ...] = ()
) -> Capture:
    """The capture that the graph of a program is.

    Args:
        program: Its nodes have shapes.
        modules: Those of the program.
        method: How it was obtained.
        notes: What a reader must know of it.
    """
    graph = program.graph_module
    views, lost = unseen_views(graph)
    backward = backward_nodes(graph.graph, program.graph_signature)
    calls, fallback, chosen = calls_of_graph(graph, module_path, views, backward)
    return Capture(
        calls=calls,
        fallback=fallback,
        modules=modules,
        method=method,
        inputs=program_inputs(program),
        notes=(*notes, *lost, *chosen, *unknown_phases(calls)),
        data_sizes=sizes_in_graph(graph),
    )


def program_inputs(program: Signed) -> NamedTensors:
    """The user's input tensors of a program, by name."""
    kinds = {spec.arg.name: spec.kind for spec in program.graph_signature.input_specs}
    return tuple(
        (node.name, meta)
        for node in program.graph_module.graph.find_nodes(op="placeholder")
        if kinds.get(node.name) == InputKind.USER_INPUT
        for meta in output_metas(node.meta.get("val"), node.name)
    )


def is_aten_graph(module: fx.GraphModule) -> bool:
    """Whether a graph calls ATen or higher-order operators and no Python beside them.

    So must the graphs that it holds.
    """
    operators = 0
    for holder in module.modules():
        for node in holder.graph.nodes if isinstance(holder, fx.GraphModule) else ():
            if node.op == "call_function" and is_operator(node.target):
                operators += 1
            elif _is_python(holder, node):
                return False
    return operators > 0


def _is_python(module: nn.Module, node: fx.Node) -> bool:
    """Whether a node that is no operator computes: sizes may be, and tuples picked from."""
    if node.op == "call_module":
        # ExportedProgram.module() checks its inputs in a submodule of this class.
        return type(module.get_submodule(str(node.target))).__name__ != "GuardsFn"
    if node.op != "call_function":
        return node.op == "call_method"
    on_tensors = isinstance(node.meta.get("example_value"), torch.Tensor)
    picks = node.target is operator.getitem
    plain = getattr(node.target, "__module__", "") in {"_operator", "math", "torch"}
    return not plain or (on_tensors and not picks)


def capture_graph(
    module: fx.GraphModule, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Capture:
    """Capture a graph of ATen operators.

    Shapes are those that follow from the inputs, or ``meta["val"]`` of the nodes if none are given.

    Raises:
        CaptureError: Shapes are missing and no inputs, or unfitting ones, were given.
    """
    if args or kwargs:
        return _captured(propagated(module, args, kwargs))
    if _has_shapes(module):
        return _captured(module)
    msg = (
        "the GraphModule's nodes carry no meta['val'], so there are no shapes to price. "
        "Give example inputs: count(graph_module, args)."
    )
    raise CaptureError(msg)


def _captured(module: fx.GraphModule) -> Capture:
    backward = backward_nodes(module.graph)
    calls, fallback, chosen = calls_of_graph(module, module_path, backward=backward)
    return Capture(
        calls=calls,
        fallback=fallback,
        modules=modules_of_graph(module),
        method="graph module",
        inputs=tuple(
            (node.name, meta)
            for node in module.graph.find_nodes(op="placeholder")
            for meta in output_metas(node.meta.get("val"), node.name)
        ),
        notes=(*chosen, *unknown_phases(calls)),
        data_sizes=sizes_in_graph(module),
    )


def _has_shapes(module: fx.GraphModule) -> bool:
    return all(
        "val" in node.meta or not _returns(node.target)
        for node in module.graph.nodes
        if node.op == "call_function" and node.target is not operator.getitem
    )


def _returns(target: Any) -> bool:
    """Return False for an operator that returns nothing, such as an assertion."""
    return not isinstance(target, torch._ops.OpOverload) or bool(target._schema.returns)
