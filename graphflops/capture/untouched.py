"""Leave a model as it was found: flags, hooks, attributes, random state."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def untouched(model: nn.Module) -> Iterator[None]:
    """Undo whatever the block does to the modules of ``model`` and to random state.

    Every attribute of every module is restored, and the contents of its dictionaries (hooks,
    parameters, buffers, submodules), also after an error. Tensor *values* are not saved: a
    capture computes under fake tensors and never writes to real ones.
    """
    saved = [_Snapshot(module) for module in model.modules()]
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


class _Snapshot:
    """The attributes of one module and what its dictionaries held."""

    def __init__(self, module: nn.Module) -> None:
        self.attributes = vars(module)
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
