"""Storage events as plain data; the events of a repeated layer stand once."""

from __future__ import annotations

from typing import Any

from graphflops.analysis.event_arrays import EventArrays
from graphflops.core.storage_events import (
    Allocation,
    EventBlock,
    EventItem,
    EventRepeat,
    StorageEvent,
    StorageEvents,
    StorageKind,
)
from graphflops.saving.codec import (
    Codec,
    DataError,
    check_keys,
    enumeration,
    mapping,
    optional,
    row,
    scalar,
    sequence,
    structure,
    within,
)
from graphflops.saving.expressions import DIM

_LIMIT = 2**48
_TEXT = scalar(str)


def _decode_number(data: Any) -> int:
    if type(data) is not int or abs(data) >= _LIMIT:
        raise DataError(f"is {data!r}, no number of a call or a storage")
    return data


_NUMBER = Codec(lambda number: number, _decode_number)
_EVENT = row(_NUMBER, _NUMBER, optional(_NUMBER))
_ALLOCATION = structure(
    Allocation,
    nbytes=DIM,
    dtype=_TEXT,
    device=_TEXT,
    kind=enumeration(StorageKind),
    name=_TEXT,
)


def _by_number(codec: Codec) -> Codec:
    """Return the codec of a dictionary with numbers as keys, which JSON has as strings."""
    named = mapping(codec)

    def decode(data: Any) -> dict[int, Any]:
        found = named.decode(data)
        if wrong := [key for key in found if not key.isdecimal()]:
            raise DataError(f"has a key {wrong[0]!r}, no number of a storage")
        return {_decode_number(int(key)): item for key, item in found.items()}

    return Codec(lambda values: named.encode({str(k): v for k, v in values.items()}), decode)


_OTHERS = _by_number(_NUMBER)
_REPEAT = {"block": _NUMBER, "first_call": _NUMBER, "first_storage": _NUMBER, "others": _OTHERS}
_BLOCK = {"first_call": _NUMBER, "first_storage": _NUMBER, "storages": _NUMBER}
_REST = {
    "allocations": _by_number(_ALLOCATION),
    "gradients": _by_number(_TEXT),
    "caches": sequence(_NUMBER, frozenset),
}


class _Encoder:
    """Encoder of events; blocks get numbers as they are first repeated."""

    def __init__(self) -> None:
        self.blocks: list[dict[str, Any]] = []
        self._numbers: dict[int, int] = {}

    def items(self, items: tuple[EventItem, ...]) -> list[Any]:
        return [self._repeat(i) if isinstance(i, EventRepeat) else list(i) for i in items]

    def _repeat(self, repeat: EventRepeat) -> dict[str, Any]:
        return {
            "block": self._number(repeat.block),
            "first_call": repeat.first_call,
            "first_storage": repeat.first_storage,
            "others": _OTHERS.encode(repeat.others),
        }

    def _number(self, block: EventBlock) -> int:
        if id(block) not in self._numbers:
            data = {key: getattr(block, key) for key in _BLOCK} | {"items": self.items(block.items)}
            self._numbers[id(block)] = len(self.blocks)
            self.blocks.append(data)
        return self._numbers[id(block)]


def _encode(events: StorageEvents) -> dict[str, Any]:
    encoder = _Encoder()
    items = encoder.items(events.items)
    rest = {key: codec.encode(getattr(events, key)) for key, codec in _REST.items()}
    return {"blocks": encoder.blocks, "items": items, **rest, "caches": sorted(rest["caches"])}


def _decode(data: Any) -> StorageEvents:
    keys = {"blocks": 0, "items": 0, **_REST}
    check_keys(data, keys, set(keys))
    rest = {key: within(key, codec.decode, data[key]) for key, codec in _REST.items()}
    blocks: list[EventBlock] = []

    def item(entry: Any) -> EventItem:
        if not isinstance(entry, dict):
            event = StorageEvent(*_EVENT.decode(entry))
            if event.allocation is not None and event.allocation not in rest["allocations"]:
                raise DataError(f"allocates {event.allocation}, of which nothing is said")
            return event
        check_keys(entry, _REPEAT, set(_REPEAT))
        found = {key: within(key, codec.decode, entry[key]) for key, codec in _REPEAT.items()}
        number = found.pop("block")
        if not 0 <= number < len(blocks):
            raise DataError(f"repeats block {number}, which stands nowhere before")
        return EventRepeat(blocks[number], **found)

    items = sequence(Codec(list, item))

    def block(entry: Any) -> None:
        check_keys(entry, {**_BLOCK, "items": 0}, {*_BLOCK, "items"})
        found = {key: within(key, codec.decode, entry[key]) for key, codec in _BLOCK.items()}
        blocks.append(EventBlock(items=within("items", items.decode, entry["items"]), **found))

    within("blocks", sequence(Codec(list, block)).decode, data["blocks"])
    events = StorageEvents(items=within("items", items.decode, data["items"]), **rest)
    if not EventArrays.of(events).is_consistent:
        raise DataError("frees a storage that was not allocated before, or allocates one twice")
    return events


STORAGES = Codec(_encode, _decode)
"""Codec of the storage events of a capture."""
