"""Capture of an ``nn.Module``: export it, by the first way that works."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.distributions import Distribution
from torch.export import ExportedProgram

from graphflops.capture.decompose import Expander, invocations_of
from graphflops.capture.devices import brought_together
from graphflops.capture.experts import evenly_chosen, grouped, loops_over_experts
from graphflops.capture.failure import explain_failure, refuse_mixed_dtypes
from graphflops.capture.graph import operator_calls
from graphflops.capture.hierarchy import (
    calls_in_graph,
    counted_calls,
    module_path,
    modules_of,
)
from graphflops.capture.program import program_inputs
from graphflops.capture.regions import ExportTracer, Regions
from graphflops.capture.symbols import Symbols, axis_specs
from graphflops.capture.untouched import untouched
from graphflops.capture.values import CHANCE, DRAWN, INPUTS, KnownValues, traced_in_mode_of
from graphflops.errors import GraphFlopsError
from graphflops.ir import Capture, LayersReused
from graphflops.quiet import quiet

Inputs = tuple[tuple[Any, ...], dict[str, Any]]
Prepare = Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], Inputs]
Exporter = Callable[..., ExportedProgram]


class _Rung(NamedTuple):
    """A way to export: its name, what it does to inputs before, and how it exports."""

    method: str
    prepare: Prepare
    export: Exporter


Advance = Callable[[nn.Module, dict[str, Any], Symbols], dict[str, Any]]
_ASKED = "Some sizes follow from values of the inputs: with other values it may cost otherwise."
SUPPOSED = (
    "Which experts tokens go to is up to the weights: they are supposed to go to all in turn."
)

_DRAWN = (
    f"Random numbers that decide what runs are taken to be {DRAWN}: a layer that is dropped more "
    "rarely is kept."
)
_READABLE = 40  # characters of a condition that a note quotes


def capture_module(  # noqa: PLR0913 - what torch.export takes, and how to go about it
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any = None,
    advance: Advance | None = None,
    *,
    regions: bool = True,
) -> Capture:
    """Export a module and read off its calls and hierarchy.

    The model is exported as it stands (training flag included), without gradients, under
    fake tensors: no weight is read or written. Inputs are brought to the model's device as
    metadata, so that real, fake and meta tensors may be mixed.

    Args:
        model: The module; a compiled one is unwrapped.
        args: Positional inputs.
        kwargs: Keyword inputs.
        dynamic_shapes: As ``torch.export.export`` takes it; an axis may be named by a string.
        advance: From these inputs, fake, to those of a later call of the model, which is the
            one to capture.
        regions: Whether to trace a repeated layer once and reuse it where it does the same.

    Raises:
        CaptureError: The model's forward failed, or no way of exporting it worked.
    """
    model = model._orig_mod if isinstance(model, OptimizedModule) else model
    failures: list[tuple[str, Exception]] = []
    for rung in _ladder(model, args, advance):
        job = _Job(model, args, kwargs, dynamic_shapes, advance)
        try:
            return job.run_at_best(rung) if regions else job.run(rung, _Reuse.NEVER)
        except GraphFlopsError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure moves on to the next rung
            failures.append((rung.method, error))
    raise explain_failure(model, args, kwargs, failures) from failures[0][1]


class _Reuse(Enum):
    """Whether repeated layers are reused, and whether the export sees their parameters."""

    NEVER = 0
    SEEN = 1
    UNSEEN = 2


class _Job:
    """What is to be captured."""

    def __init__(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        dynamic_shapes: Any,
        advance: Advance | None,
    ) -> None:
        self._model, self._args, self._kwargs = model, args, kwargs
        self._dynamic_shapes, self._advance = dynamic_shapes, advance
        self._regions: Regions | None = None

    def run_at_best(self, rung: _Rung) -> Capture:
        """Capture it in one way, with as much reuse as goes well."""
        for reuse in (_Reuse.UNSEEN, _Reuse.SEEN):
            found = self._attempt(rung, reuse)
            if found is not None:
                return found
            if self._regions is None or not self._regions.hiding.asked:
                break
        return self.run(rung, _Reuse.NEVER)

    def _attempt(self, rung: _Rung, reuse: _Reuse) -> Capture | None:
        """A capture, or ``None`` if it failed, perhaps for the reuse."""
        try:
            found = self.run(rung, reuse)
        except Exception:
            if self._regions is None or not (self._regions.tried or self._regions.hiding.asked):
                raise
            return None
        return None if self._regions and self._regions.hiding.asked else found

    def run(self, rung: _Rung, reuse: _Reuse) -> Capture:
        """Capture it in one way."""
        model = self._model
        self._regions = None
        with untouched(model), quiet(), export_friendly(), torch.no_grad():
            unwrap_compiled(model)
            inputs = rung.prepare(model, self._args, dict(self._kwargs))
            specs = axis_specs(model, inputs, self._dynamic_shapes)
            inputs = brought_together(model, inputs, specs)
            with traced_in_mode_of(inputs) as known:
                if self._advance is not None and known is not None:
                    with known.outside_of_a_graph():
                        inputs = (), self._advance(model, inputs[1], known.symbols)
                with counted_calls() as calls, contextlib.ExitStack() as stack:
                    if reuse is not _Reuse.NEVER and known is not None:
                        self._regions = Regions(model, known, calls, ExportTracer())
                        stack.enter_context(self._regions.active(hide=reuse is _Reuse.UNSEEN))
                    start = time.perf_counter()
                    program = rung.export(model, *inputs)
                    exported = time.perf_counter() - start
            notes = () if known is None else notes_of(known)
            checked = 0.0 if self._regions is None else self._regions.seconds
            found, nodes = operator_calls(program.graph_module, module_path)
            refuse_mixed_dtypes(found)
            return Capture(
                calls=found,
                fallback=Expander(invocations_of(nodes)),
                modules=modules_of(model, calls_in_graph(model, calls, program.graph_module)),
                method=rung.method,
                inputs=program_inputs(program),
                notes=(*notes, *(() if self._regions is None else self._regions.notes)),
                assumptions=() if known is None else known.symbols.assumptions(),
                regions=LayersReused() if self._regions is None else self._regions.counts,
                timings={
                    "export": exported - checked,
                    "region check": checked,
                    "reading the graph": time.perf_counter() - start - exported,
                },
            )


def notes_of(known: KnownValues) -> tuple[str, ...]:
    """What a reader must know of a graph.

    Raises:
        CaptureError: A size that was to be symbolic has become a number.
    """
    known.symbols.refuse_fixed()
    assumed = [str(condition) for condition in known.symbols.assumptions()]
    short = [condition for condition in assumed if len(condition) <= _READABLE]
    if more := len(assumed) - len(short):
        short.append(f"{more} longer conditions on sizes are met")
    sentences = {
        _ASKED: INPUTS in known.asked,
        _DRAWN: CHANCE in known.asked,
        SUPPOSED: known.supposed,
        f"Costs hold where {', '.join(short)}.": short,
    }
    return tuple(sentence for sentence, said in sentences.items() if said)


@contextlib.contextmanager
def export_friendly() -> Iterator[None]:
    """What an export needs of the process; put back afterwards.

    No checks of the parameters of distributions: they read values that are not there.
    Converting a module to what it is already does nothing: fake parameters cannot be exchanged.
    """
    validating = Distribution._validate_args
    exchange: Any = torch.utils.swap_tensors

    def convert(old: torch.Tensor, new: torch.Tensor) -> None:
        if (old.dtype, old.device) != (new.dtype, new.device):
            exchange(old, new)

    lazily = torch.fx._lazy_graph_module._use_lazy_graph_module(True)
    Distribution.set_default_validate_args(False)
    torch.utils.swap_tensors = convert
    try:
        with lazily:
            yield
    finally:
        torch.utils.swap_tensors = exchange
        Distribution.set_default_validate_args(validating)


def _ladder(model: nn.Module, args: tuple[Any, ...], advance: Advance | None) -> list[_Rung]:
    """Ways to export, the plainest first."""
    rungs = [_Rung("torch.export", _as_they_are, _plain_export)]
    # The second makes full caches of sliding windows, of which a later call sees more.
    if is_transformers_model(model) and not args and advance is None:
        rungs.append(_Rung("transformers exporter", _precomputed, _transformers_export))
    if is_transformers_model(model) and loops_over_experts(model):
        rungs.append(_Rung("torch.export, experts grouped", _as_they_are, _grouped_export))
    rungs.append(_Rung("torch.export, experts chosen evenly", _as_they_are, _even_export))
    return rungs


def is_transformers_model(model: nn.Module) -> bool:
    """Whether a model is one of transformers', asked without importing it."""
    transformers: Any = sys.modules.get("transformers")
    return transformers is not None and isinstance(model, transformers.PreTrainedModel)


