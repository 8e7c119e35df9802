"""Strategies for mixtures of experts that a Python loop visits.

The weights decide the tokens of each expert, but not the number of tokens of all experts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.fake.data_sizes import UndecidedSizeError
from graphflops.capture.fake.torch_function_overrides import SCATTER, chosen_classes
from graphflops.capture.torch_internals.fake_mode import FakeTensor
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.transformers_compat import has_eager_experts, use_grouped_experts

# A one-hot row has an element for every expert, of which there are hundreds.
_MAX_NUMEL = 1 << 22

ContextFactory = Callable[[Any, ValueTracker], contextlib.AbstractContextManager[Any]]
"""Context in which a fake model runs, from the model and the tracker of its values."""


def moe_strategies(
    model: nn.Module, failures: Sequence[tuple[str, Exception]], *, balanced: bool = False
) -> Iterator[tuple[str, ContextFactory]]:
    """Yield ways to run a model, each with a description and a context; the simplest first.

    Args:
        model: The model.
        failures: Failures of the strategies so far, by description; the caller appends to it.
        balanced: True to leave out the last, by which each expert gets as many tokens as can be.
    """
    yield "", lambda *_: contextlib.nullcontext()
    # transformers has implementations without a loop for some models.
    if has_eager_experts(model):
        yield "experts grouped", lambda model, _: _use_grouped_mm(model)
    yield "experts chosen evenly", lambda _, tracker: _BalancedRouting(tracker)
    # Routing decides sizes, but other data may decide sizes too.
    is_undecided = any(isinstance(error, UndecidedSizeError) for _, error in failures)
    if is_undecided and not balanced:
        yield "", lambda _, tracker: _use_largest_sizes(tracker)


def _use_largest_sizes(tracker: ValueTracker) -> contextlib.AbstractContextManager[None]:
    tracker.sizes.defers_routing = False
    return contextlib.nullcontext()


def _use_grouped_mm(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    use_grouped_experts(model)
    return contextlib.nullcontext()


class _BalancedRouting(TorchFunctionMode):
    """Assumes that unknown arguments of ``one_hot`` are balanced over the classes.

    Routers make one-hot rows of the experts they choose, by ``scatter`` too; a loop skips experts
    without tokens.
    """

    def __init__(self, tracker: ValueTracker) -> None:
        super().__init__()
        self._tracker = tracker
        tracker.max_numel = _MAX_NUMEL

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is nn.functional.one_hot:
            self._assume_balanced(*args, **kwargs)
        elif func in SCATTER and (choices := chosen_classes(args)) is not None:
            self._assume_balanced(*choices)
        return func(*args, **kwargs)

    def _assume_balanced(self, tensor: torch.Tensor, num_classes: int = -1) -> None:
        # Some rows have a class more, which no token chooses.
        bound = self._tracker.distinct.bound(tensor) if isinstance(tensor, FakeTensor) else None
        num_classes = num_classes if bound is None else min(num_classes, bound)
        is_static = all(isinstance(size, int) for size in (*tensor.shape, num_classes))
        if isinstance(tensor, FakeTensor) and is_static and num_classes > 0:
            # Round-robin: no token chooses the same expert twice.
            with no_modes():
                choices = torch.arange(tensor.numel(), device="cpu") % num_classes
                value = choices.reshape(tensor.shape).to(tensor.dtype)
            self._tracker.assume_value(tensor, value)
