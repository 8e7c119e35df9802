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
from torch._dynamo.eval_frame import OptimizedModule
from torch._dynamo.exc import TorchDynamoException

from graphflops.capture.control_flow import calls_of_graph
from graphflops.capture.counting_thread import NeedsAutogradError, below_autograd
from graphflops.capture.data_sizes import OTHERWISE, SUPPOSED
from graphflops.capture.decompose import Expander
from graphflops.capture.experts import Surroundings, ways_to_run
from graphflops.capture.exporting import exporting
from graphflops.capture.failure import explain_failure, refuse_mixed_dtypes, refuse_unseen
from graphflops.capture.fake.stand_in import Inputs, StandIn, stand_in
from graphflops.capture.forward import ForwardTape, HigherOrderError
from graphflops.capture.hierarchy import calls_in_graph, counted_calls, module_path, modules_of
from graphflops.capture.nodes import follow_nodes
from graphflops.capture.open_sizes import refuse_decisive, with_sizes
from graphflops.capture.outcome import notes_of, settled
from graphflops.capture.program import program_inputs
from graphflops.capture.quantized import leave_out_observers
from graphflops.capture.regions import Regions
from graphflops.capture.regions.taping import TapeTracer
from graphflops.capture.running import Running, run_by
from graphflops.capture.symbols import Symbols, axis_specs
from graphflops.capture.transformers_caches import register_caches
from graphflops.capture.written_out import mark_hidden
from graphflops.errors import GraphFlopsError
from graphflops.folded import Folded
from graphflops.interruption import raise_interruption
from graphflops.ir import Capture
from graphflops.process import QUIET

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
    regions: bool = True,
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
        regions: Whether to trace a repeated layer once and reuse it where it does the same.
        assume: Sizes that follow from data, by name.

    Raises:
        CaptureError: The model's forward failed, or no way of capturing it worked.
    """
    model = model._orig_mod if isinstance(model, OptimizedModule) else model
    failures: list[tuple[str, Exception]] = []
    ways = ((way, told) for way in ways_to_run(model, failures) for told in (False, True))
    for way, told in ways:
        job = _Job(model, args, kwargs, dynamic_shapes, advance, *way, assume or {}, told=told)
        try:
            found = job.run(regions=regions)
            refuse_decisive(found, partial(job.otherwise, regions=regions))
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
        around: Surroundings,
        assume: Mapping[str, int],
        *,
        told: bool,
    ) -> None:
        self._model, self._args, self._kwargs = model, args, kwargs
        self._dynamic_shapes, self._advance = dynamic_shapes, advance
        self._around, self._assume, self._told = around, assume, told
        self._manner = [manner, "told that it is exported" * told]
        self._supposed = SUPPOSED
        self._regions: Regions | None = None
        self.method = self._named("eager tracing")

    def run(self, *, regions: bool) -> Capture:
        """The capture, with layers reused if that goes well."""
        try:
            return self._as_it_runs(regions=regions)
        except _HOLDS_GRAPHS:
            self.method = self._named("torch.export")
            return self._by_export()
        except Exception as error:
            raise_interruption(error)
            if self._regions is None or not self._regions.tried:
                raise
        return self._as_it_runs(regions=False)

    def otherwise(self, *, regions: bool) -> Capture:
        """The capture with other numbers where any would do."""
        self._supposed = OTHERWISE
        return self.run(regions=regions)

    def _named(self, method: str) -> str:
        return ", ".join(filter(None, (method, *self._manner)))

    def _as_it_runs(self, *, regions: bool) -> Capture:
        """Run it below autograd, or above where it cannot do without."""
        try:
            with below_autograd():
                return self._eagerly(regions=regions)
        except NeedsAutogradError:
            # What a layer adds to a backward pass is not known of one that is repeated.
            return self._eagerly(regions=False)

    def _eagerly(self, *, regions: bool) -> Capture:
        """Run it under fake tensors, a tape recording its calls."""
        self._regions = None
        with self._ready() as own:
            modules, known = own.modules, own.known
            start = time.perf_counter()
            with known.running(), self._around(own.model, known):
                args, kwargs = self._advanced(own)
                running = Running(modules)
                follow_nodes(self._model, own.model, running)
                observed = leave_out_observers(modules)
                tape = ForwardTape(running, exporting=self._told)
                given = tape.know_all(modules, args, kwargs)
                reused = self._regions = Regions(
                    modules if regions else (), known, TapeTracer(tape, running), running.run
                )
                run_by(modules, reused.run)
                before = known.operators
                with tape.recording():
                    own.model(*args, **kwargs)
                refuse_unseen(known.operators - before, tape.length)
            refuse_mixed_dtypes(tape.traced())
            calls, given = settled(known, Folded(tape.items), given)
            ran = time.perf_counter()
            captured = Capture(
                calls=calls,
                fallback=Expander(tape.invocations.__getitem__),
                modules=modules_of(modules, running.calls),
                method=self.method,
                inputs=given,
                notes=(*notes_of(known), *reused.notes, *observed),
                assumptions=known.symbols.assumptions(),
                data_sizes=tuple(known.sizes.found.values()),
                regions=reused.counts,
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
            modules, known = own.modules, own.known
            start = time.perf_counter()
            with known.tracing(), counted_calls() as calls, self._around(own.model, known):
                with known.outside_of_a_graph():
                    args, kwargs = self._advanced(own)
                program = torch.export.export(own.model, args, kwargs, strict=False)
            exported = time.perf_counter() - start
            found = calls_of_graph(program.graph_module, module_path)
            refuse_mixed_dtypes(found.calls)
            captured = Capture(
                calls=mark_hidden(Folded(found.calls)),
                fallback=found.fallback,
                modules=modules_of(modules, calls_in_graph(modules, calls, program.graph_module)),
                method=self.method,
                inputs=program_inputs(program),
                notes=(*notes_of(known), *found.notes),
                assumptions=known.symbols.assumptions(),
                data_sizes=tuple(known.sizes.found.values()),
                timings={
                    "export": exported,
                    "reading the graph": time.perf_counter() - start - exported,
                },
            )
            return with_sizes(captured, known.sizes.bounds())

    def _advanced(self, own: StandIn) -> Inputs:
        """The inputs of the call that is to be captured."""
        if self._advance is None:
            return own.args, own.kwargs
        return (), self._advance(own.model, own.kwargs, own.known.symbols)

    @contextlib.contextmanager
    def _ready(self) -> Iterator[StandIn]:
        """What stands in for the model and its inputs, while it may be run."""
        with QUIET.holding():
            register_caches(self._model)
            inputs = self._args, dict(self._kwargs)
            specs = axis_specs(self._model, inputs, self._dynamic_shapes)
            own = stand_in(self._model, *inputs, specs)
            own.known.sizes.begin(self._assume, self._supposed)
            yield own
