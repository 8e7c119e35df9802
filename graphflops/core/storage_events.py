"""Storage events: when the memory of each tensor is allocated, and when eager PyTorch frees it.

A storage has a number. Its allocation is an event, and so is its release; events stand in the
order in which they happen, which is finer than that of the calls: the scratch memory of a
composite operator comes and goes within one call, and a tensor is freed between two calls, when
Python drops the last reference to it. The events of a repeated layer stand once, as its calls do:
another instance allocates as many storages, numbered from another one on.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple, TypeAlias

from graphflops.core.cost import Dim

BEFORE = -1
"""Index of the call, for what is allocated before the first one."""
GPU = "gpu"
"""Device of a model on meta, which is counted as on a GPU."""


class StorageKind(Enum):
    """Kind of a storage, by what it holds."""

    PARAMETER = "parameter"
    BUFFER = "buffer"
    INPUT = "input"
    RESULT = "result"


class Allocation(NamedTuple):
    """Storage that an operator allocates, or that is there from the start.

    Attributes:
        nbytes: Size in bytes, of the storage and not of a view of it.
        dtype: Dtype of the first tensor in it.
        device: Device, e.g. ``"cuda:0"``; ``"gpu"`` for a model on meta.
        kind: What it holds.
        name: Qualified name of a parameter or a buffer, name of an input; empty for a result.
    """

    nbytes: Dim
    dtype: str
    device: str
    kind: StorageKind = StorageKind.RESULT
    name: str = ""


class StorageEvent(NamedTuple):
    """Allocation or release of a storage.

    Attributes:
        call: Index of the call that runs or runs next; ``BEFORE`` before the first one.
        storage: Number of the storage.
        allocation: Number of its allocation: its own, or in a repeated layer that of the storage
            whose place it takes; ``None`` if it is freed.
    """

    call: int
    storage: int
    allocation: int | None

    @property
    def is_release(self) -> bool:
        """True if the storage is freed."""
        return self.allocation is None


@dataclass(frozen=True, slots=True, eq=False)
class EventBlock:
    """Events of a traced instance of a layer.

    Attributes:
        first_call: Index of its first call.
        first_storage: Number of the first storage that it allocates.
        storages: Number of storages that it allocates, those of layers within it included.
        items: The events, and repeats of layers within it.
        releases: Numbers of the storages from before it that it frees.
    """

    first_call: int
    first_storage: int
    storages: int
    items: tuple[StorageEvent | EventRepeat, ...]
    releases: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        freed = {event.storage for event in expand(self.items) if event.is_release}
        outside = frozenset(number for number in freed if not self.allocates(number))
        object.__setattr__(self, "releases", outside)

    def allocates(self, storage: int) -> bool:
        """Return True for the number of a storage that the block allocates."""
        return self.first_storage <= storage < self.first_storage + self.storages


@dataclass(frozen=True, slots=True, eq=False)
class EventRepeat:
    """Events of another instance of a layer.

    Attributes:
        block: Events of the traced instance.
        first_call: Index of the first call of this instance.
        first_storage: Number of the first storage that it allocates.
        others: Storages from before that this instance frees, by those that the traced one frees
            in their place.
    """

    block: EventBlock
    first_call: int
    first_storage: int
    others: dict[int, int] = field(default_factory=dict)

    def storage(self, number: int) -> int:
        """Return the number of this instance's storage for one that the block allocates."""
        return number - self.block.first_storage + self.first_storage

    def expand(self) -> Iterator[StorageEvent]:
        """Yield the events of this instance."""
        shift = self.first_call - self.block.first_call
        for call, storage, allocation in expand(self.block.items):
            if self.block.allocates(storage):
                yield StorageEvent(call + shift, self.storage(storage), allocation)
            elif storage in self.others:
                yield StorageEvent(call + shift, self.others[storage], allocation)


EventItem: TypeAlias = StorageEvent | EventRepeat


def expand(items: Iterable[EventItem]) -> Iterator[StorageEvent]:
    """Yield events in order, repeats expanded."""
    for item in items:
        if isinstance(item, EventRepeat):
            yield from item.expand()
        else:
            yield item


@dataclass(frozen=True, slots=True, kw_only=True)
class StorageEvents:
    """Storage events of a capture.

    Attributes:
        items: Events in order, repeats of layers unexpanded.
        allocations: Allocations by the number of the storage, repeats left out.
        gradients: Names of the parameters, by the numbers of the storages of their gradients.
        caches: Numbers of the storages of the KV cache that the model returns.
    """

    items: tuple[EventItem, ...] = ()
    allocations: Mapping[int, Allocation] = field(default_factory=dict)
    gradients: Mapping[int, str] = field(default_factory=dict)
    caches: frozenset[int] = frozenset()

    def __iter__(self) -> Iterator[StorageEvent]:
        return expand(self.items)

    def map_sizes(self, function: Callable[[Dim], Dim]) -> StorageEvents:
        """Return the events with a function of each size in its place."""
        allocations = {
            number: allocation._replace(nbytes=function(allocation.nbytes))
            for number, allocation in self.allocations.items()
        }
        return replace(self, allocations=allocations)

    def with_kept_gradients(self) -> StorageEvents:
        """Return the events of a pass that adds to gradients which are there from the start.

        Autograd frees the gradient that it adds before the next call.
        """
        flat = list(self)
        first = 1 + max((event.storage for event in flat), default=0)
        kept = {number: first + place for place, number in enumerate(self.gradients)}
        sources = {
            event.storage: event.allocation
            for event in flat
            if event.storage in kept and event.allocation is not None
        }
        starts = [StorageEvent(BEFORE, kept[number], source) for number, source in sources.items()]
        return replace(
            self,
            items=(*starts, *_freed_before_next_call(flat, kept)),
            gradients={kept[number]: name for number, name in self.gradients.items()},
        )


def _freed_before_next_call(
    events: Iterable[StorageEvent], storages: Container[int]
) -> Iterator[StorageEvent]:
    """Yield events, with some storages freed before the call that follows their allocation."""
    added: list[StorageEvent] = []
    for event in events:
        while added and event.call > added[0].call:
            yield StorageEvent(event.call, added.pop(0).storage, None)
        yield event
        if event.storage in storages:
            added.append(event)
    for event in added:
        yield StorageEvent(event.call, event.storage, None)
