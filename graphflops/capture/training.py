"""Capture of a training step: forward, loss and backward, as autograd runs them.

The model runs eagerly under fake tensors, and a tape records what is called below autograd.
A joint graph from ``torch.export`` and AOTAutograd takes several times as long, loses what a
custom ``autograd.Function`` does backward and flattens checkpoints; this sees them as they are.
"""

from __future__ import annotations

import contextlib
import inspect
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch._guards import detect_fake_mode
from torch.utils import _pytree as pytree

from graphflops.capture.decompose import Expander
from graphflops.capture.devices import brought_together
from graphflops.capture.experts import evenly_chosen, grouped, loops_over_experts
from graphflops.capture.failure import explain_failure, first_line, refuse_mixed_dtypes
from graphflops.capture.gradients import Gradients
from graphflops.capture.hierarchy import modules_of
from graphflops.capture.loss import Loss, loss_of
from graphflops.capture.metadata import tensor_meta
from graphflops.capture.module import (
    export_friendly,
    is_transformers_model,
    notes_of,
    unwrap_compiled,
)
from graphflops.capture.owners import LOSS, Owners
from graphflops.capture.regions import Regions
from graphflops.capture.regions.autograd import TapeTracer
from graphflops.capture.tape import Tape
from graphflops.capture.untouched import untouched
from graphflops.capture.values import KnownValues, traced_in_mode_of
from graphflops.errors import CaptureError, GraphFlopsError
from graphflops.ir import Capture, LayersReused, Module
from graphflops.quiet import quiet

Surroundings = Callable[[Any], contextlib.AbstractContextManager[None]]


@dataclass(frozen=True, kw_only=True)
class TrainingCapture:
    """A training step as calls.

    Attributes:
        capture: Its calls in order, forward, backward and recomputed ones.
        loss: What was differentiated, in words.
    """

    capture: Capture
    loss: str


def capture_training(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    loss: Loss | None,
    *,
    regions: bool = True,
) -> TrainingCapture:
    """Run a forward and a backward pass under fake tensors and record their calls.

    The model runs as it stands: training flag, ``requires_grad`` and checkpoints included. No
    gradient is left in its parameters.

    Args:
        model: The module; a compiled one is unwrapped.
        args: Positional inputs.
        kwargs: Keyword inputs.
        loss: From the model's output to a scalar; by default its own loss, or a sum.
        regions: Whether to run a repeated layer once and reuse it where it does the same.

    Raises:
        CaptureError: The forward fails, there is nothing to differentiate, or an operator has
            no derivative.
    """
    start = time.perf_counter()
    model = model._orig_mod if isinstance(model, OptimizedModule) else model
    _refuse_untrainable(model)
    failures: list[tuple[str, Exception]] = []
    for method, surroundings in _ladder(model):
        step = _Step(model, args, kwargs, loss, surroundings)
        try:
            try:
                capture, described = step.run(regions=regions)
            except Exception:
                if not step.has_regions:
                    raise
                capture, described = step.run(regions=False)
        except GraphFlopsError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure moves on to the next rung
            failures.append((method, error))
            continue
        seconds = time.perf_counter() - start
        capture = replace(capture, method=method, seconds=seconds)
        return TrainingCapture(capture=capture, loss=described)
    raise explain_failure(model, args, kwargs, failures) from failures[0][1]


def _ladder(model: nn.Module) -> list[tuple[str, Surroundings]]:
    """Ways to run a model, the plainest first."""
    ways: list[tuple[str, Surroundings]] = [("autograd", lambda _: contextlib.nullcontext())]
    if is_transformers_model(model) and loops_over_experts(model):
        ways.append(("autograd, experts grouped", lambda _: grouped(model)))
    ways.append(("autograd, experts chosen evenly", evenly_chosen))
    return ways


