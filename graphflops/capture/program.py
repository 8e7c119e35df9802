"""Captures of what is a graph already: exported programs, ``.pt2`` files, graph modules."""

from __future__ import annotations

import operator
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx.passes.fake_tensor_prop import FakeTensorProp

from graphflops.capture.graph import operator_calls
from graphflops.capture.hierarchy import module_path, modules_of_graph, modules_of_program
from graphflops.capture.metadata import output_metas
from graphflops.errors import CaptureError, ModelSpecError
from graphflops.ir import Capture, TensorMeta


def capture_file(path: Path) -> Capture:
    """Capture an exported program saved as ``.pt2``.

    Raises:
        ModelSpecError: There is no such file, or it is no exported program.
    """
    if not path.is_file():
        msg = f"{path} does not exist. Give the path of a file written by torch.export.save."
        raise ModelSpecError(msg)
    try:
        program = torch.export.load(path)
    except Exception as error:
        msg = (
            f"{path} cannot be read as an exported program ({_first_line(error)}). "
            "Write it again with torch.export.save under this version of PyTorch."
        )
        raise ModelSpecError(msg) from error
    return capture_program(program, method="pt2 file")


def capture_program(program: ExportedProgram, method: str = "exported program") -> Capture:
    """Capture an exported program as it is, undecomposed."""
    return Capture(
        calls=operator_calls(program.graph_module, module_path),
        modules=modules_of_program(program),
        method=method,
        inputs=program_inputs(program),
    )


def program_inputs(program: ExportedProgram) -> tuple[tuple[str, TensorMeta], ...]:
    """The user's input tensors of a program, by name."""
    kinds = {spec.arg.name: spec.kind for spec in program.graph_signature.input_specs}
    return tuple(
        (node.name, meta)
        for node in program.graph.find_nodes(op="placeholder")
        if kinds.get(node.name) == InputKind.USER_INPUT
        for meta in output_metas(node.meta.get("val"), node.name)
    )


def is_aten_graph(module: fx.GraphModule) -> bool:
    """Whether every call in a graph is an ATen or higher-order operator."""
    return all(
        isinstance(node.target, torch._ops.OperatorBase)  # noqa: SLF001 - torch's own name for it
        or getattr(node.target, "__module__", "") in {"_operator", "math", "torch"}
        if node.op == "call_function"
        else node.op not in {"call_method", "call_module"}
        for node in module.graph.nodes
    ) and any(isinstance(n.target, torch._ops.OpOverload) for n in module.graph.nodes)  # noqa: SLF001 - as above


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
    saved = {node: dict(node.meta) for node in module.graph.nodes}
    try:
        FakeTensorProp(module).propagate(*args)
        return _captured(module)
    except Exception as error:
        msg = (
            f"the inputs do not go through the GraphModule: {_first_line(error)} "
            "Give inputs of the shapes and dtypes it was traced with."
        )
        raise CaptureError(msg) from error
    finally:
        for node, meta in saved.items():
            node.meta = meta


def _captured(module: fx.GraphModule) -> Capture:
    return Capture(
        calls=operator_calls(module, module_path),
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


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
