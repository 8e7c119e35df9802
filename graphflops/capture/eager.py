"""What it takes to run a model eagerly under fake tensors."""

from __future__ import annotations

import contextlib
import inspect
import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.distributions import Distribution
from torch.utils import _pytree as pytree

from graphflops.capture.running import Modules, modules_in
from graphflops.capture.values import CHANCE, DRAWN, INPUTS, KnownValues
from graphflops.folded import Folded
from graphflops.ir import NamedTensors, OpCall
from graphflops.resizing import Resizing

_ASKED = "Some sizes follow from values of the inputs: with other values it may cost otherwise."
SUPPOSED = (
    "Which experts tokens go to is up to the weights: they are supposed to go to all in turn."
)

_DRAWN = (
    f"Random numbers that decide what runs are taken to be {DRAWN}: a layer that is dropped more "
    "rarely is kept."
)
_READABLE = 40  # characters of a condition that a note quotes


def named_tensors(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[tuple[str, torch.Tensor]]:
    """The input tensors under the names that the model's forward has for them."""
    named = dict(inspect.signature(model.forward).bind_partial(*args).arguments) | dict(kwargs)
    leaves, _ = pytree.tree_flatten_with_path(named)
    return [
        (re.sub(r"\W+", "_", pytree.keystr(path)).strip("_"), leaf)
        for path, leaf in leaves
        if isinstance(leaf, torch.Tensor)
    ]


def settled(
    known: KnownValues, calls: Folded[OpCall], inputs: NamedTensors
) -> tuple[Folded[OpCall], NamedTensors]:
    """Calls and inputs with the sizes that symbols have turned out to be.

    A size may be a symbol when a call is made, and a number that a later one asks for.
    """
    if not (sizes := known.symbols.settled()):
        return calls, inputs
    put = Resizing(sizes)
    given = tuple((name, put.tensor(meta)) for name, meta in inputs)
    return calls.mapped(lambda call: (put.call(call),)), given


def notes_of(known: KnownValues) -> tuple[str, ...]:
    """What a reader must know of a graph.

    Raises:
        CaptureError: A size that was to be symbolic has become a number.
    """
    known.symbols.refuse_fixed()
    assumed = [str(condition) for condition in known.symbols.assumptions()]
    short = [condition for condition in assumed if len(condition) <= _READABLE]
    if more := len(assumed) - len(short):
        short.append(f"{more} longer conditions on sizes are met")
    sentences = {
        _ASKED: INPUTS in known.asked,
        _DRAWN: CHANCE in known.asked,
        SUPPOSED: known.supposed,
        f"Costs hold where {', '.join(short)}.": short,
    }
    return tuple(sentence for sentence, said in sentences.items() if said)


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


def is_transformers_model(model: nn.Module) -> bool:
    """Whether a model is one of transformers', asked without importing it."""
    transformers: Any = sys.modules.get("transformers")
    return transformers is not None and isinstance(model, transformers.PreTrainedModel)


def register_caches(model: nn.Module) -> None:
    """Let tensors be found in the caches that a transformers model takes and returns."""
    if is_transformers_model(model):
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
