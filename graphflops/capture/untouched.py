"""Leave a model as it was found: flags, hooks, attributes, random state."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Undo whatever the block does to the modules of ``model`` and to random state.

    Every attribute of every module is restored, and the contents of its dictionaries (hooks,
    parameters, buffers, submodules), also after an error; so are those of plain objects that a
    module holds: a cache would keep fake tensors. Tensor *values* are not saved: a capture
    computes under fake tensors and never writes to real ones.
    """
    saved = [_Snapshot(holder) for holder in _holders(model)]
    numpy_random: Any = sys.modules["numpy"].random if "numpy" in sys.modules else None
    python_state = random.getstate()
    numpy_state = numpy_random.get_state() if numpy_random else None
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's gap
    devices = range(torch.cuda.device_count()) if in_use else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            for snapshot in saved:
                snapshot.restore()
            random.setstate(python_state)
            if numpy_random:
                numpy_random.set_state(numpy_state)


def _holders(model: nn.Module) -> list[object]:
    """The modules, and the plain objects that are attributes of theirs."""
    modules = list(model.modules())
    held = {id(value): value for module in modules for value in vars(module).values()}
    return [*modules, *(value for value in held.values() if _is_plain(value))]


def _is_plain(value: object) -> bool:
    other = isinstance(value, nn.Module | torch.Tensor | ModuleType | MutableMapping) or callable(
        value
    )
    return not other and isinstance(getattr(value, "__dict__", None), dict)


class _Snapshot:
    """The attributes of one module or object and what its dictionaries held."""

    def __init__(self, holder: object) -> None:
        self.attributes = vars(holder)
        self.values = dict(self.attributes)
        self.contents = [
            (held, dict(held)) for held in self.values.values() if isinstance(held, MutableMapping)
        ]

    def restore(self) -> None:
        for held, content in self.contents:
            _refill(held, content)
        _refill(self.attributes, self.values)


def _refill(target: MutableMapping[Any, Any], content: dict[Any, Any]) -> None:
    same = len(target) == len(content) and all(
        key in target and target[key] is value for key, value in content.items()
    )
    if not same:
        target.clear()
        target.update(content)
