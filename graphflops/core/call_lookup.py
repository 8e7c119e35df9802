"""Calls by their indices, without expanding the repeated layers that have none of them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator

from graphflops.core.call_sequence import Block, CallSequence, Repeat
from graphflops.core.ir import OpRecord

Item = OpRecord | Repeat[OpRecord]


def first_index(records: Iterable[OpRecord]) -> int | None:
    """Return the index of the first call; ``None`` if there is none."""
    return next(_indices(CallSequence.of(records).items), None)


def _indices(items: Iterable[Item]) -> Iterator[int]:
    for item in items:
        if isinstance(item, Repeat):
            yield from (index + item.shift for index in _indices(item.block.items))
        else:
            yield item.call.index


class CallLookup:
    """Search for calls by their indices.

    Args:
        records: Records of the calls.
    """

    def __init__(self, records: Iterable[OpRecord]) -> None:
        self._items = CallSequence.of(records).items
        self._ranges: dict[Block[OpRecord], tuple[int, int]] = {}

    def find(self, indices: Iterable[int]) -> dict[int, OpRecord]:
        """Return the records with some call indices; those of no call are ignored."""
        return dict(self._search(self._items, sorted(indices)))

    def _search(self, items: Iterable[Item], wanted: list[int]) -> Iterator[tuple[int, OpRecord]]:
        known = set(wanted)
        for item in items:
            if isinstance(item, Repeat):
                yield from self._search_repeat(item, wanted)
            elif item.call.index in known:
                yield item.call.index, item

    def _search_repeat(
        self, repeat: Repeat[OpRecord], wanted: list[int]
    ) -> Iterator[tuple[int, OpRecord]]:
        shift, (first, last) = repeat.shift, self._range(repeat.block)
        inside = wanted[bisect_left(wanted, first + shift) : bisect_right(wanted, last + shift)]
        if inside:
            local = [index - shift for index in inside]
            for index, record in self._search(repeat.block.items, local):
                yield index + shift, repeat.relocation.apply(record, shift)

    def _range(self, block: Block[OpRecord]) -> tuple[int, int]:
        if block not in self._ranges:
            indices = list(_indices(block.items))
            self._ranges[block] = min(indices), max(indices)
        return self._ranges[block]