def _as_they_are(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    if is_transformers_model(model):
        from transformers.exporters import exporter_dynamo  # only if transformers is in use

        # Its caches are classes that export must know to take and return them.
        exporter_dynamo.register_cache_pytrees_for_model(model)
    return args, kwargs


def _precomputed(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Inputs:
    """With what transformers can compute of real values, such as positions of image patches."""
    from transformers.exporters.utils import precompute_export_inputs

    precompute_export_inputs(model, kwargs)
    return args, kwargs


def _plain_export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    return torch.export.export(model, args, kwargs, strict=False)


def _grouped_export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    with grouped(model):
        return _plain_export(model, args, kwargs)


def _even_export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    with evenly_chosen((args, kwargs)):
        return _plain_export(model, args, kwargs)


def _transformers_export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> ExportedProgram:
    """Export through transformers, which patches what plain export trips over."""
    del args  # the exporter takes keyword inputs only, and the ladder offers it only without
    from transformers.exporters.exporter_dynamo import DynamoConfig, DynamoExporter

    program: ExportedProgram
    program, _ = DynamoExporter().export_program(model, kwargs, DynamoConfig())
    return program


def unwrap_compiled(model: nn.Module) -> None:
    """Let compiled submodules run as written; ``untouched`` puts them back."""
    for module in model.modules():
        module._compiled_call_impl = None
        for name, child in module._modules.items():
            if isinstance(child, OptimizedModule):
                module._modules[name] = child._orig_mod
