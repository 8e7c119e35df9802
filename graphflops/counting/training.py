"""What a training step costs: forward, backward and recomputation, as autograd runs them."""

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

    Autograd runs the forward and the backward pass on tensors without data, so that what
    comes out is what it really does: no gradient where ``requires_grad`` is off or below the
    lowest trainable parameter, recomputation where there are checkpoints, the own backward of
    a custom function. Each backward call belongs to the module whose forward caused it.

    The model is counted as it stands: call ``train()`` first if it is to be in that mode. It
    is left as it was found, without gradients.

    Args:
        model: An ``nn.Module`` with real, fake or meta parameters.
        args: Positional inputs; their shapes and dtypes are all that is used. One tensor alone
            is one input.
        kwargs: Keyword inputs, likewise. With ``labels``, many models compute a loss.
        loss: From the model's output to a scalar tensor. By default the output's ``loss`` if
            it has one, else the sum of all elements of its floating-point tensors.
        optimizer: ``"sgd"``, ``"momentum"``, ``"adam"`` or ``"adamw"``, to count its step too.
        gradient_accumulation_steps: Passes whose gradients are summed for one optimizer step.
        steps: Steps of the optimizer; totals are multiplied by it.
        reuse_layers: As in :func:`graphflops.count`.
        assume: Likewise.
        convention: ``"exact"`` or ``"torch"``; the others have no backward but 2 x forward.
        registry: Handlers of your own, looked up before those of the convention.
        on_unknown: As in :func:`graphflops.count`.

    Raises:
        CaptureError: The forward fails, nothing can be differentiated (no trainable parameter,
            no floating-point output, inference mode), or an operator has no derivative.
        ModelSpecError: An argument makes no sense.
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
        forward.prices_of(convention, None)  # a name that there is not is another error
        msg = (
            f"{convention} has no backward of its own: it reports 2 x forward. Count training by "
            f"{' or '.join(_WITH_BACKWARD)}."
        )
        raise ModelSpecError(msg)
    given: object = loss
    if given is not None and not callable(given):
        msg = (
            f"loss is of type {type(given).__name__}, no function. Give one from the model's "
            "output to a scalar tensor."
        )
        raise ModelSpecError(msg)
    gradient_accumulation_steps = arguments.whole_number(
        "accumulation", gradient_accumulation_steps
    )
    steps = arguments.whole_number("steps", steps)
    arguments.check_choice("on_unknown", on_unknown, get_args(forward.OnUnknown))
    positional, named = arguments.model_inputs(args, kwargs)
    assumed = arguments.sizes_by_name("assume", assume)
    prices = forward.prices_of(convention, registry)
    with translate_version_errors():
        captured = capture_training(
            model, positional, named, loss, reuse_layers=reuse_layers, assume=assumed
        )
    found = TrainingReport.of(
        forward.report(captured.capture, type(model).__name__, prices),
        loss=captured.loss,
        optimizer=optimizer
        and optimizer_step(optimizer, captured.capture.modules, captured.differentiated),
        gradient_accumulation_steps=gradient_accumulation_steps,
        steps=steps,
    )
    if not found.complete and on_unknown != "ignore":
        forward.complain(found, on_unknown)
    return found
