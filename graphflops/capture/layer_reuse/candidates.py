"""Which children of a module may repeat one another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from graphflops.capture.layer_reuse.module_call import RecordedLayer
from graphflops.capture.layer_reuse.module_dict import variables
from graphflops.capture.named_modules import Modules


@dataclass(slots=True)
class Siblings:
    """Children of one parent that are built alike.

    Attributes:
        members: The children.
        waiting: Those that have not been called yet.
        regions: What was recorded of them.
        failures: How often that was in vain.
    """

    members: list[nn.Module]
    waiting: set[int]
    regions: list[RecordedLayer] = field(default_factory=list)
    failures: int = 0


def siblings_in(modules: Modules) -> dict[int, Siblings]:
    """Children that may repeat one another, by the identity of their attribute dictionaries.

    Args:
        modules: Those of the model; none if nothing is to be repeated.
    """
    found: dict[int, Siblings] = {}
    outlines: dict[int, int] = {}
    numbers: dict[Any, int] = {}
    with torch._C.DisableTorchFunction():
        for _, module in modules[:1]:
            _outline(module, outlines, numbers)
    for _, parent in modules:
        if len(parent._modules) < 2:  # noqa: PLR2004 - a pair
            continue
        kinds: dict[int, list[nn.Module]] = {}
        for child in parent.children():
            if child._modules or not type(child).__module__.startswith("torch.nn"):
                kinds.setdefault(outlines[id(child)], []).append(child)
        for members in kinds.values():
            if len(members) > 1:
                siblings = Siblings(members, waiting={id(variables(m)) for m in members})
                found |= dict.fromkeys(siblings.waiting, siblings)
    return found


def _outline(module: nn.Module, outlines: dict[int, int], numbers: dict[Any, int]) -> int:
    """A number that modules have in common if they are built alike, and all below them."""
    number = outlines.get(id(module))
    if number is None:
        held, children = module._parameters, module._modules
        outline = (
            type(module),
            *((*held, *map(_shape, held.values())) if held else ()),
            *children,
            *[child and _outline(child, outlines, numbers) for child in children.values()],
        )
        number = outlines[id(module)] = numbers.setdefault(outline, len(numbers))
    return number


def _shape(tensor: torch.Tensor | None) -> Any:
    if tensor is None:
        return None
    # A parameter that has no shape yet is like none other.
    return id(tensor) if is_lazy(tensor) else (tensor.dtype, tensor.shape)
