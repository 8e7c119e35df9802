"""Whether a model that is not counted fails for real too: on the CPU, without anything of a count.

Its weights are zeros without memory, and it has few layers: what it computes does not matter, only
whether it gets there.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from benchmarks.failures import reason
from benchmarks.zoo_peer import TimeIsUpError, time_limit
from graphflops.capture.diagnose import first_line, model_line
from graphflops.errors import GraphFlopsError
from graphflops.models import Options, Workload, resolve

_BUFFER_NUMEL = 1 << 22
"""Largest buffer with memory of its own: some are written to."""


def fails_alike(
    mode: str, name: str, options: Sequence[Options], error: Exception, end: float
) -> dict[str, Any]:
    """Run a model for real, and compare how it fails with the error of its count.

    Args:
        mode: Mode of the count.
        name: Name of the model.
        options: Options to build it with, each where those before it do not fit.
        error: The error of the count, which quotes the model's line.
        end: When to give up, by ``time.perf_counter``.

    Returns:
        Whether the model fails at the same line or in the same words, and its error.
    """
    try:
        workload = _built(name, options)
        with time_limit(end):
            _run(mode, workload)
    except TimeIsUpError:
        return {"alike": False, "reason": "no answer in time"}
    except Exception as found:  # noqa: BLE001 - how it fails is the result
        line = model_line(found)
        alike = any(words and words in str(error) for words in (line, first_line(found)))
        return {"alike": alike, "reason": reason(found) + line}
    return {"alike": False, "reason": "it runs"}


def _built(name: str, options: Sequence[Options]) -> Workload:
    for attempt in options[:-1]:
        with suppress(GraphFlopsError):  # some configs have lists with an entry for each layer
            return resolve(name, attempt)
    return resolve(name, options[-1])


def _run(mode: str, workload: Workload) -> None:
    model = _materialized(workload.model)
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, _materialized_input, (workload.args, dict(workload.kwargs))
    )
    with torch.set_grad_enabled(mode == "training"):
        if mode == "generation":
            model.generate(*args, **kwargs, max_new_tokens=2, do_sample=False)
        else:
            model.train(mode == "training")(*args, **kwargs)


def _materialized(model: Any) -> Any:
    """Return a model on meta with zeros in place of its weights, each one of a single element."""
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.is_meta:
                zeros = torch.zeros(1, dtype=parameter.dtype).expand(parameter.shape)
                module.register_parameter(name, nn.Parameter(zeros, requires_grad=False))
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:
                module._buffers[name] = _zeros(buffer)
    return model


def _zeros(tensor: torch.Tensor) -> torch.Tensor:
    shape = tensor.shape if tensor.numel() <= _BUFFER_NUMEL else (1,)
    return torch.zeros(shape, dtype=tensor.dtype).expand(tensor.shape)


def _materialized_input(tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros(tensor.shape, dtype=tensor.dtype) if tensor.is_meta else tensor
