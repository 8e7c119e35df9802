"""What a count must leave alone: a model with all it holds, its inputs, chance, the process."""

from __future__ import annotations

import gc
import random
import signal
import sys
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch._dynamo  # puts other functions in the place of some of torch's when it is loaded
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as hooks
from torch.utils import checkpoint

State = dict[str, Any]
"""Things by where they are; :func:`differences` compares two."""

_ATOMS = (str, bytes, int, float, complex, bool, type(None), torch.dtype, torch.device, torch.Size)
_DEEPEST = 6


def of_model(graph_parts: Mapping[str, object]) -> State:
    """Every object that a model or its inputs hold, by path, and every tensor's contents."""
    state: State = {}
    seen: set[int] = set()
    for name, part in graph_parts.items():
        _take(part, name, state, seen, 0)
    return state


def of_chance() -> State:
    """The states of the generators of torch, Python and numpy."""
    return {
        "torch's generator": torch.get_rng_state(),
        "Python's generator": random.getstate(),
        "numpy's generator": np.random.get_state(),  # noqa: NPY002 - the one that is global
    }


def of_process() -> State:
    """Flags, hooks, handlers and patched names of a process."""
    state: State = {
        "grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "default dtype": torch.get_default_dtype(),
        "default device": torch.get_default_device(),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "compiling": torch.compiler.is_compiling(),
        "exporting": torch.compiler.is_exporting(),
        "mkldnn": torch.backends.mkldnn.enabled,
        "attention kernels": (torch._C._get_flash_sdp_enabled(), torch._C._get_math_sdp_enabled()),
        "dispatch modes": torch._C._len_torch_dispatch_stack(),
        "function modes": torch._C._len_torch_function_stack(),
        "dispatch keys included": str(torch._C._dispatch_tls_local_include_set()),
        "dispatch keys excluded": str(torch._C._dispatch_tls_local_exclude_set()),
        "garbage collection": (gc.isenabled(), gc.get_threshold()),
        "warnings": [(id(entry), str(entry)) for entry in warnings.filters],
        "showing warnings": id(warnings.showwarning),
        "tracing": (sys.gettrace(), sys.getprofile()),
        "displayhook": (id(sys.excepthook), id(sys.stdout), id(sys.stderr)),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        "recursion limit": sys.getrecursionlimit(),
    }
    state |= {
        f"global {name}": tuple(value)
        for name, value in vars(hooks).items()
        if name.startswith("_global") and isinstance(value, dict)
    }
    for owner in (nn.Module, torch.Tensor, torch.autograd.Function, checkpoint, functional, torch):
        named = vars(owner)
        state |= {f"{owner.__name__}.{name}": id(value) for name, value in named.items()}
    return state


def differences(before: State, after: State) -> list[str]:
    """Where two states differ; a module may have loaded names that were not there before."""
    gone = [f"{name} is gone" for name in before if name not in after]
    new = [
        f"{name} is new" for name in after if name not in before and not name.startswith("torch.")
    ]
    changed = [
        f"{name} changed"
        for name, value in before.items()
        if not _same(value, after.get(name, value))
    ]
    return gone + new + changed


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return bool(np.array_equal(one, other))
    if isinstance(one, tuple | list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _take(value: object, path: str, state: State, seen: set[int], depth: int) -> None:
    if isinstance(value, _ATOMS):
        state[path] = value
        return
    state[path] = id(value)
    if id(value) in seen or depth > _DEEPEST:
        return
    seen.add(id(value))
    if isinstance(value, torch.Tensor):
        state.update((f"{path}: {name}", fact) for name, fact in _facts(value))
        if value.grad is not None:
            _take(value.grad, f"{path}.grad", state, seen, depth + 1)
        return
    for name, item in _items(value):
        _take(item, f"{path}{name}", state, seen, depth + 1)


def _items(value: object) -> Iterator[tuple[str, object]]:
    """What an object holds, and what a function closes over."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple | deque):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, nn.Module):
        yield from ((f".{name}", item) for name, item in vars(value).items())
    elif closure := getattr(value, "__closure__", None):
        yield from ((f"<closure {i}>", cell.cell_contents) for i, cell in enumerate(closure))


def _facts(tensor: torch.Tensor) -> Iterator[tuple[str, object]]:
    yield "type", type(tensor)
    yield "version", tensor._version
    yield "requires_grad", tensor.requires_grad
    yield "leaf", tensor.is_leaf
    yield "no grad", tensor.grad is None
    yield "layout", (tensor.shape, tensor.stride(), tensor.dtype, str(tensor.device))
    yield "hooks", tuple(tensor._backward_hooks or ())
    # A fake tensor that was left behind has no memory to look at.
    if tensor.device.type == "cpu" and type(tensor) in {torch.Tensor, nn.Parameter}:
        yield "address", tensor.data_ptr()
        yield "bits", tensor.detach().clone().contiguous().view(-1).view(torch.uint8)


def compiles() -> bool:
    """Whether ``torch.compile`` still hands graphs to its backend."""
    calls = []

    def backend(graph: torch.fx.GraphModule, _examples: list[torch.Tensor]) -> Any:
        calls.append(graph)
        return graph.forward

    torch._dynamo.reset()
    compiled = torch.compile(lambda x: x.sin() + 1, backend=backend)
    compiled(torch.ones(2))
    return len(calls) == 1
