"""Capture: from a model in any of its forms to operator calls. The only room with torch."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from graphflops.capture.export.program import capture_graph, capture_program, is_aten_graph
from graphflops.capture.export.propagation import agrees
from graphflops.capture.export.pt2 import capture_file
from graphflops.capture.forward import capture_module
from graphflops.capture.function_graph import capture_torch_graph
from graphflops.capture.record.resolve_data_sizes import check_assumed, with_sizes
from graphflops.core.ir import Capture
from graphflops.errors import CaptureError, ModelSpecError


def capture(  # noqa: PLR0913 - what may be captured, and how to go about it
    model: object,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    dynamic_shapes: Any = None,
    *,
    reuse_layers: bool = True,
    assume: Mapping[str, int] | None = None,
) -> Capture:
    """Capture a model, whatever form it comes in.

    Args:
        model: An ``nn.Module``, an ``ExportedProgram``, an ``fx.GraphModule`` or the path of a
            ``.pt2`` file.
        args: Positional inputs; what is a graph already has shapes of its own without them.
        kwargs: Keyword inputs, likewise.
        dynamic_shapes: As ``torch.export.export`` takes it, for a module.
        reuse_layers: Whether to trace a repeated layer of a module once.
        assume: Sizes that follow from data, by name.

    Raises:
        ModelSpecError: ``model`` is none of these.
        CaptureError: It is, and could not be captured.
    """
    start, assumed = time.perf_counter(), assume or {}
    if isinstance(model, str | PathLike):
        found = with_sizes(capture_file(Path(model)), assume=assumed)
        _refuse_other_inputs(found, (args, kwargs or {}))
    elif isinstance(model, ExportedProgram):
        found = with_sizes(capture_program(model, tuple(args), kwargs or {}), assume=assumed)
    elif isinstance(model, fx.GraphModule) and is_aten_graph(model):
        found = with_sizes(capture_graph(model, tuple(args), kwargs or {}), assume=assumed)
    elif isinstance(model, fx.GraphModule):
        inputs = tuple(args), kwargs or {}
        found = capture_torch_graph(model, *inputs, dynamic_shapes, reuse_layers=reuse_layers)
    elif isinstance(model, nn.Module):
        found = capture_module(
            model,
            tuple(args),
            kwargs or {},
            dynamic_shapes,
            reuse_layers=reuse_layers,
            assume=assumed,
        )
    else:
        msg = (
            f"a {type(model).__name__} cannot be counted. Give an nn.Module, an ExportedProgram, "
            "an fx.GraphModule or the path of a .pt2 file."
        )
        raise ModelSpecError(msg)
    check_assumed(assumed, found.data_sizes)
    return replace(found, seconds=time.perf_counter() - start)


def _refuse_other_inputs(found: Capture, inputs: object) -> None:
    """Refuse inputs that are not like those of a file: its graph is read, not run."""
    given = pytree.tree_leaves(inputs)
    if given and not agrees([meta for _, meta in found.inputs], given):
        own = ", ".join(f"{name} {meta.dtype}{list(meta.shape)}" for name, meta in found.inputs)
        msg = (
            f"the file has inputs of its own ({own}), and others were given. Give none, or count "
            "torch.export.load(path) with them, if you trust its authors."
        )
        raise CaptureError(msg)
