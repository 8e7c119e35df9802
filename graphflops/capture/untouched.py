"""Leave a model as it was found: flags, hooks, attributes, random state."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from functools import cache
from itertools import compress
from operator import is_
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
    saved = _Saved(model)
    numpy_random: Any = sys.modules["numpy"].random if "numpy" in sys.modules else None
    python_state = random.getstate()
    numpy_state = numpy_random.get_state() if numpy_random else None
    in_use: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]  # torch's gap
    devices = range(torch.cuda.device_count()) if in_use else ()
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            saved.restore()
            random.setstate(python_state)
            if numpy_random:
                numpy_random.set_state(numpy_state)


class _Saved:
    """What the modules of a model hold, and the plain objects that are attributes of theirs."""

    def __init__(self, model: nn.Module) -> None:
        self._copies: list[tuple[MutableMapping[Any, Any], dict[Any, Any]]] = []
        # Of dictionaries: most are empty, as those of hooks.
        self._sizes: list[tuple[list[MutableMapping[Any, Any]], list[int]]] = []
        plain: dict[int, object] = {}
        for module in model.modules():
            held = vars(module)
            dictionaries, own = _sorted(tuple(held))
            self._take(held)
            self._take_all(list(map(held.__getitem__, dictionaries)))
            for value in map(held.__getitem__, own):
                cls: type = type(value)
                if (kind := _kind_of(cls)) is _PLAIN:
                    plain[id(value)] = value
                elif kind is _MAPPING:
                    self._take_all([value])
        for value in plain.values():
            self._take(vars(value))
            items = vars(value).values()
            self._take_all([item for item in items if isinstance(item, MutableMapping)])

    def _take_all(self, several: list[MutableMapping[Any, Any]]) -> None:
        sizes = list(map(len, several))
        self._sizes.append((several, sizes))
        for held in compress(several, sizes):
            self._take(held)

    def _take(self, held: MutableMapping[Any, Any]) -> None:
        self._copies.append((held, dict(held)))

    def restore(self) -> None:
        """Let all of them hold the same again."""
        for several, sizes in self._sizes:
            if list(map(len, several)) != sizes:
                for held in (held for held, size in zip(several, sizes, strict=True) if not size):
                    held.clear()
        for held, copy in self._copies:
            same = len(held) == len(copy) and all(map(is_, held.values(), copy.values()))
            if not (same and list(held) == list(copy)):
                held.clear()
                held.update(copy)


_BARE = vars(nn.Module())
_OTHER, _MAPPING, _PLAIN = range(3)


@cache
def _sorted(names: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Of the names of a module's attributes the dictionaries of every module, and its own."""
    bare = [name for name in names if isinstance(_BARE.get(name), dict)]
    return bare, [name for name in names if name not in _BARE]


@cache
def _kind_of(cls: type) -> int:
    """Whether values of a class are dictionaries, plain objects, or nothing to look into."""
    if issubclass(cls, MutableMapping):
        return _MAPPING
    is_called = any("__call__" in vars(base) for base in cls.__mro__)
    other = is_called or issubclass(cls, nn.Module | torch.Tensor | ModuleType | type)
    return _OTHER if other or not cls.__dictoffset__ else _PLAIN
