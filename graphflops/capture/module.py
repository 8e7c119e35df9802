"""Capture of an ``nn.Module``: export it, by the first way that works."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.export import ExportedProgram

from graphflops.capture.decompose import Expander
from graphflops.capture.devices import alike
from graphflops.capture.failure import explain_failure, refuse_mixed_dtypes
from graphflops.capture.graph import operator_calls
from graphflops.capture.hierarchy import counted_calls, module_path, modules_of
from graphflops.capture.program import program_inputs
from graphflops.capture.untouched import untouched
from graphflops.ir import Capture
from graphflops.quiet import quiet

Exporter = Callable[..., ExportedProgram]


def capture_module(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], dynamic_shapes: Any = None
) -> Capture:
    """Export a module and read off its calls and hierarchy.

    The model is exported as it stands (training flag included), without gradients, under
    fake tensors: no weight is read or written. Inputs are brought to the model's device as
    metadata, so that real, fake and meta tensors may be mixed.

    Args:
        model: The module; a compiled one is unwrapped.
        args: Positional inputs.
        kwargs: Keyword inputs.
        dynamic_shapes: As ``torch.export.export`` takes it.

    Raises:
        CaptureError: The model's forward failed, or no way of exporting it worked.
    """
    model = model._orig_mod if isinstance(model, OptimizedModule) else model
    failures: list[tuple[str, Exception]] = []
    for method, export in _ladder(model, args):
        with untouched(model), quiet(), _collector_paused(), torch.no_grad():
            _unwrap_compiled(model)
            try:
                with counted_calls() as calls:
                    program = export(model, args, dict(kwargs), dynamic_shapes)
            except Exception as error:  # noqa: BLE001 - any failure moves on to the next rung
                failures.append((method, error))
                continue
            found, nodes = operator_calls(program.graph_module, module_path)
            refuse_mixed_dtypes(found)
            return Capture(
                calls=found,
                fallback=Expander(nodes),
                modules=modules_of(model, calls, program.graph_module),
                method=method,
                inputs=program_inputs(program),
            )
    raise explain_failure(model, args, kwargs, failures) from failures[0][1]


@contextlib.contextmanager
def _collector_paused() -> Iterator[None]:
    """No garbage collection: an export makes many objects and drops few, a tenth of its time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _ladder(model: nn.Module, args: tuple[Any, ...]) -> list[tuple[str, Exporter]]:
    rungs: list[tuple[str, Exporter]] = [("torch.export", _plain_export)]
    if _is_transformers_model(model) and not args:
        rungs.append(("transformers exporter", _transformers_export))
    return rungs


def _is_transformers_model(model: nn.Module) -> bool:
    transformers: Any = sys.modules.get("transformers")
    return transformers is not None and isinstance(model, transformers.PreTrainedModel)


def _plain_export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> ExportedProgram:
    args, kwargs = alike(model, (args, kwargs))
    if _is_transformers_model(model):
        from transformers.exporters import exporter_dynamo  # only if transformers is in use

        # Its caches are classes that export must know to take and return them.
        exporter_dynamo.register_cache_pytrees_for_model(model)
    return torch.export.export(model, args, kwargs, dynamic_shapes=dynamic_shapes, strict=False)


def _transformers_export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], dynamic_shapes: Any
) -> ExportedProgram:
    """Export through transformers, which patches what plain export trips over.

    It gets the inputs as they are: it computes sizes from those that have values.
    """
    del args  # the exporter takes keyword inputs only, and the ladder offers it only without
    from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter

    config = DynamoConfig(dynamic=dynamic_shapes is not None, dynamic_shapes=dynamic_shapes)
    program: ExportedProgram
    program, _ = DynamoExporter().export_program(model, kwargs, config)
    return program


def _unwrap_compiled(model: nn.Module) -> None:
    """Let compiled submodules run as written; ``untouched`` puts them back."""
    for module in model.modules():
        module._compiled_call_impl = None
        for name, child in module._modules.items():
            if isinstance(child, OptimizedModule):
                module._modules[name] = child._orig_mod
