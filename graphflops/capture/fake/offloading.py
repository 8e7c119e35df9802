"""Hooks of accelerate that offload weights and load them to a device for each module call."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch


def offloading_hooks(module_dict: Mapping[str, Any]) -> list[Any]:
    """Return the hooks of a module that load its weights before a call and offload them after.

    Args:
        module_dict: Attributes of the module.
    """
    hooks_module = sys.modules.get("accelerate.hooks")
    hook = module_dict.get("_hf_hook")
    if hooks_module is None or hook is None:
        return []
    hooks = hook.hooks if isinstance(hook, hooks_module.SequentialHook) else (hook,)
    return [hook for hook in hooks if getattr(hook, "offload", False)]


def execution_device(hooks: list[Any]) -> torch.device | None:
    """Return the device to which the first of the offloading hooks loads weights."""
    device = hooks[0].execution_device if hooks else None
    return None if device is None else torch.device(device)


def disable_offload(hook: Any) -> None:
    """Make the copy of a hook move inputs alone: fake weights need no loading."""
    hook.offload = False
