"""A model and its inputs brought together: on one device, as metadata, values kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree

from graphflops.capture.running import Modules
from graphflops.capture.symbols import Size, Specs, symbolic_shape
from graphflops.capture.values import LARGEST, KnownValues

_CPU = torch.device("cpu")
_PLAIN = {torch.Tensor, nn.Parameter, nn.Buffer, FakeTensor}


def brought_together(
    modules: Modules, inputs: Any, specs: Specs | None = None
) -> tuple[KnownValues, Any]:
    """Make the model and the inputs fake tensors on the model's device; small inputs keep values.

    A model on meta becomes one of fake tensors on the CPU: a tensor that its code makes of
    numbers has a value there, and one that its code puts on the CPU by mistake does no harm.
    One with data becomes fake too: an operator that takes nothing else would run, and in place
    write to it. The parameters are exchanged in place, so this belongs inside ``untouched``.

    Args:
        modules: Those of the model that takes the inputs.
        inputs: Tensors in any structure.
        specs: Axes that are to be symbolic; such a tensor has no values.

    Returns:
        The mode of the fake tensors, with what it knows of values, and the inputs.
    """
    weights = (p for _, module in modules for p in module._parameters.values() if p is not None)
    device = _device(next(weights, None), pytree.tree_leaves(inputs))
    known = KnownValues()
    _exchange(modules, known.mode)

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if specs and id(tensor) in specs:
            shape = symbolic_shape(known.symbols, tensor, specs[id(tensor)])
            return _symbolic(tensor, shape, known.mode, device)
        if _has_values(tensor):
            return known.know_input(tensor, device)
        return _like(tensor, known.mode, device)

    return known, pytree.tree_map_only(torch.Tensor, fake, inputs)


def _device(parameter: nn.Parameter | None, inputs: list[Any]) -> torch.device:
    """Where the model computes: on meta it is to be moved off it, fake tensors stay."""
    given = (leaf for leaf in inputs if isinstance(leaf, torch.Tensor))
    first = next(given, None) if parameter is None else parameter
    if first is None or (parameter is not None and parameter.is_meta):
        return _CPU
    return first.device


def _exchange(modules: Modules, mode: Any) -> None:
    """Exchange parameters and buffers for fake ones; tied ones stay tied."""
    made: dict[int, torch.Tensor] = {}
    for _, module in modules:
        for held in (module._parameters, module._buffers):
            for name, tensor in held.items():
                if type(tensor) not in _PLAIN or tensor is None:
                    continue
                fake = made.get(id(tensor))
                if fake is None:
                    fake = made[id(tensor)] = (
                        _on_cpu(tensor, mode)
                        if tensor.is_meta
                        else mode.from_tensor(tensor, static_shapes=True)
                    )
                held[name] = fake  # type: ignore[assignment]  # a parameter for a parameter


def _on_cpu(tensor: torch.Tensor, mode: FakeTensorMode) -> torch.Tensor:
    """A tensor on meta as a fake one: it has the metadata that a fake is made of."""
    # What makes a tensor a parameter is said here; the class itself would run operators, for each
    # of thousands of experts.
    return FakeTensor(mode, tensor, _CPU, _is_param=type(tensor) is nn.Parameter)


def _like(tensor: torch.Tensor, mode: FakeTensorMode, device: torch.device) -> torch.Tensor:
    with mode:
        return torch.empty_strided(
            tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device
        ).requires_grad_(tensor.requires_grad)


def _symbolic(
    tensor: torch.Tensor, shape: Sequence[Size], mode: FakeTensorMode, device: torch.device
) -> torch.Tensor:
    """A fake tensor of a symbolic shape whose axes lie in memory in the same order."""
    order = sorted(range(tensor.dim()), key=tensor.stride, reverse=True)
    with mode:
        dense = torch.empty([shape[axis] for axis in order], dtype=tensor.dtype, device=device)
        return dense.permute([order.index(axis) for axis in range(tensor.dim())])


def _has_values(tensor: torch.Tensor) -> bool:
    return not (tensor.is_meta or isinstance(tensor, FakeTensor)) and tensor.numel() <= LARGEST
