"""``count_training``: forward, backward and recomputation of a step, as autograd runs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from torch import Tensor, nn

from graphflops.analysis.optimizers import optimizer_step
from graphflops.capture.counting_thread import in_counting_thread
from graphflops.capture.record.loss import Loss
from graphflops.capture.training import capture_training
from graphflops.core import arguments
from graphflops.counting import forward
from graphflops.counting.renamed import refuse_renamed
from graphflops.errors import ModelSpecError
from graphflops.pricing.registry import Registry
from graphflops.reports.training import TrainingReport
from graphflops.runtime.versions import translate_version_errors

_WITH_BACKWARD = ("exact", "torch")


@refuse_renamed
@in_counting_thread
def count_training(
    model: object,
    args: Sequence[Any] | Tensor = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_shapes: Any = None,
    loss: Loss | None = None,
    optimizer: str | None = None,
    gradient_accumulation_steps: int = 1,
    steps: int = 1,
    reuse_layers: bool = True,
    assume: Mapping[str, int] | None = None,
    convention: str = "exact",
    registry: Registry | None = None,
    on_unknown: forward.OnUnknown = "warn",
) -> TrainingReport:
    """Count a training step, without running it and without weights.

    Autograd runs the forward and the backward pass on tensors without data, so that the count
    has the operators that it really runs: no gradient where ``requires_grad`` is off or below
    the lowest trainable parameter, recomputation of checkpoints, the backward of a custom
    function. Each backward call belongs to the module whose forward caused it.

    The model is counted in its current mode: call ``train()`` first to count it in training
    mode. The model is left unchanged, without gradients.

    Args:
        model: An ``nn.Module`` with real, fake or meta parameters.
        args: Positional inputs; only their shapes and dtypes are used. A single tensor is one
            input.
        kwargs: Keyword inputs, likewise. With ``labels``, many models compute a loss.
        dynamic_shapes: As in :func:`graphflops.count`.
        loss: Function from the model's output to a scalar tensor. The default is the output's
            ``loss`` if it has one, else the sum of all elements of its floating-point tensors.
        optimizer: ``"sgd"``, ``"momentum"``, ``"adam"`` or ``"adamw"``, to count its step too.
        gradient_accumulation_steps: Number of passes whose gradients are summed for one
            optimizer step.
        steps: Number of optimizer steps, by which totals are multiplied.
        reuse_layers: As in :func:`graphflops.count`.
        assume: As in :func:`graphflops.count`.
        convention: ``"exact"`` or ``"torch"``; the others have no backward but 2 x forward.
        registry: Your own handlers, which precede those of the convention.
        on_unknown: As in :func:`graphflops.count`.

    Raises:
        CaptureError: The forward fails, nothing can be differentiated (no trainable parameter,
            no floating-point output, inference mode), or an operator has no derivative.
        ModelSpecError: An argument is invalid.
        UnknownOpError: An operator has no price and ``on_unknown`` is ``"raise"``.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 5))
        >>> step = count_training(model, (torch.empty(2, 3),))
        >>> step.forward.macs  # 2 x 3 x 4 + 2 x 4 x 5
        64
        >>> step.backward.macs  # the same for the weights, 2 x 4 x 5 for the input of the second
        104
    """
    if not isinstance(model, nn.Module):
        msg = (
            f"autograd runs modules, and this is of type {type(model).__name__}. Give the "
            "nn.Module that it was made from."
        )
        raise ModelSpecError(msg)
    if convention not in _WITH_BACKWARD:
        forward.resolve_registry(convention, None)  # raises if there is no such convention
        msg = (
            f"{convention} has no backward of its own: it reports 2 x forward. Count training by "
            f"{' or '.join(_WITH_BACKWARD)}."
        )
        raise ModelSpecError(msg)
    function: object = loss
    if function is not None and not callable(function):
        msg = (
            f"loss is of type {type(function).__name__}, no function. Give one from the model's "
            "output to a scalar tensor."
        )
        raise ModelSpecError(msg)
    gradient_accumulation_steps = arguments.whole_number(
        "gradient_accumulation_steps", gradient_accumulation_steps
    )
    steps = arguments.whole_number("steps", steps)
    arguments.check_choice("on_unknown", on_unknown, get_args(forward.OnUnknown))
    positional, named = arguments.model_inputs(args, kwargs)
    assumed = arguments.sizes_by_name("assume", assume)
    prices = forward.resolve_registry(convention, registry)
    with translate_version_errors():
        captured = capture_training(
            model,
            positional,
            named,
            loss,
            dynamic_shapes,
            reuse_layers=reuse_layers,
            assume=assumed,
        )
    report = TrainingReport.of(
        forward.make_report(captured.capture, type(model).__name__, prices),
        loss=captured.loss,
        optimizer=optimizer
        and optimizer_step(optimizer, captured.capture.modules, captured.differentiated),
        gradient_accumulation_steps=gradient_accumulation_steps,
        steps=steps,
    )
    if not report.complete and on_unknown != "ignore":
        forward.report_unsupported(report, on_unknown)
    return report
