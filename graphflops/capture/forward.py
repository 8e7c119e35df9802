"""Capture of an ``nn.Module``, by the first way that works.

It runs eagerly under fake tensors, and a tape records its calls. A model that stops at a value
is told that it is exported, which many go another way for. What holds graphs, such as flex
attention, is traced by ``torch.export``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from graphflops.capture.diagnose import explain_failure, refuse_empty_trace, refuse_mixed_dtypes
from graphflops.capture.export.control_flow import calls_of_graph
from graphflops.capture.export.program import program_inputs
from graphflops.capture.fake.data_sizes import ALTERNATIVE_INT, PLACEHOLDER_INT
from graphflops.capture.fake.fake_model import FakeModel, Inputs, fakify_model_and_inputs
from graphflops.capture.fake.moe_strategies import ContextFactory, moe_strategies
from graphflops.capture.fake.quantization import bypass_observers
from graphflops.capture.fake.symbolic_shapes import Symbols, axis_specs
from graphflops.capture.layer_reuse import LayerReplayer
from graphflops.capture.layer_reuse.forward_replay import TapeTracer
from graphflops.capture.record.decompose import Expander
from graphflops.capture.record.finalize import collect_notes, resolve_symbols
from graphflops.capture.record.forward_tape import ForwardTape, HigherOrderError
from graphflops.capture.record.interpreter import install_interpreter
from graphflops.capture.record.module_hierarchy import (
    calls_in_graph,
    count_module_calls,
    module_path,
    modules_of,
)
from graphflops.capture.record.module_stack import ModuleStack, patch_call_impl
from graphflops.capture.record.resolve_data_sizes import refuse_decisive_placeholders, with_sizes
from graphflops.capture.torch_internals.count_flags import NeedsAutogradError, below_autograd
from graphflops.capture.torch_internals.dynamo import OptimizedModule, TorchDynamoException
from graphflops.capture.torch_internals.export_isolation import exporting
from graphflops.capture.transformers_compat import register_caches
from graphflops.capture.unfused_attention import mark_masked_products
from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import Capture
from graphflops.errors import GraphFlopsError
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET

Advance = Callable[[nn.Module, dict[str, Any], Symbols], dict[str, Any]]
# Called eagerly, some such operators go through torch.compile, which then fails.
_HOLDS_GRAPHS = (HigherOrderError, TorchDynamoException)


def capture_module(  # noqa: PLR0913 - what torch.export takes, and how to go about it
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    dynamic_shapes: Any = None,
    advance: Advance | None = None,
    *,
    reuse_layers: bool = True,
    assume: Mapping[str, int] | None = None,
) -> Capture:
    """Run a module under fake tensors and record its calls and hierarchy.

    The model runs as it stands, with its training flag, the gradient mode and autocast, and
    no weight is read or written. Inputs are brought to the model's device as
    metadata, so that real, fake and meta tensors may be mixed.

    Args:
        model: The module; a compiled one is unwrapped.
        args: Positional inputs.
        kwargs: Keyword inputs.
        dynamic_shapes: As ``torch.export.export`` takes it; an axis may be named by a string.
        advance: From these inputs, fake, to those of a later call of the model, which is the
            one to capture.
        reuse_layers: Whether to trace a repeated layer once and reuse it where it does the same.
        assume: Sizes that follow from data, by name.

    Raises:
        CaptureError: The model's forward failed, or no way of capturing it worked.
    """
    model = model._orig_mod if isinstance(model, OptimizedModule) else model
    failures: list[tuple[str, Exception]] = []
    ways = ((way, told) for way in moe_strategies(model, failures) for told in (False, True))
    for way, told in ways:
        job = _Job(model, args, kwargs, dynamic_shapes, advance, *way, assume or {}, told=told)
        try:
            found = job.run(reuse_layers=reuse_layers)
            refuse_decisive_placeholders(found, partial(job.otherwise, reuse_layers=reuse_layers))
        except GraphFlopsError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure moves on to the next rung
            raise_interruption(error)
            failures.append((job.method, error))
        else:
            return found
    raise explain_failure(model, args, kwargs, failures) from failures[0][1]


class _Job:
    """What is to be captured, and in which way.

    Attributes:
        method: What reports call the way.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - what capture_module takes
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        dynamic_shapes: Any,
        advance: Advance | None,
        manner: str,
        around: ContextFactory,
        assume: Mapping[str, int],
        *,
        told: bool,
    ) -> None:
        self._model, self._args, self._kwargs = model, args, kwargs
        self._dynamic_shapes, self._advance = dynamic_shapes, advance
        self._around, self._assume, self._told = around, assume, told
        self._manner = [manner, "told that it is exported" * told]
        self._supposed = PLACEHOLDER_INT
        self._replayer: LayerReplayer | None = None
        self.method = self._named("eager tracing")

    def run(self, *, reuse_layers: bool) -> Capture:
        """The capture, with layers reused if that goes well."""
        try:
            return self._as_it_runs(reuse_layers=reuse_layers)
        except _HOLDS_GRAPHS:
            self.method = self._named("torch.export")
            return self._by_export()
        except Exception as error:
            raise_interruption(error)
            if self._replayer is None or not self._replayer.tried:
                raise
        return self._as_it_runs(reuse_layers=False)

    def otherwise(self, *, reuse_layers: bool) -> Capture:
        """The capture with other numbers where any would do."""
        self._supposed = ALTERNATIVE_INT
        return self.run(reuse_layers=reuse_layers)

    def _named(self, method: str) -> str:
        return ", ".join(filter(None, (method, *self._manner)))

    def _as_it_runs(self, *, reuse_layers: bool) -> Capture:
        """Run it below autograd, or above where it cannot do without."""
        try:
            with below_autograd():
                return self._eagerly(reuse_layers=reuse_layers)
        except NeedsAutogradError:
            # What a layer adds to a backward pass is not known of one that is repeated.
            return self._eagerly(reuse_layers=False)

    def _eagerly(self, *, reuse_layers: bool) -> Capture:
        """Run it under fake tensors, a tape recording its calls."""
        self._replayer = None
        with self._ready() as own:
            modules, known = own.modules, own.tracker
            start = time.perf_counter()
            with known.eager(), self._around(own.model, known):
                args, kwargs = self._advanced(own)
                running = ModuleStack(modules)
                install_interpreter(self._model, own.model, running)
                observed = bypass_observers(modules)
                tape = ForwardTape(running, exporting=self._told)
                given = tape.assign_names(modules, args, kwargs)
                reused = self._replayer = LayerReplayer(
                    modules if reuse_layers else (), known, TapeTracer(tape, running), running.run
                )
                patch_call_impl(modules, reused.run)
                before = known.operator_count
                with tape.recording():
                    own.model(*args, **kwargs)
                refuse_empty_trace(known.operator_count - before, tape.length)
            refuse_mixed_dtypes(tape.traced_calls())
            calls, given = resolve_symbols(known, CallSequence(tape.items), given)
            ran = time.perf_counter()
            captured = Capture(
                calls=calls,
                fallback=Expander(tape.invocations.__getitem__),
                modules=modules_of(modules, running.calls),
                method=self.method,
                inputs=given,
                notes=(*collect_notes(known), *reused.notes, *observed),
                assumptions=known.symbols.assumptions(),
                data_sizes=tuple(known.sizes.by_name.values()),
                layer_reuse=reused.counts,
                timings={
                    "forward": ran - start - reused.seconds,
                    "region check": reused.seconds,
                    "modules": time.perf_counter() - ran,
                },
            )
            return with_sizes(captured, known.sizes.bounds())

    def _by_export(self) -> Capture:
        """Export it and read the graph."""
        with self._ready() as own, torch.no_grad(), exporting():
            modules, known = own.modules, own.tracker
            start = time.perf_counter()
            with known.tracing(), count_module_calls() as calls, self._around(own.model, known):
                with known.outside_graph():
                    args, kwargs = self._advanced(own)
                program = torch.export.export(own.model, args, kwargs, strict=False)
            exported = time.perf_counter() - start
            found = calls_of_graph(program.graph_module, module_path)
            refuse_mixed_dtypes(found.calls)
            captured = Capture(
                calls=mark_masked_products(CallSequence(found.calls)),
                fallback=found.fallback,
                modules=modules_of(modules, calls_in_graph(modules, calls, program.graph_module)),
                method=self.method,
                inputs=program_inputs(program),
                notes=(*collect_notes(known), *found.notes),
                assumptions=known.symbols.assumptions(),
                data_sizes=tuple(known.sizes.by_name.values()),
                timings={
                    "export": exported,
                    "reading the graph": time.perf_counter() - start - exported,
                },
            )
            return with_sizes(captured, known.sizes.bounds())

    def _advanced(self, own: FakeModel) -> Inputs:
        """The inputs of the call that is to be captured."""
        if self._advance is None:
            return own.args, own.kwargs
        return (), self._advance(own.model, own.kwargs, own.tracker.symbols)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[FakeModel]:
        """What stands in for the model and its inputs, while it may be run."""
        with QUIET.holding():
            register_caches(self._model)
            inputs = self._args, dict(self._kwargs)
            specs = axis_specs(self._model, inputs, self._dynamic_shapes)
            own = fakify_model_and_inputs(self._model, *inputs, specs)
            own.tracker.sizes.configure(self._assume, self._supposed)
            yield own
