"""Loss of a training step: the scalar to differentiate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch

from graphflops.capture.transformers_compat import cache_input_names
from graphflops.errors import CaptureError, ModelSpecError

Loss: TypeAlias = Callable[[Any], torch.Tensor]
"""Function from the output of a model to a scalar."""


def loss_of(output: Any, loss: Loss | None) -> tuple[torch.Tensor, str]:
    """Return the scalar to differentiate, and its description.

    Args:
        output: Output of the model.
        loss: The user's function of it; by default the loss that the model has computed
            itself, else the sum of the elements of all its floating-point outputs.

    Raises:
        ModelSpecError: The user's function returns no floating-point scalar.
        CaptureError: The output has no floating-point tensor, or depends on no parameter.
    """
    if loss is not None:
        value, description = (
            loss(output),
            f"{getattr(loss, '__name__', type(loss).__name__)}(output)",
        )
        _check_scalar(value)
    elif (model_loss := _model_loss(output)) is not None:
        value, description = model_loss, "the model's own loss"
    else:
        tensors = {n: t for n, t in _tensors(output, "") if t.is_floating_point() or t.is_complex()}
        if not tensors:
            msg = (
                f"the model returns no floating-point tensor, but {_describe(output)}, and nothing "
                "can be differentiated. Give loss=, a function from the output to a scalar."
            )
            raise CaptureError(msg)
        # Of complex tensors the absolute values are summed.
        sums = [(t.abs() if t.is_complex() else t).sum() for t in tensors.values()]
        value = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
        description = (
            f"the sum of all elements of {', '.join(filter(None, tensors)) or 'the output'}"
        )
    if not value.requires_grad:
        msg = (
            f"{description} does not depend on any parameter that requires a gradient, so there is "
            "no backward pass: the output was detached, computed under no_grad, or made by an "
            "operator without a derivative. Give loss=, or leave the graph attached."
        )
        raise CaptureError(msg)
    return value, description


def _check_scalar(value: object) -> None:
    if not isinstance(value, torch.Tensor):
        msg = f"loss returned {_describe(value)}, no tensor. Let it return a scalar tensor."
    elif value.numel() != 1:
        msg = f"loss returned a tensor of shape {list(value.shape)}, no scalar. Sum or average it."
    elif not value.is_floating_point():
        msg = f"loss returned a {value.dtype} tensor. Only floating-point has gradients."
    else:
        return
    raise ModelSpecError(msg)


def _model_loss(output: Any) -> torch.Tensor | None:
    model_loss = (
        output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    )
    is_scalar = (
        isinstance(model_loss, torch.Tensor)
        and model_loss.numel() == 1
        and model_loss.is_floating_point()
    )
    return model_loss if is_scalar else None


def _tensors(output: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of an output by name, without caches for later tokens."""
    if isinstance(output, torch.Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        cache_names = _cache_names(output)
        for key, value in output.items():
            if key not in cache_names:
                yield from _tensors(value, _join(name, key))
    elif isinstance(output, list | tuple):
        for key, value in enumerate(output):
            yield from _tensors(value, _join(name, key))


def _cache_names(output: object) -> frozenset[str]:
    """Return the names of caches in an output of a transformers model."""
    # Not imported here: such an output exists only if transformers is imported.
    generic: Any = sys.modules.get("transformers.utils.generic")
    if generic is None or not isinstance(output, generic.ModelOutput):
        return frozenset()
    return cache_input_names()


def _join(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _describe(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"one of {value.dtype}"
    return "nothing" if value is None else f"a {type(value).__name__}"
