"""Caches of keys and values, of which a layer sees its own entry.

A cache is the one mutable argument that a repeated layer may take: its methods touch the entry
they are told and nothing else, so what is in that entry counts as an argument, and what is in
it afterwards as a result. Only classes of ``transformers.cache_utils`` are known to be so.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from graphflops.capture.layer_reuse.layer_index import Slot, number_of

_MODULE = "transformers.cache_utils"
# Methods that compare a slot with the number of entries.
_COUNTING = {"update", "get_seq_length", "get_mask_sizes", "get_max_length", "has_previous_state"}
ABSENT = object()


def is_cache(value: object) -> bool:
    """Whether a value is a cache that is known to keep the entries of layers apart."""
    kind = type(value)
    if kind.__module__ != _MODULE:
        return False
    known: Any = sys.modules[_MODULE]
    apart = isinstance(value, known.Cache) and not isinstance(value, known.QuantizedCache)
    return apart and not getattr(value, "offloading", False)


def beside_entries(cache: Any) -> dict[str, Any]:
    """What a cache has beside the entries of layers."""
    found = {k: v for k, v in vars(cache).items() if k not in {"layers", "is_updated"}}
    if not _grows(cache) and hasattr(cache, "layers"):
        found["number of entries"] = list.__len__(cache.layers)
    return found


def _grows(cache: Any) -> bool:
    return getattr(cache, "layer_class_to_replicate", None) is not None


def grow(cache: Any, index: int) -> None:
    """Make the entry that ``update`` would make first of all, if it is the next one."""
    if _grows(cache) and index == list.__len__(cache.layers):
        cache.layers.append(cache.layer_class_to_replicate())


@dataclass(frozen=True)
class Place:
    """Where in the caches among the arguments an entry is.

    Attributes:
        cache: Which cache.
        held: The attribute of it that has the entries.
        index: The number of the entry.
        key: The attribute of a module that says so, if it does.
    """

    cache: int
    held: str
    index: int
    key: tuple[int, str] | None

    def entry(self, found: list[Any]) -> Any:
        """The entry, of these caches."""
        entries = vars(found[self.cache])[self.held]
        if isinstance(entries, dict):
            return dict.get(entries, self.index, ABSENT)
        there = self.index < list.__len__(entries)
        return list.__getitem__(entries, self.index) if there else ABSENT

    def state(self, found: list[Any]) -> Any:
        """What is in the entry."""
        entry = self.entry(found)
        return dict(vars(entry)) if self.held == "layers" and entry is not ABSENT else entry

    def put(self, found: list[Any], state: Any) -> None:
        """Put into the entry what was in another one afterwards."""
        if self.held == "layers":
            if state is not ABSENT:
                held = vars(self.entry(found))
                held.clear()
                held.update(state)
        elif state is not ABSENT:
            vars(found[self.cache])[self.held][self.index] = state


@dataclass(slots=True)
class Touched:
    """Which entries of some caches a block touches.

    Attributes:
        places: The entries, in the order in which they are touched first.
        beyond: Whether it looked at a cache as a whole.
        look: Called with each place before it is touched.
    """

    look: Callable[[Place], None]
    places: dict[tuple[int, str, int], Place] = field(default_factory=dict)
    beyond: bool = False

    def touch(self, cache: int, held: str, index: Any) -> int:
        """Note that an entry is about to be touched."""
        number = int(number_of(index))
        key = (cache, held, number)
        if key not in self.places:
            place = Place(cache, held, number, index.key if type(index) is Slot else None)
            self.places[key] = place
            self.look(place)
        elif type(index) is not Slot and self.places[key].key is not None:
            # Its own entry by one way, and this very entry by another.
            self.beyond = True
        return number


@contextlib.contextmanager
def touching(found: list[Any], touched: Touched) -> Iterator[None]:
    """Note which entries are touched until the block ends."""
    replaced = []
    for number, cache in enumerate(found):
        for held, kind in (("layers", _Entries), ("is_updated", _Updated)):
            if held in vars(cache):
                entries = vars(cache)[held]
                replaced.append((cache, held, entries))
                vars(cache)[held] = kind(entries, number, touched, grows=_grows(cache))
    try:
        yield
    finally:
        for cache, held, entries in replaced:
            now = vars(cache)[held]
            vars(cache)[held] = entries
            if isinstance(entries, list):
                entries[:] = list.__iter__(now)
            else:
                entries.clear()
                entries.update(dict.items(now))


class _Entries(list[Any]):
    """The entries of layers, by number."""

    def __init__(self, entries: list[Any], cache: int, touched: Touched, *, grows: bool) -> None:
        super().__init__(list.__getitem__(entries, slice(None)))
        self._cache, self._touched, self._grows = cache, touched, grows

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) or int(number_of(index)) < 0:
            self._touched.beyond = True
            return super().__getitem__(number_of(index))
        return super().__getitem__(self._touched.touch(self._cache, "layers", index))

    def __iter__(self) -> Iterator[Any]:
        self._touched.beyond = True
        return super().__iter__()

    def __len__(self) -> int:
        # How many there are says something if it is another number in every layer.
        if self._grows and sys._getframe(1).f_code.co_name not in _COUNTING:
            self._touched.beyond = True
        return super().__len__()

    def append(self, entry: Any) -> None:
        self._touched.beyond = True
        super().append(entry)


class _Updated(dict[Any, Any]):
    """Whether the entries of layers were filled from an encoder, by number."""

    def __init__(
        self, entries: dict[Any, Any], cache: int, touched: Touched, *, grows: bool
    ) -> None:
        del grows  # a dictionary is not asked for its length
        super().__init__(dict.items(entries))
        self._cache, self._touched = cache, touched

    def _touch(self, index: Any) -> int:
        return self._touched.touch(self._cache, "is_updated", index)

    def get(self, index: Any, default: Any = None) -> Any:
        return super().get(self._touch(index), default)

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(self._touch(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(self._touch(index), value)

    def __contains__(self, index: object) -> bool:
        return super().__contains__(self._touch(index))

    def __iter__(self) -> Iterator[Any]:
        self._touched.beyond = True
        return super().__iter__()

    def __len__(self) -> int:
        self._touched.beyond = True
        return super().__len__()
