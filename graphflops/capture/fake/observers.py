"""Models prepared for quantization: observers, and fake quantization in training."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from graphflops.capture.fake.constant_propagation import ValueTracker
from graphflops.capture.named_modules import Modules
from graphflops.capture.torch_internals.no_modes import no_modes

_OBSERVED = (
    "Observers are left out: they watch the values that a quantization is prepared for, and "
    "hand on what they are given."
)
_SWITCHED = (
    "Fake quantization counts as switched on: the model is on meta, where switches have no values."
)


def bypass_observers(modules: Modules, tracker: ValueTracker) -> list[str]:
    """Make the observers of a fake model return their input.

    Fake quantization is switched as in the model, and on if the model is on meta.

    Returns:
        Notes on what is left out and assumed, complete when the model has run.
    """
    observers, fake_quantizers = (
        [module for _, module in modules if isinstance(module, classes)]
        for classes in map(_loaded_classes, (_OBSERVERS, _FAKE_QUANTIZERS))
    )
    # Those with blocks tell their fake quantization the size of the blocks, and read no values.
    used = {id(child) for module in fake_quantizers for child in module.children()}
    by_block = _loaded_classes(_BLOCK_OBSERVERS)
    observers += [m for _, m in modules if isinstance(m, by_block) and id(m) not in used]
    notes: list[str] = []
    for observer in observers:
        _bypass(observer, notes)
    for switch, value in _switches(fake_quantizers):
        if tracker.value(switch) is None:
            with no_modes():
                tracker.assign(switch, torch.full(switch.shape, value, dtype=switch.dtype))
            _add(notes, _SWITCHED)
    return notes


_OBSERVERS = (
    ("torch.ao.quantization.observer", "ObserverBase"),
    ("torchao.quantization.pt2e.observer", "ObserverBase"),
)
_BLOCK_OBSERVERS = (
    ("torchao.quantization.pt2e.observer", "AffineQuantizedObserverBase"),
    ("torchao.quantization.observer", "AffineQuantizedObserverBase"),
)
_FAKE_QUANTIZERS = (
    ("torch.ao.quantization.fake_quantize", "FakeQuantizeBase"),
    ("torchao.quantization.pt2e.fake_quantize", "FakeQuantizeBase"),
)
# Buffers, with the values that they are created with.
_SWITCHES = {
    "fake_quant_enabled": 1,
    "observer_enabled": 1,
    "static_enabled": 1,
    "learning_enabled": 0,
}


def _loaded_classes(names: Iterable[tuple[str, str]]) -> tuple[type, ...]:
    """Return classes by module and name, without those of modules that are not imported."""
    classes = (getattr(sys.modules.get(module), name, None) for module, name in names)
    return tuple(filter(None, classes))


def _switches(fake_quantizers: Iterable[nn.Module]) -> Iterator[tuple[torch.Tensor, int]]:
    """Yield the buffers that switch fake quantization, and what they are created with."""
    for module in fake_quantizers:
        for name, buffer in module.named_buffers(recurse=False):
            if name in _SWITCHES:
                yield buffer, _SWITCHES[name]


def _add(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _bypass(observer: Any, notes: list[str]) -> None:
    """Make an observer return its input, and a scale and zero point for each of its channels."""
    channels, device = 1, None

    def forward(x: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        nonlocal channels, device
        channels = x.shape[observer.ch_axis] if hasattr(observer, "ch_axis") else 1
        device = x.device
        _add(notes, _OBSERVED)
        return x

    def calculate_qparams(*_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        scale = torch.empty(channels, device=device)
        return scale, torch.empty(channels, device=device, dtype=torch.int32)

    vars(observer).update(forward=forward, calculate_qparams=calculate_qparams)
