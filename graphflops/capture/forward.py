"""Capture of an ``nn.Module`` by the first method that succeeds.

The model runs eagerly under fake tensors, and a tape records its calls. A model that fails
because it reads a value runs again with ``is_exporting()`` true, for which many models have
another branch. A model with higher-order operators, such as flex attention, is traced by
``torch.export``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import nn

from graphflops.capture.diagnose import explain_failure, refuse_empty_trace, refuse_mixed_dtypes
from graphflops.capture.export.program import capture_signed_graph
from graphflops.capture.fake.data_sizes import (
    ALTERNATIVE_INT,
    PLACEHOLDER_INT,
    UndecidedSizeError,
)
from graphflops.capture.fake.fake_model import FakeModel, Inputs, fakify_model_and_inputs
from graphflops.capture.fake.moe_strategies import ContextFactory, moe_strategies
from graphflops.capture.fake.observers import bypass_observers
from graphflops.capture.fake.symbolic_shapes import FixedSizeError, Symbols, axis_specs
from graphflops.capture.layer_reuse import LayerReplayer
from graphflops.capture.layer_reuse.attribute_log import attribute_patches
from graphflops.capture.layer_reuse.forward_replay import TapeTracer
from graphflops.capture.record.decompose import Expander
from graphflops.capture.record.finalize import collect_notes, resolve_symbols, storage_events
from graphflops.capture.record.forward_tape import ForwardTape, HigherOrderError
from graphflops.capture.record.interpreter import install_interpreter
from graphflops.capture.record.module_hierarchy import (
    calls_in_graph,
    count_module_calls,
    modules_of,
)
from graphflops.capture.record.module_stack import ModuleStack, patch_call_impl
from graphflops.capture.record.resolve_data_sizes import refuse_decisive_placeholders, with_sizes
from graphflops.capture.torch_internals.count_flags import (
    NeedsAutogradError,
    below_autograd,
    on_gpu,
)
from graphflops.capture.torch_internals.dynamo import dynamo_errors, original_module
from graphflops.capture.torch_internals.export_isolation import exporting
from graphflops.capture.torch_internals.inference_mode import outside_inference_mode
from graphflops.capture.transformers_compat import register_caches
from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import Capture, NamedTensors
from graphflops.errors import GraphFlopsError
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET

Run: TypeAlias = Callable[[dict[str, Any]], Any]
"""Function that runs a stand-in of a model on inputs by name, and returns its outputs."""
Advance = Callable[[nn.Module, Run, dict[str, Any], Symbols], dict[str, Any]]
"""Function from a stand-in and its first inputs to those of a later call; it may run earlier ones.
"""
Method: TypeAlias = Literal["auto", "eager", "export"]
"""Method of a capture of a module."""
_EXPORT = "torch.export"
# Called eagerly, some higher-order operators go through torch.compile, which then fails.


def capture_module(  # noqa: PLR0913 - the arguments of torch.export, and options
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any = None,
    advance: Advance | None = None,
    *,
    reuse_layers: bool = True,
    assume: Mapping[str, int] | None = None,
    method: Method = "auto",
    balanced: bool = False,
) -> Capture:
    """Run a module under fake tensors and record its calls and hierarchy.

    The model runs in its current training and gradient mode and autocast, and no weight is read
    or written. Inputs are moved to the model's device as metadata, so that real, fake and meta
    tensors may be mixed.

    Args:
        model: Module; a compiled one is unwrapped.
        args: Positional inputs.
        kwargs: Keyword inputs.
        dynamic_shapes: Argument of ``torch.export.export``; an axis may be named by a string.
        advance: Function from these inputs, fake, to those of a later call of the model, which
            is captured instead.
        reuse_layers: True to trace a repeated layer once.
        assume: Values of data-dependent sizes, by name.
        method: ``"eager"`` or ``"export"``; ``"auto"`` is the second where the first fails.
        balanced: True to fail where the choices of a router cannot be balanced, for the number of
            tokens is symbolic; otherwise each expert gets as many as can be.

    Raises:
        CaptureError: The model's forward failed, or no capture method succeeded.
    """
    model = original_module(model)
    failures: list[tuple[str, Exception]] = []
    attempts = (
        _Attempt(
            *(model, args, kwargs, dynamic_shapes, advance),
            *strategy,
            assume or {},
            method=method,
            exporting=is_exporting,
        )
        for strategy in moe_strategies(model, failures, balanced=balanced)
        for is_exporting in ((False, True) if method == "auto" else (False,))
    )
    for attempt in attempts:
        try:
            captured = attempt.run(reuse_layers=reuse_layers)
            refuse_decisive_placeholders(
                captured, partial(attempt.run_with_alternative_sizes, reuse_layers=reuse_layers)
            )
        except GraphFlopsError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure moves on to the next attempt
            raise_interruption(error)
            failures.append((attempt.method, error))
        else:
            return captured
    raise explain_failure(model, args, kwargs, failures) from failures[0][1]


class _Recording(NamedTuple):
    """Call of a stand-in, recorded.

    Attributes:
        tape: Tape with the operator calls.
        stack: Module stack, with the numbers of module calls.
        replayer: Replayer of repeated layers.
        inputs: Named inputs.
        outputs: What the model has returned.
    """

    tape: ForwardTape
    stack: ModuleStack
    replayer: LayerReplayer
    inputs: NamedTensors
    outputs: Any


class _Attempt:
    """Attempt to capture a module by one method.

    Attributes:
        method: Name of the method in reports.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what capture_module takes
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        dynamic_shapes: Any,
        advance: Advance | None,
        strategy: str,
        context: ContextFactory,
        assume: Mapping[str, int],
        *,
        method: Method,
        exporting: bool,
    ) -> None:
        self._model, self._args, self._kwargs = model, args, kwargs
        self._dynamic_shapes, self._advance = dynamic_shapes, advance
        self._context, self._assume, self._exporting = context, assume, exporting
        self._modifiers = [strategy, "told that it is exported" * exporting]
        self._placeholder = PLACEHOLDER_INT
        self._replayer: LayerReplayer | None = None
        self._chosen = method
        self.method = self._method_name(_EXPORT if method == "export" else "eager tracing")

    def run(self, *, reuse_layers: bool) -> Capture:
        """Capture the module, without layer reuse if it fails with it."""
        if self._chosen == "export":
            return self._export()
        try:
            return self._trace(reuse_layers=reuse_layers)
        except _higher_order_errors():
            if self._chosen == "eager":
                raise
            self.method = self._method_name(_EXPORT)
            return self._export()
        except (UndecidedSizeError, FixedSizeError):
            raise
        except Exception as error:
            raise_interruption(error)
            if self._replayer is None or not self._replayer.tried:
                raise
        return self._trace(reuse_layers=False)

    def run_with_alternative_sizes(self, *, reuse_layers: bool) -> Capture:
        """Capture the module again, with another placeholder for arbitrary sizes."""
        self._placeholder = ALTERNATIVE_INT
        return self.run(reuse_layers=reuse_layers)

    def _method_name(self, method: str) -> str:
        return ", ".join(filter(None, (method, *self._modifiers)))

    def _trace(self, *, reuse_layers: bool) -> Capture:
        """Trace the model below autograd, or above it if the model needs autograd."""
        try:
            with outside_inference_mode(), below_autograd():
                return self._trace_eagerly(reuse_layers=reuse_layers)
        except NeedsAutogradError:
            # The backward calls of a reused layer are not known in a forward capture.
            return self._trace_eagerly(reuse_layers=False)

    def _trace_eagerly(self, *, reuse_layers: bool) -> Capture:
        """Run the model eagerly under fake tensors, and record its calls on a tape."""
        self._replayer = None
        with self._fakified() as fake:
            tracker = fake.tracker
            start = time.perf_counter()
            with tracker.eager(), self._context(fake.model, tracker):
                observer_notes = bypass_observers(fake.modules, tracker)
                run = partial(self._run_before, fake, reuse_layers=reuse_layers)
                args, kwargs = self._inputs_to_capture(fake, run)
                recording = self._record(fake, args, kwargs, reuse_layers=reuse_layers)
            tape, replayer = recording.tape, recording.replayer
            refuse_mixed_dtypes(tape.traced_calls())
            calls, inputs, outputs = resolve_symbols(
                tracker,
                CallSequence(tape.items),
                recording.inputs,
                tape.output_metas(recording.outputs),
            )
            end = time.perf_counter()
            captured = Capture(
                calls=calls,
                fallback=Expander(tape.invocations.invocation),
                modules=modules_of(fake.modules, recording.stack.calls),
                method=self.method,
                inputs=inputs,
                outputs=outputs,
                constants=tape.constants,
                notes=(*collect_notes(tracker), *replayer.notes, *observer_notes),
                assumptions=tracker.symbols.assumptions(),
                data_sizes=tuple(tracker.sizes.by_name.values()),
                layer_reuse=replayer.counts,
                storages=storage_events(tracker, outputs=recording.outputs, on_gpu=fake.is_on_meta),
                timings={
                    "forward": end - start - replayer.seconds,
                    "region check": replayer.seconds,
                    "modules": time.perf_counter() - end,
                },
            )
            return with_sizes(captured, tracker.sizes.bounds())

    def _run_before(self, fake: FakeModel, inputs: dict[str, Any], *, reuse_layers: bool) -> Any:
        """Run a call before the one that is captured, and return its outputs."""
        recording = self._record(fake, (), inputs, reuse_layers=reuse_layers)
        for lines in (fake.tracker.unknown_masks, fake.tracker.unknown_packings):
            lines.clear()  # they are notes on the captured calls
        return recording.outputs

    def _record(
        self, fake: FakeModel, args: tuple[Any, ...], kwargs: dict[str, Any], *, reuse_layers: bool
    ) -> _Recording:
        """Run a stand-in on inputs, and record its calls."""
        modules, tracker = fake.modules, fake.tracker
        stack = ModuleStack(modules)
        install_interpreter(self._model, fake.model, stack)
        tape = ForwardTape(stack, tracker, exporting=self._exporting)
        inputs = tape.assign_names(modules, args, kwargs)
        replayer = self._replayer = LayerReplayer(
            modules if reuse_layers else (), tracker, TapeTracer(tape, stack), stack.run
        )
        patch_call_impl(modules, replayer.run)
        operator_count = tracker.operator_count
        with on_gpu(fake.is_on_meta), attribute_patches(), tape.recording():
            outputs = fake.model(*args, **kwargs)
        refuse_empty_trace(tracker.operator_count - operator_count, tape.length)
        return _Recording(tape, stack, replayer, inputs, outputs)

    def _export(self) -> Capture:
        """Export the model and read the calls of its graph."""
        with self._fakified() as fake, torch.no_grad(), exporting(), on_gpu(fake.is_on_meta):
            modules, tracker = fake.modules, fake.tracker
            start = time.perf_counter()
            with (
                tracker.tracing(),
                count_module_calls() as module_calls,
                self._context(fake.model, tracker),
            ):
                with tracker.outside_graph():
                    args, kwargs = self._inputs_to_capture(fake, lambda kw: fake.model(**kw))
                program = torch.export.export(fake.model, args, kwargs, strict=False)
            export_seconds = time.perf_counter() - start
            captured = capture_signed_graph(program, (), self.method)
            refuse_mixed_dtypes(captured.calls)
            captured = replace(
                captured,
                modules=modules_of(
                    modules, calls_in_graph(modules, module_calls, program.graph_module)
                ),
                notes=(*collect_notes(tracker), *captured.notes),
                assumptions=tracker.symbols.assumptions(),
                data_sizes=tuple(tracker.sizes.by_name.values()),
                timings={
                    "export": export_seconds,
                    "reading the graph": time.perf_counter() - start - export_seconds,
                },
            )
            return with_sizes(captured, tracker.sizes.bounds())

    def _inputs_to_capture(self, fake: FakeModel, run: Run) -> Inputs:
        """Return the inputs of the call that is to be captured, after the calls before it."""
        if self._advance is None:
            return fake.args, fake.kwargs
        with fake.tracker.sizes.preparing():
            return (), self._advance(fake.model, run, fake.kwargs, fake.tracker.symbols)

    @contextlib.contextmanager
    def _fakified(self) -> Iterator[FakeModel]:
        """Fakify the model and its inputs, in a context in which they can run."""
        with QUIET.holding():
            register_caches(self._model)
            inputs = self._args, dict(self._kwargs)
            specs = axis_specs(self._model, inputs, self._dynamic_shapes)
            fake = fakify_model_and_inputs(self._model, *inputs, specs)
            fake.tracker.sizes.configure(self._assume, self._placeholder)
            yield fake


def _higher_order_errors() -> tuple[type[Exception], ...]:
    """Return the errors of higher-order operators."""
    return HigherOrderError, *dynamo_errors()
