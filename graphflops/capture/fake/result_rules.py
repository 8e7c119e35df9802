"""Results of operators that a rule knows from the metadata of the arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from graphflops.capture.fake.layouts import Layout
from graphflops.capture.fake.result_layouts import COMPOSITE_RULES, RULES
from graphflops.capture.fake.result_recipes import Constant, NewTensor, Several
from graphflops.capture.fake.view_layouts import VIEW_RULES, View
from graphflops.capture.torch_internals.fake_mode import FakeTensor


def recipe_by_rule(
    func: Any, args: Any, kwargs: Mapping[str, Any], device: torch.device
) -> NewTensor | Several | None:
    """Return the recipe of the result of an operator, if a rule knows it.

    Args:
        func: The operator.
        args: Its positional arguments; all tensors are dense, and without symbolic sizes.
        kwargs: Its keyword arguments.
        device: The device that all tensors are on.
    """
    if (rule := RULES.get(func) or COMPOSITE_RULES.get(func)) is not None:
        layouts = rule(*args, **kwargs)
        return None if layouts is None else _of_new_tensors(layouts, device)
    if (view_rule := VIEW_RULES.get(func)) is not None and not args[0].requires_grad:
        views = view_rule(*args, **kwargs)
        return None if views is None else _of_views(views, args[0])
    return None


def shared_device(tensors: Sequence[FakeTensor]) -> torch.device | None:
    """Return the device of some tensors, if there is one that all are on."""
    device: torch.device = tensors[0].fake_device
    return device if all(tensor.fake_device == device for tensor in tensors) else None


def _of_new_tensors(layouts: Sequence[Layout | None], device: torch.device) -> NewTensor | Several:
    items = [
        Constant(None)
        if layout is None
        else NewTensor(layout.shape, layout.strides, 0, layout.dtype, device, None)
        for layout in layouts
    ]
    first = items[0]
    if len(items) == 1 and isinstance(first, NewTensor):
        return first
    return Several(tuple, tuple(items))


def _of_views(views: View | list[View], x: FakeTensor) -> NewTensor | Several:
    if isinstance(views, list):
        return Several(list, tuple([_of_view(view, x) for view in views]))
    return _of_view(views, x)


def _of_view(view: View, x: FakeTensor) -> NewTensor:
    return NewTensor(*view, dtype=x.dtype, device=x.fake_device, view_of=0)
