"""Capture: from a model in any form to its operator calls, under fake tensors.

In: an ``nn.Module``, exported program, graph module or ``.pt2`` file, with inputs. Out: a
``Capture``. May import torch, ``conventions``, ``pricing``, ``core``, ``runtime``, ``errors``.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import fx, nn
from torch.export import ExportedProgram

from graphflops.capture.export.graph_checks import refuse_broken_graph
from graphflops.capture.export.partitions import inline_partitions
from graphflops.capture.export.program import (
    capture_graph,
    capture_program,
    is_aten_graph,
)
from graphflops.capture.export.propagation import matches
from graphflops.capture.forward import Method, capture_module
from graphflops.capture.function_graph import capture_torch_graph
from graphflops.capture.record.resolve_data_sizes import check_assumed, with_sizes
from graphflops.capture.torch_internals.trees import pytree
from graphflops.core.ir import Capture
from graphflops.errors import CaptureError, ModelSpecError


def capture(  # noqa: PLR0913 - the model, its inputs and the options of a capture
    model: object,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    *,
    reuse_layers: bool = True,
    assume: Mapping[str, int] | None = None,
    method: Method = "auto",
) -> Capture:
    """Capture a model in any form.

    Args:
        model: An ``nn.Module``, an ``ExportedProgram``, an ``fx.GraphModule`` or the path of a
            ``.pt2`` file.
        args: Positional inputs; a graph has its own shapes if there are none.
        kwargs: Keyword inputs, likewise.
        dynamic_shapes: Argument of ``torch.export.export``, for a module.
        reuse_layers: True to trace a repeated layer of a module once.
        assume: Values of data-dependent sizes, by name.
        method: Method of capturing a module.

    Raises:
        ModelSpecError: ``model`` has another type, is a broken graph, or is a graph and a method
            is given.
        CaptureError: It could not be captured.
    """
    start, assumed = time.perf_counter(), assume or {}
    if method != "auto" and (isinstance(model, fx.GraphModule) or not isinstance(model, nn.Module)):
        kind = "file" if isinstance(model, str | PathLike) else type(model).__name__
        msg = (
            f"capture={method!r} is a way of capturing an nn.Module, and a {kind} is captured "
            "already. Leave it out."
        )
        raise ModelSpecError(msg)
    if isinstance(model, str | PathLike):
        from graphflops.capture.export.pt2 import capture_file  # imports Dynamo

        captured = with_sizes(capture_file(Path(model)), assume=assumed)
        _refuse_other_inputs(captured, (args, kwargs or {}))
    elif isinstance(model, ExportedProgram):
        refuse_broken_graph(model.graph_module)
        captured = with_sizes(capture_program(model, tuple(args), kwargs or {}), assume=assumed)
    elif isinstance(model, fx.GraphModule):
        refuse_broken_graph(model)
        graph, inputs = inline_partitions(model), (tuple(args), kwargs or {})
        captured = (
            with_sizes(capture_graph(graph, *inputs), assume=assumed)
            if is_aten_graph(graph)
            else capture_torch_graph(graph, *inputs, dynamic_shapes, reuse_layers=reuse_layers)
        )
    elif isinstance(model, nn.Module):
        captured = capture_module(
            model,
            tuple(args),
            kwargs or {},
            dynamic_shapes,
            reuse_layers=reuse_layers,
            assume=assumed,
            method=method,
        )
    else:
        msg = (
            f"a {type(model).__name__} cannot be counted. Give an nn.Module, an ExportedProgram, "
            "an fx.GraphModule or the path of a .pt2 file."
        )
        raise ModelSpecError(msg)
    check_assumed(assumed, captured.data_sizes)
    return replace(captured, seconds=time.perf_counter() - start)


def _refuse_other_inputs(captured: Capture, inputs: object) -> None:
    """Refuse inputs that do not match those of a file, whose graph is read but not run."""
    leaves = pytree.tree_leaves(inputs)
    if leaves and not matches([meta for _, meta in captured.inputs], leaves):
        listed = ", ".join(
            f"{name} {meta.dtype}{list(meta.shape)}" for name, meta in captured.inputs
        )
        msg = (
            f"the file has inputs of its own ({listed}), and others were given. Give none, or "
            "count torch.export.load(path) with them, if you trust its authors."
        )
        raise CaptureError(msg)
