"""What it takes to run a model eagerly under fake tensors."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.distributions import Distribution

from graphflops.capture.running import Modules, modules_in


@contextlib.contextmanager
def friendly_to_fakes() -> Iterator[None]:
    """What it takes of the process to run with fake tensors; put back afterwards.

    No checks of the parameters of distributions: they read values that are not there.
    Converting a module to what it is already does nothing: fake parameters cannot be exchanged.
    """
    validating = Distribution._validate_args
    exchange: Any = torch.utils.swap_tensors

    def convert(old: torch.Tensor, new: torch.Tensor) -> None:
        if (old.dtype, old.device) != (new.dtype, new.device):
            exchange(old, new)

    Distribution.set_default_validate_args(False)
    torch.utils.swap_tensors = convert
    try:
        yield
    finally:
        torch.utils.swap_tensors = exchange
        Distribution.set_default_validate_args(validating)


def register_caches(model: nn.Module) -> None:
    """Let tensors be found in the caches that a transformers model takes and returns."""
    transformers: Any = sys.modules.get("transformers")  # asked without importing it
    if transformers is not None and isinstance(model, transformers.PreTrainedModel):
        from transformers.exporters import exporter_dynamo  # only if transformers is in use

        exporter_dynamo.register_cache_pytrees_for_model(model)


def modules_as_written(model: nn.Module) -> Modules:
    """The modules of a model, compiled ones as written; ``untouched`` puts them back."""
    modules = modules_in(model)
    if not any(isinstance(m, OptimizedModule) or m._compiled_call_impl for _, m in modules):
        return modules
    for _, module in modules:
        module._compiled_call_impl = None
        for name, child in module._modules.items():
            if isinstance(child, OptimizedModule):
                module._modules[name] = child._orig_mod
    return modules_in(model)
