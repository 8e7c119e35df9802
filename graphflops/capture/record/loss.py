"""What a training step differentiates: a scalar made of the model's output."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch

from graphflops.errors import CaptureError, ModelSpecError

Loss: TypeAlias = Callable[[Any], torch.Tensor]
"""From the output of a model to a scalar."""


def loss_of(output: Any, loss: Loss | None) -> tuple[torch.Tensor, str]:
    """The scalar to differentiate, and what it is in words.

    Args:
        output: What the model returned.
        loss: What the user makes of it; by default the loss that the model has computed
            itself, else the sum of the elements of all its floating-point outputs.

    Raises:
        ModelSpecError: The user's function makes no floating-point scalar of it.
        CaptureError: The output has no floating-point tensor, or no parameter is behind it.
    """
    if loss is not None:
        value, described = loss(output), f"{getattr(loss, '__name__', type(loss).__name__)}(output)"
        _check_scalar(value)
    elif (own := _own_loss(output)) is not None:
        value, described = own, "the model's own loss"
    else:
        named = {n: t for n, t in _tensors(output, "") if t.is_floating_point() or t.is_complex()}
        if not named:
            msg = (
                f"the model returns no floating-point tensor, but {_kind(output)}, and nothing "
                "can be differentiated. Give loss=, a function from the output to a scalar."
            )
            raise CaptureError(msg)
        # Complex ones count by their size.
        sums = [(t.abs() if t.is_complex() else t).sum() for t in named.values()]
        value = sums[0] if len(sums) == 1 else torch.stack(sums).sum()
        described = f"the sum of all elements of {', '.join(filter(None, named)) or 'the output'}"
    if not value.requires_grad:
        msg = (
            f"{described} does not depend on any parameter that requires a gradient, so there is "
            "no backward pass: the output was detached, computed under no_grad, or made by an "
            "operator without a derivative. Give loss=, or leave the graph attached."
        )
        raise CaptureError(msg)
    return value, described


def _check_scalar(value: object) -> None:
    if not isinstance(value, torch.Tensor):
        msg = f"loss returned {_kind(value)}, no tensor. Let it return a scalar tensor."
    elif value.numel() != 1:
        msg = f"loss returned a tensor of shape {list(value.shape)}, no scalar. Sum or average it."
    elif not value.is_floating_point():
        msg = f"loss returned a {value.dtype} tensor. Only floating-point has gradients."
    else:
        return
    raise ModelSpecError(msg)


def _own_loss(output: Any) -> torch.Tensor | None:
    own = output.get("loss") if isinstance(output, Mapping) else getattr(output, "loss", None)
    is_scalar = isinstance(own, torch.Tensor) and own.numel() == 1 and own.is_floating_point()
    return own if is_scalar else None


def _tensors(output: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors of an output by name; what is kept for later tokens is none."""
    if isinstance(output, torch.Tensor):
        yield name, output
    elif isinstance(output, Mapping):
        kept = _names_kept(output)
        for key, value in output.items():
            if key not in kept:
                yield from _tensors(value, _join(name, key))
    elif isinstance(output, list | tuple):
        for key, value in enumerate(output):
            yield from _tensors(value, _join(name, key))


def _names_kept(output: object) -> frozenset[str]:
    """Names under which a model of transformers returns what it keeps for later tokens."""
    # Asked without importing it: whoever has made such an output has done so.
    generic: Any = sys.modules.get("transformers.utils.generic")
    if generic is None or not isinstance(output, generic.ModelOutput):
        return frozenset()
    from transformers.generation.utils import ALL_CACHE_NAMES

    return frozenset(ALL_CACHE_NAMES)


def _join(name: str, key: object) -> str:
    return f"{name}.{key}" if name else str(key)


def _kind(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"one of {value.dtype}"
    return "nothing" if value is None else f"a {type(value).__name__}"