class _Step:
    """A training step that is to be captured in one way."""

    def __init__(
        self,
        model: nn.Module,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        loss: Loss | None,
        surroundings: Surroundings,
    ) -> None:
        self._model, self._args, self._kwargs = model, args, kwargs
        self._loss, self._surroundings = loss, surroundings
        self._regions: Regions | None = None

    @property
    def has_regions(self) -> bool:
        """Whether the last run had repeated layers, which may be what it has failed for."""
        return self._regions is not None and self._regions.tried

    def run(self, *, regions: bool) -> tuple[Capture, str]:
        """The capture, and what was differentiated."""
        model = self._model
        self._regions = None
        with untouched(model), quiet(), export_friendly(), _gradients_set_aside(model):
            unwrap_compiled(model)
            given = self._args, dict(self._kwargs)
            inputs = brought_together(model, given, weights_too=True)
            with self._surroundings(inputs):
                return self._recorded(inputs, regions=regions)

    def _recorded(self, inputs: Any, *, regions: bool) -> tuple[Capture, str]:
        model, (args, kwargs) = self._model, inputs
        owners = Owners(model)
        gradients = Gradients(owners)
        tape = Tape(owners, gradients)
        given = _named_tensors(model, args, kwargs)
        for name, held in (*model.named_parameters(), *model.named_buffers()):
            tape.know(held, name)
        for name, tensor in given:
            tape.know(tensor, name, is_input=True)
        start = time.perf_counter()
        with torch.enable_grad(), _running_fake(model, inputs) as known:
            with contextlib.ExitStack() as stack:
                if regions and known is not None:
                    tracer = TapeTracer(tape, owners, gradients, known)
                    self._regions = Regions(model, known, Counter(), tracer)
                    stack.enter_context(self._regions.active())
                stack.enter_context(owners.following(gradients.follow))
                stack.enter_context(tape)
                value, described = loss_of(model(*args, **kwargs), self._loss)
                owners.finish()
                gradients.follow(value)
                _run_backward(value, owners, gradients)
            notes = () if known is None else notes_of(known)
        calls = tape.recorded()
        refuse_mixed_dtypes(calls)
        reused = self._regions
        checked = 0.0 if reused is None else reused.seconds
        capture = Capture(
            calls=calls,
            fallback=Expander(tape.invocations.__getitem__),
            modules=(
                *modules_of(model, lambda path, _: owners.calls[path]),
                Module(path=LOSS.path, cls=LOSS.cls, calls=1),
            ),
            method="autograd",
            inputs=tuple((name, tensor_meta(tensor, name)) for name, tensor in given),
            notes=(*notes, *(() if reused is None else reused.notes)),
            assumptions=() if known is None else known.symbols.assumptions(),
            regions=LayersReused() if reused is None else reused.counts,
            timings={
                "forward and backward": time.perf_counter() - start - checked,
                "region check": checked,
            },
        )
        return capture, described


@contextlib.contextmanager
def _running_fake(model: nn.Module, inputs: Any) -> Iterator[KnownValues | None]:
    """Run in the fake mode of the inputs and the model, with what it knows of values."""
    held = inputs, list(model.parameters())
    with traced_in_mode_of(held) as known, contextlib.ExitStack() as stack:
        if known is not None:
            stack.enter_context(known.outside_of_a_graph())
        elif (mode := detect_fake_mode(list(model.parameters()))) is not None:
            stack.enter_context(mode)
        yield known


def _run_backward(value: torch.Tensor, owners: Owners, gradients: Gradients) -> None:
    leaves = gradients.leaves
    try:
        if owners.was_reentrant or any(leaf._post_accumulate_grad_hooks for leaf in leaves):
            value.backward()  # type: ignore[no-untyped-call]  # torch's gap
        else:
            # The same work, but for copies into parameters that nobody asks for.
            torch.autograd.grad(value, leaves, allow_unused=True)
    except Exception as error:
        owner = owners.of_node(gradients.running)
        at = f" at {owner.source}" if owner.source else ""
        msg = (
            f"the backward pass fails in {owner.path or 'the model itself'}{at}: "
            f"{first_line(error)}. Give what is called there a derivative, or detach its result "
            "if none is wanted."
        )
        raise CaptureError(msg) from error


def _named_tensors(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[str, torch.Tensor]]:
    """The input tensors under the names that the model's forward has for them."""
    named = dict(inspect.signature(model.forward).bind_partial(*args).arguments) | dict(kwargs)
    leaves, _ = pytree.tree_flatten_with_path(named)
    return [
        (re.sub(r"\W+", "_", pytree.keystr(path)).strip("_"), leaf)
        for path, leaf in leaves
        if isinstance(leaf, torch.Tensor)
    ]


def _refuse_untrainable(model: nn.Module) -> None:
    """Refuse what has no gradients, before anything runs.

    Raises:
        CaptureError: Inference mode is on, or was when the model was made, or it has no
            parameter that requires a gradient.
    """
    name = type(model).__name__
    parameters = list(model.parameters())
    if torch.is_inference_mode_enabled() or any(p.is_inference() for p in parameters):
        msg = (
            f"{name} is in inference mode, in which nothing has a gradient. Build and count it "
            "outside of torch.inference_mode()."
        )
    elif not parameters:
        msg = (
            f"{name} has no parameters: there is nothing to train. Count its forward with count()."
        )
    elif not any(p.requires_grad for p in parameters):
        msg = (
            f"all {len(parameters)} parameters of {name} are frozen: there is nothing to train. "
            "Set requires_grad of those to be trained."
        )
    else:
        return
    raise CaptureError(msg)


@contextlib.contextmanager
def _gradients_set_aside(model: nn.Module) -> Iterator[None]:
    """Let parameters have no gradients, as after ``zero_grad``, and give theirs back."""
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.grad = None
        yield
    finally:
        for parameter, gradient in before:
            parameter.grad = gradient
