"""Capture of a training step: forward, loss and backward, as autograd runs them.

The model runs eagerly under fake tensors, and a tape records what is called below autograd.
A joint graph from ``torch.export`` and AOTAutograd takes several times as long, loses what a
custom ``autograd.Function`` does backward and flattens checkpoints; this sees them as they are.
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
from graphflops.capture.layer_reuse import LayerReplayer
from graphflops.capture.layer_reuse.training_replay import AutogradTracer
from graphflops.capture.record.autograd_attribution import LOSS, AutogradAttribution
from graphflops.capture.record.decompose import Expander
from graphflops.capture.record.finalize import collect_notes, resolve_symbols
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
from graphflops.capture.torch_internals.count_flags import model_running
from graphflops.capture.torch_internals.dynamo import OptimizedModule
from graphflops.core.call_sequence import CallSequence
from graphflops.core.ir import Capture, Module
from graphflops.errors import CaptureError, GraphFlopsError
from graphflops.runtime.interruption import raise_interruption
from graphflops.runtime.patches import QUIET


@dataclass(frozen=True, kw_only=True)
class TrainingCapture:
    """A training step as calls.

    Attributes:
        capture: Its calls in order, forward, backward and recomputed ones.
        loss: What was differentiated, in words.
        differentiated: Identities of the parameters that got a gradient.
    """

    capture: Capture
    loss: str
    differentiated: frozenset[int]


def capture_training(  # noqa: PLR0913 - what a step is of, and how to go about it
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    loss: Loss | None,
    *,
    reuse_layers: bool = True,
    assume: Mapping[str, int] | None = None,
) -> TrainingCapture:
    """Run a forward and a backward pass under fake tensors and record their calls.

    The model runs as it stands: training flag, ``requires_grad`` and checkpoints included. No
    gradient is left in its parameters.

    Args:
        model: The module; a compiled one is unwrapped.
        args: Positional inputs.
        kwargs: Keyword inputs.
        loss: From the model's output to a scalar; by default its own loss, or a sum.
        reuse_layers: Whether to run a repeated layer once and reuse it where it does the same.
        assume: Sizes that follow from data, by name.

    Raises:
        CaptureError: The forward fails, there is nothing to differentiate, or an operator has
            no derivative.
    """
    start = time.perf_counter()
    model = model._orig_mod if isinstance(model, OptimizedModule) else model
    _refuse_untrainable(model, (args, kwargs))
    failures: list[tuple[str, Exception]] = []
    for manner, surroundings in moe_strategies(model, failures):
        method = f"autograd, {manner}" if manner else "autograd"
        step = _Step(model, args, kwargs, loss, surroundings, assume or {})
        try:
            found = step.run(reuse_layers=reuse_layers)
            refuse_decisive_placeholders(
                found.capture, partial(step.otherwise, reuse_layers=reuse_layers)
            )
        except GraphFlopsError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure moves on to the next rung
            raise_interruption(error)
            failures.append((method, error))
            continue
        check_assumed(assume or {}, found.capture.data_sizes)
        seconds = time.perf_counter() - start
        return replace(found, capture=replace(found.capture, method=method, seconds=seconds))
    raise explain_failure(model, args, kwargs, failures) from failures[0][1]


class _Step:
    """A training step that is to be captured in one way."""

    def __init__(  # noqa: PLR0913, PLR0917 - what capture_training takes
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        loss: Loss | None,
        surroundings: ContextFactory,
        assume: Mapping[str, int],
    ) -> None:
        self._model, self._args, self._kwargs = model, args, kwargs
        self._loss, self._surroundings, self._assume = loss, surroundings, assume
        self._supposed = PLACEHOLDER_INT
        self._replayer: LayerReplayer | None = None

    def run(self, *, reuse_layers: bool) -> TrainingCapture:
        """The capture, with layers reused if that goes well."""
        try:
            return self._run(reuse_layers=reuse_layers)
        except Exception as error:
            raise_interruption(error)
            if self._replayer is None or not self._replayer.tried:
                raise
        return self._run(reuse_layers=False)

    def otherwise(self, *, reuse_layers: bool) -> Capture:
        """The capture with other numbers where any would do."""
        self._supposed = ALTERNATIVE_INT
        return self.run(reuse_layers=reuse_layers).capture

    def _run(self, *, reuse_layers: bool) -> TrainingCapture:
        self._replayer = None
        with QUIET.holding():
            own = fakify_model_and_inputs(self._model, self._args, self._kwargs)
            own.tracker.sizes.configure(self._assume, self._supposed)
            with self._surroundings(own.model, own.tracker):
                return self._recorded(own, reuse_layers=reuse_layers)

    def _recorded(self, own: FakeModel, *, reuse_layers: bool) -> TrainingCapture:
        modules, known = own.modules, own.tracker
        owners = AutogradAttribution(modules)
        gradients = GradientTracker(owners)
        tape = TrainingTape(owners, gradients)
        given = tape.assign_names(modules, own.args, own.kwargs)
        start = time.perf_counter()
        tracer = AutogradTracer(tape, owners, gradients, known)
        reused = self._replayer = LayerReplayer(
            modules if reuse_layers else (), known, tracer, owners.run
        )
        patch_call_impl(modules, reused.run)
        following = owners.track_checkpoints(gradients.hook_nodes)
        before = known.operator_count
        with torch.enable_grad(), known.eager(), model_running(), following, tape:
            value, described = loss_of(own.model(*own.args, **own.kwargs), self._loss)
            owners.finish_forward()
            gradients.hook_nodes(value)
            differentiated = _run_backward(value, owners, gradients)
        refuse_empty_trace(known.operator_count - before, tape.length)
        calls, given = resolve_symbols(known, CallSequence(tape.marked_items()), given)
        refuse_mixed_dtypes(tape.traced_calls())
        capture = Capture(
            calls=calls,
            fallback=Expander(tape.invocations.__getitem__),
            modules=(
                *modules_of(modules, owners.calls),
                Module(path=LOSS.module_path, module_class=LOSS.module_class, calls=1),
            ),
            method="autograd",
            inputs=given,
            notes=(*collect_notes(known), *reused.notes),
            assumptions=known.symbols.assumptions(),
            data_sizes=tuple(known.sizes.by_name.values()),
            layer_reuse=reused.counts,
            timings={
                "forward and backward": time.perf_counter() - start - reused.seconds,
                "region check": reused.seconds,
            },
        )
        capture = with_sizes(capture, known.sizes.bounds())
        return TrainingCapture(
            capture=capture, loss=described, differentiated=frozenset(map(id, differentiated))
        )


def _run_backward(
    value: torch.Tensor, owners: AutogradAttribution, gradients: GradientTracker
) -> list[torch.Tensor]:
    """Run it; the leaves that got a gradient."""
    leaves = list(gradients.leaves)  # reused layers add to them
    try:
        if owners.used_reentrant_checkpoint or any(
            leaf._post_accumulate_grad_hooks for leaf in leaves
        ):
            value.backward()  # type: ignore[no-untyped-call]  # torch's gap
            # Who is told of a gradient may take it away.
            asked = [(x, x._post_accumulate_grad_hooks or x.grad) for x in gradients.leaves]
        else:
            # The same work, but for copies into parameters that nobody asks for.
            got = torch.autograd.grad(value, leaves, allow_unused=True)
            asked = list(zip(leaves, got, strict=True))
    except Exception as error:
        raise_interruption(error)
        owner = owners.call_site_of_node(gradients.current_node)
        at = f" at {owner.source_line}" if owner.source_line else ""
        msg = (
            f"the backward pass fails in {owner.module_path or 'the model itself'}{at}: "
            f"{first_line(error)}. Give what is called there a derivative, or detach its result "
            "if none is wanted."
        )
        raise CaptureError(msg) from error
    return [leaf for leaf, gradient in asked if gradient is not None]


def _refuse_untrainable(model: nn.Module, inputs: object) -> None:
    """Refuse what has no gradients, before anything runs.

    Raises:
        CaptureError: Inference mode is on, or was when the model was made, or neither a
            parameter nor an input requires a gradient.
    """
    name = type(model).__name__
    parameters = list(model.parameters())
    # A saliency map, an adversarial example.
    asked = any(tensor.requires_grad for tensor in tensors_in(inputs))
    if torch.is_inference_mode_enabled() or any(
        p.is_inference() for p in parameters if not is_lazy(p)
    ):
        msg = (
            f"{name} is in inference mode, in which nothing has a gradient. Build and count it "
            "outside of torch.inference_mode()."
        )
    elif not (parameters or asked):
        msg = (
            f"{name} has no parameters: there is nothing to train. Count its forward with count()."
        )
    elif not (asked or any(p.requires_grad for p in parameters)):
        msg = (
            f"all {len(parameters)} parameters of {name} are frozen: there is nothing to train. "
            "Set requires_grad of those to be trained, or of the inputs."
        )
    else:
        return
    raise CaptureError(msg)
