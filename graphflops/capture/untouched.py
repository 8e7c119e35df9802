"""Leave a model as it was found: flags, hooks, attributes, random state."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from itertools import compress
from operator import is_
from types import ModuleType
from typing import Any, NamedTuple

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
        self._seen: set[int] = set()
        self._snapshots: list[_Snapshot] = []
        # Of dictionaries: most are empty, as those of hooks.
        self._sizes: list[tuple[list[MutableMapping[Any, Any]], list[int]]] = []
        for module in model.modules():
            for value in self._take_attributes(module):
                self._take_attributes(value)

    def _take_attributes(self, holder: object) -> list[object]:
        """Take the attributes of something, and its dictionaries; the plain objects it has."""
        values = self._take(vars(holder))
        kinds = list(map(_KINDS.__getitem__, map(type, values)))
        found = list(compress(values, kinds))
        plain = []
        if _PLAIN in kinds:
            plain = [v for v in found if _KINDS[type(v)] is _PLAIN and id(v) not in self._seen]
            self._seen.update(map(id, plain))
            found = [v for v in found if _KINDS[type(v)] is _MAPPING]
        sizes = list(map(len, found))
        self._sizes.append((found, sizes))
        for held in compress(found, sizes):
            self._take(held)
        return plain

    def _take(self, held: MutableMapping[Any, Any]) -> list[Any]:
        snapshot = _Snapshot(held, list(held), list(held.values()))
        self._snapshots.append(snapshot)
        return snapshot.values

    def restore(self) -> None:
        """Let all of them hold the same again."""
        for found, sizes in self._sizes:
            if list(map(len, found)) != sizes:
                for held in (held for held, size in zip(found, sizes, strict=True) if not size):
                    held.clear()
        for held, keys, values in self._snapshots:
            same = len(held) == len(keys) and all(map(is_, held.values(), values))
            if not (same and list(held) == keys):
                held.clear()
                held.update(zip(keys, values, strict=True))


class _Snapshot(NamedTuple):
    """What a dictionary, or the attributes of an object, held."""

    held: MutableMapping[Any, Any]
    keys: list[Any]
    values: list[Any]


_OTHER, _MAPPING, _PLAIN = range(3)


class _Kinds(dict[type, int]):
    """Whether values of a type are dictionaries, plain objects, or nothing to look into."""

    def __missing__(self, cls: type) -> int:
        kind = _OTHER
        if issubclass(cls, MutableMapping):
            kind = _MAPPING
        elif not issubclass(cls, nn.Module | torch.Tensor | ModuleType | type):
            is_called = any("__call__" in vars(base) for base in cls.__mro__)
            kind = _PLAIN if cls.__dictoffset__ and not is_called else _OTHER
        self[cls] = kind
        return kind


_KINDS = _Kinds()
