"""Storage events of a pass as arrays, repeated layers expanded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from graphflops.core.storage_events import EventBlock, EventItem, EventRepeat, StorageEvents

Integers: TypeAlias = NDArray[np.int64]
_RELEASE = -1
_CALL, _STORAGE, _ALLOCATION = range(3)


@dataclass(frozen=True, eq=False)
class EventArrays:
    """Storage events of a pass: three arrays of one length.

    A report of a large model has hundreds of thousands of events. Those of a repeated layer are
    copied from the arrays of its traced instance.

    Attributes:
        calls: Index of the call that runs or runs next.
        storages: Number of the storage.
        allocations: Number of its allocation; -1 for a release.
    """

    calls: Integers
    storages: Integers
    allocations: Integers

    @classmethod
    def of(cls, events: StorageEvents) -> EventArrays:
        """Expand events."""
        return cls(*_expand(events.items, {}))

    @property
    def is_release(self) -> NDArray[np.bool_]:
        """True where a storage is freed."""
        found: NDArray[np.bool_] = self.allocations == _RELEASE
        return found

    @property
    def is_consistent(self) -> bool:
        """True if each storage is allocated once, and freed once at most and later."""
        order = np.argsort(self.storages, kind="stable")
        storages, freed = self.storages[order], self.is_release[order]
        again = storages == np.append(storages[:1] - 1, storages[:-1])
        twice = again & np.append(False, again[:-1])
        return bool((freed == again).all() and not twice.any())

    @cached_property
    def allocated(self) -> Integers:
        """Number of the allocation of the storage of each event."""
        made = ~self.is_release
        order = np.argsort(self.storages[made], kind="stable")
        storages, allocations = self.storages[made][order], self.allocations[made][order]
        return allocations[np.searchsorted(storages, self.storages)]


def _expand(items: Iterable[EventItem], blocks: dict[int, Integers]) -> Integers:
    """Return events as three rows: calls, storages, allocations."""
    parts: list[Integers] = []
    plain: list[tuple[int, int, int]] = []

    def flush() -> None:
        if plain:
            parts.append(np.array(plain, dtype=np.int64).T)
            plain.clear()

    for item in items:
        if isinstance(item, EventRepeat):
            flush()
            parts.append(_relocate(item, _block(item.block, blocks)))
        else:
            call, storage, allocation = item
            plain.append((call, storage, _RELEASE if allocation is None else allocation))
    flush()
    return np.concatenate(parts, axis=1) if parts else np.empty((3, 0), dtype=np.int64)


def _block(block: EventBlock, blocks: dict[int, Integers]) -> Integers:
    if id(block) not in blocks:
        blocks[id(block)] = _expand(block.items, blocks)
    return blocks[id(block)]


def _relocate(repeat: EventRepeat, events: Integers) -> Integers:
    """Return the events of a repeat, from those of the traced instance."""
    block = repeat.block
    moved = events.copy()
    moved[_CALL] += repeat.first_call - block.first_call
    numbers = events[_STORAGE]
    own = (numbers >= block.first_storage) & (numbers < block.first_storage + block.storages)
    moved[_STORAGE, own] += repeat.first_storage - block.first_storage
    kept = own.copy()
    for position in np.flatnonzero(~own):
        other = repeat.others.get(int(numbers[position]))
        if other is not None:
            moved[_STORAGE, position], kept[position] = other, True
    return moved if kept.all() else moved[:, kept]
