"""Captures of what is a graph already: exported programs and graph modules."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterator
from typing import Any, Protocol

import torch
from torch import fx
from torch._subclasses import FakeTensorMode
from torch.export import ExportedProgram
from torch.export.graph_signature import ExportGraphSignature, InputKind
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from graphflops.capture.decompose import Expander, invocations_of
from graphflops.capture.failure import first_line
from graphflops.capture.graph import operator_calls
from graphflops.capture.hierarchy import module_path, modules_of_graph, modules_of_program
from graphflops.capture.metadata import output_metas
from graphflops.capture.views import unseen_views
from graphflops.errors import CaptureError
from graphflops.interruption import raise_interruption
from graphflops.ir import Capture, Module, NamedTensors
from graphflops.process import QUIET


class Signed(Protocol):
    """A graph with a signature: an exported program, or what was read of one."""

    @property
    def graph_module(self) -> fx.GraphModule:
        """The graph; its nodes have shapes."""

    @property
    def graph_signature(self) -> ExportGraphSignature:
        """What the inputs of the graph are."""


def capture_program(program: ExportedProgram) -> Capture:
    """Capture an exported program as it is, undecomposed."""
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
    calls, nodes = operator_calls(graph, module_path, views)
    return Capture(
        calls=calls,
        fallback=Expander(invocations_of(nodes)),
        modules=modules,
        method=method,
        inputs=program_inputs(program),
        notes=(*notes, *lost),
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
    """Whether a graph calls ATen or higher-order operators and no Python beside them."""
    operators = 0
    for node in module.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OperatorBase):
            operators += 1
        elif node.op == "call_function":
            # Arithmetic on sizes, and picking from tuples.
            if getattr(node.target, "__module__", "") not in {"_operator", "math", "torch"}:
                return False
        elif node.op == "call_method" or (node.op == "call_module" and not _is_guard(module, node)):
            return False
    return operators > 0


def _is_guard(module: fx.GraphModule, node: fx.Node) -> bool:
    # ExportedProgram.module() checks its inputs in a submodule of this class.
    return type(module.get_submodule(str(node.target))).__name__ == "GuardsFn"


def capture_graph(module: fx.GraphModule, args: tuple[Any, ...]) -> Capture:
    """Capture a graph of ATen operators.

    Shapes come from ``meta["val"]``; where a node has none, the given inputs are propagated
    through the graph under fake tensors, and the graph's metadata is put back afterwards.

    Raises:
        CaptureError: Shapes are missing and no inputs, or unfitting ones, were given.
    """
    if _has_shapes(module):
        return _captured(module)
    if not args:
        msg = (
            "the GraphModule's nodes carry no meta['val'], so there are no shapes to price. "
            "Give example inputs: count(graph_module, args)."
        )
        raise CaptureError(msg)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with _propagated(module, [mode.from_tensor(arg) for arg in args], mode):
            return _captured(module)
    except Exception as error:
        raise_interruption(error)
        msg = (
            f"the inputs do not go through the GraphModule: {first_line(error)}. "
            "Give inputs of the shapes and dtypes it was traced with."
        )
        raise CaptureError(msg) from error


@contextlib.contextmanager
def _propagated(
    module: fx.GraphModule, inputs: list[Any], mode: FakeTensorMode | None
) -> Iterator[None]:
    """The graph with shapes and memory computed afresh from inputs, until the block ends."""
    saved = {node: dict(node.meta) for node in module.graph.nodes}
    try:
        with QUIET.holding():
            FakeTensorProp(module, mode).propagate_dont_convert_inputs(*inputs)
        yield
    finally:
        for node, meta in saved.items():
            node.meta = meta


def _captured(module: fx.GraphModule) -> Capture:
    calls, nodes = operator_calls(module, module_path)
    return Capture(
        calls=calls,
        fallback=Expander(invocations_of(nodes)),
        modules=modules_of_graph(module),
        method="graph module",
        inputs=tuple(
            (node.name, meta)
            for node in module.graph.find_nodes(op="placeholder")
            for meta in output_metas(node.meta.get("val"), node.name)
        ),
    )


def _has_shapes(module: fx.GraphModule) -> bool:
    return all(
        "val" in node.meta
        for node in module.graph.nodes
        if node.op == "call_function" and node.target is not operator.getitem
    )
