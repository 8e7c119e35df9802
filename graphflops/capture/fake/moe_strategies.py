"""Experts that a loop visits: which tokens they get is up to weights, how many all get is not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.data_sizes import UndecidedSizeError
from graphflops.capture.torch_internals.no_modes import no_modes

# A token has a number for every expert, of which there are hundreds.
_LARGEST = 1 << 22

ContextFactory = Callable[[Any, ValueTracker], contextlib.AbstractContextManager[Any]]
"""What a stand-in runs in, given it and the mode of its fake tensors."""


def moe_strategies(
    model: nn.Module, failures: Sequence[tuple[str, Exception]]
) -> Iterator[tuple[str, ContextFactory]]:
    """Ways to run a model: what is done to it, in words, and what it runs in; plainest first.

    Args:
        model: The model.
        failures: Of the ways so far, each with its name; whoever tries them adds to it.
    """
    yield "", lambda *_: contextlib.nullcontext()
    # transformers could compute some otherwise than by a loop.
    if any(part.config._experts_implementation == "eager" for part in _mixtures(model)):
        yield "experts grouped", lambda own, _: _grouped(own)
    yield "experts chosen evenly", lambda _, known: _EvenlyChosen(known)
    # What a router chooses decides sizes, but is not all that does.
    if any(isinstance(error, UndecidedSizeError) for _, error in failures):
        yield "", lambda _, known: _all_at_their_largest(known)


def _all_at_their_largest(known: ValueTracker) -> contextlib.AbstractContextManager[None]:
    known.sizes.waits = False
    return contextlib.nullcontext()


def _grouped(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Let transformers multiply the rows of all experts at once, as it does in most models."""
    for part in _mixtures(model):
        part.set_experts_implementation("grouped_mm")
    return contextlib.nullcontext()


def _mixtures(model: nn.Module) -> list[Any]:
    """Transformers' modules that have a choice of how experts are computed."""
    return [m for m in model.modules() if getattr(m, "_can_set_experts_implementation", bool)()]


class _EvenlyChosen(TorchFunctionMode):
    """Supposes that choices nobody knows, where they are spread out as ones and zeros, are even.

    Routers make one-hot rows of what they choose; a loop asks which experts have any.
    """

    def __init__(self, known: ValueTracker) -> None:
        super().__init__()
        self._known = known
        known.largest = _LARGEST

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.one_hot:
            self._suppose(*args, **kwargs)
        return func(*args, **kwargs)

    def _suppose(self, tensor: torch.Tensor, num_classes: int = -1) -> None:
        static = all(isinstance(size, int) for size in (*tensor.shape, num_classes))
        if isinstance(tensor, FakeTensor) and static and num_classes > 0:
            # In turn: no token chooses the same one twice.
            with no_modes():
                choices = torch.arange(tensor.numel(), device="cpu") % num_classes
                value = choices.reshape(tensor.shape).to(tensor.dtype)
            self._known.assume_value(tensor, value)
