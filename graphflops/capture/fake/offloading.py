"""Weights that accelerate keeps elsewhere and brings to a device for each call of their module."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch


def offloading_hooks(held: Mapping[str, Any]) -> list[Any]:
    """Return the hooks of a module that bring its weights and take them away again.

    Args:
        held: The attributes of the module.
    """
    hooks = sys.modules.get("accelerate.hooks")
    own = held.get("_hf_hook")
    if hooks is None or own is None:
        return []
    several = own.hooks if isinstance(own, hooks.SequentialHook) else (own,)
    return [hook for hook in several if getattr(hook, "offload", False)]


def device_brought_to(hooks: list[Any]) -> torch.device | None:
    """Return the device that the first of some such hooks brings weights to."""
    device = hooks[0].execution_device if hooks else None
    return None if device is None else torch.device(device)


def leave_where_it_is(hook: Any) -> None:
    """Let a hook that stands in for one move inputs alone: fake weights need no bringing."""
    hook.offload = False
