"""Capture of a training step: forward, loss and backward, as autograd runs them.

The model runs eagerly under fake tensors, and a tape records the operators below autograd. A
joint graph from ``torch.export`` and AOTAutograd takes several times as long, loses the backward
of a custom ``autograd.Function`` and flattens checkpoints; the tape records both as they run.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from graphflops.capture.diagnose import (
    explain_failure,
    first_line,
    refuse_empty_trace,
    refuse_mixed_dtypes,
)
from graphflops.capture.fake.data_sizes import ALTERNATIVE_INT, PLACEHOLDER_INT
from graphflops.capture.fake.fake_model import FakeModel, fakify_model_and_inputs
from graphflops.capture.fake.leaves import tensors_in
from graphflops.capture.fake.moe_strategies import ContextFactory, moe_strategies
from graphflops.capture.fake.observers import bypass_observers
from graphflops.capture.fake.symbolic_shapes import axis_specs
from graphflops.capture.layer_reuse import LayerReplayer
from graphflops.capture.layer_reuse.attribute_log import attribute_patches
from graphflops.capture.layer_reuse.training_replay import AutogradTracer
from graphflops.capture.record.autograd_attribution import LOSS, AutogradAttribution
from graphflops.capture.record.decompose import Expander
from graphflops.capture.record.finalize import collect_notes, resolve_symbols, storage_events
from graphflops.capture.record.gradients import GradientTracker
from graphflops.capture.record.loss import Loss, loss_of
from graphflops.capture.record.module_hierarchy import modules_of
from graphflops.capture.record.module_stack import patch_call_impl
from graphflops.capture.record.resolve_data_sizes import (
    check_assumed,
    refuse_decisive_placeholders,
    with_sizes,
)
from graphflops.capture.record.training_tape import TrainingTape
from graphflops.capture.torch_internals.count_flags import model_running, on_gpu
from graphflops.capture.torch_internals.dynamo import original_module
from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import Capture, Module
from graphflops.errors import CaptureError, GraphFlopsError
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET


@dataclass(frozen=True, kw_only=True)
class TrainingCapture:
    """Capture of a training step.

    Attributes:
        capture: Calls in order: forward, backward and recomputed ones.
        loss: Description of the loss.
        differentiated: Identities of the parameters that got a gradient.
    """

    capture: Capture
    loss: str
    differentiated: frozenset[int]


def capture_training(  # noqa: PLR0913 - the model, its inputs, the loss and the options
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    loss: Loss | None,
    dynamic_shapes: Any = None,
    *,
    reuse_layers: bool = True,
    assume: Mapping[str, int] | None = None,
) -> TrainingCapture:
    """Run a forward and a backward pass under fake tensors and record their calls.

    The model runs in its current state: training flag, ``requires_grad`` and checkpoints. No
    gradient is left in its parameters.

    Args:
        model: Module; a compiled one is unwrapped.
        args: Positional inputs.
        kwargs: Keyword inputs.
        loss: Function from the model's output to a scalar; by default its own loss, or a sum.
        dynamic_shapes: Argument of ``torch.export.export``; an axis may be named by a string.
        reuse_layers: True to run a repeated layer once.
        assume: Values of data-dependent sizes, by name.

    Raises:
        CaptureError: The forward fails, there is nothing to differentiate, or an operator has
            no derivative.
    """
    start = time.perf_counter()
    model = original_module(model)
    _refuse_untrainable(model, (args, kwargs))
    failures: list[tuple[str, Exception]] = []
    for strategy, context in moe_strategies(model, failures):
        method = f"autograd, {strategy}" if strategy else "autograd"
        attempt = _Attempt(model, args, kwargs, dynamic_shapes, loss, context, assume or {})
        try:
            step = attempt.run(reuse_layers=reuse_layers)
            refuse_decisive_placeholders(
                step.capture,
                partial(attempt.run_with_alternative_sizes, reuse_layers=reuse_layers),
            )
        except GraphFlopsError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure moves on to the next attempt
            raise_interruption(error)
            failures.append((method, error))
            continue
        check_assumed(assume or {}, step.capture.data_sizes)
        seconds = time.perf_counter() - start
        return replace(step, capture=replace(step.capture, method=method, seconds=seconds))
    raise explain_failure(model, args, kwargs, failures) from failures[0][1]


class _Attempt:
    """Attempt to capture a training step by one strategy."""

    def __init__(  # noqa: PLR0913, PLR0917 - what capture_training takes
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        dynamic_shapes: Any,
        loss: Loss | None,
        context: ContextFactory,
        assume: Mapping[str, int],
    ) -> None:
        self._model, self._args, self._kwargs = model, args, kwargs
        self._dynamic_shapes, self._loss = dynamic_shapes, loss
        self._context, self._assume = context, assume
        self._placeholder = PLACEHOLDER_INT
        self._replayer: LayerReplayer | None = None

    def run(self, *, reuse_layers: bool) -> TrainingCapture:
        """Capture the step, without layer reuse if it fails with it."""
        try:
            return self._trace(reuse_layers=reuse_layers)
        except Exception as error:
            raise_interruption(error)
            if self._replayer is None or not self._replayer.tried:
                raise
        return self._trace(reuse_layers=False)

    def run_with_alternative_sizes(self, *, reuse_layers: bool) -> Capture:
        """Capture the step again, with another placeholder for arbitrary sizes."""
        self._placeholder = ALTERNATIVE_INT
        return self.run(reuse_layers=reuse_layers).capture

    def _trace(self, *, reuse_layers: bool) -> TrainingCapture:
        self._replayer = None
        with QUIET.holding():
            inputs = self._args, dict(self._kwargs)
            specs = axis_specs(self._model, inputs, self._dynamic_shapes)
            fake = fakify_model_and_inputs(self._model, *inputs, specs)
            fake.tracker.sizes.configure(self._assume, self._placeholder)
            with self._context(fake.model, fake.tracker), attribute_patches():
                return self._trace_fake(fake, reuse_layers=reuse_layers)

    def _trace_fake(self, fake: FakeModel, *, reuse_layers: bool) -> TrainingCapture:
        modules, tracker = fake.modules, fake.tracker
        observer_notes = bypass_observers(modules, tracker)
        attribution = AutogradAttribution(modules)
        gradients = GradientTracker(attribution)
        tape = TrainingTape(attribution, gradients, tracker)
        inputs = tape.assign_names(modules, fake.args, fake.kwargs)
        start = time.perf_counter()
        tracer = AutogradTracer(tape, attribution, gradients, tracker)
        replayer = self._replayer = LayerReplayer(
            modules if reuse_layers else (), tracker, tracer, attribution.run
        )
        patch_call_impl(modules, replayer.run)
        checkpoints = attribution.track_checkpoints(gradients.hook_nodes)
        operator_count = tracker.operator_count
        gpu = on_gpu(fake.is_on_meta)
        with torch.enable_grad(), tracker.eager(), model_running(), gpu, checkpoints, tape:
            loss, description = loss_of(fake.model(*fake.args, **fake.kwargs), self._loss)
            attribution.finish_forward()
            gradients.hook_nodes(loss)
            differentiated = _run_backward(loss, attribution, gradients)
        refuse_empty_trace(tracker.operator_count - operator_count, tape.length)
        calls, inputs, outputs = resolve_symbols(
            tracker, CallSequence(tape.marked_items()), inputs, tape.output_metas(loss)
        )
        refuse_mixed_dtypes(tape.traced_calls())
        capture = Capture(
            calls=calls,
            fallback=Expander(tape.invocations.invocation),
            modules=(
                *modules_of(modules, attribution.calls),
                Module(path=LOSS.module_path, module_class=LOSS.module_class, calls=1),
            ),
            method="autograd",
            inputs=inputs,
            outputs=outputs,
            constants=tape.constants,
            notes=(*collect_notes(tracker), *observer_notes, *replayer.notes),
            assumptions=tracker.symbols.assumptions(),
            data_sizes=tuple(tracker.sizes.by_name.values()),
            layer_reuse=replayer.counts,
            storages=storage_events(
                tracker,
                gradients={tape.name_of(x): x.grad for x in differentiated if x.grad is not None},
                on_gpu=fake.is_on_meta,
            ),
            timings={
                "forward and backward": time.perf_counter() - start - replayer.seconds,
                "region check": replayer.seconds,
            },
        )
        capture = with_sizes(capture, tracker.sizes.bounds())
        return TrainingCapture(
            capture=capture, loss=description, differentiated=frozenset(map(id, differentiated))
        )


def _run_backward(
    loss: torch.Tensor, attribution: AutogradAttribution, gradients: GradientTracker
) -> list[torch.Tensor]:
    """Run the backward pass and return the leaves that got a gradient."""
    try:
        loss.backward()  # type: ignore[no-untyped-call]  # torch's gap
    except Exception as error:
        raise_interruption(error)
        call_site = attribution.call_site_of_node(gradients.current_node)
        location = f" at {call_site.source_line}" if call_site.source_line else ""
        msg = (
            f"the backward pass fails in {call_site.module_path or 'the model itself'}{location}: "
            f"{first_line(error)}. Give what is called there a derivative, or detach its result "
            "if none is wanted."
        )
        raise CaptureError(msg) from error
    # A post-accumulate hook may take the gradient away.
    return [x for x in gradients.leaves if x._post_accumulate_grad_hooks or x.grad is not None]


def _refuse_untrainable(model: nn.Module, inputs: object) -> None:
    """Refuse a model without gradients, before anything runs.

    Raises:
        CaptureError: Inference mode is on, or was on when the model was created, or neither a
            parameter nor an input requires a gradient.
    """
    name = type(model).__name__
    parameters = list(model.parameters())
    # As for a saliency map or an adversarial example.
    input_requires_grad = any(tensor.requires_grad for tensor in tensors_in(inputs))
    if torch.is_inference_mode_enabled() or any(
        p.is_inference() for p in parameters if not is_lazy(p)
    ):
        msg = (
            f"{name} is in inference mode, in which nothing has a gradient. Build and count it "
            "outside of torch.inference_mode()."
        )
    elif not (parameters or input_requires_grad):
        msg = (
            f"{name} has no parameters: there is nothing to train. Count its forward with count()."
        )
    elif not (input_requires_grad or any(p.requires_grad for p in parameters)):
        msg = (
            f"all {len(parameters)} parameters of {name} are frozen: there is nothing to train. "
            "Set requires_grad of those to be trained, or of the inputs."
        )
    else:
        return
    raise CaptureError(msg)
