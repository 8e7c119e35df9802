"""KV caches, of which each layer accesses its own entry.

A cache is the one mutable argument that a repeated layer may take: its methods access the entry
of the index they are given and nothing else, so the state of that entry counts as an argument,
and its state afterwards as a result. This holds for classes of ``transformers.cache_utils`` only.
"""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from graphflops.capture.layer_reuse.layer_index import LayerIndex, unwrap_index

_MODULE = "transformers.cache_utils"
# Methods that compare a layer index with the number of entries.
_COUNTING = {"update", "get_seq_length", "get_mask_sizes", "get_max_length", "has_previous_state"}
ABSENT = object()


def is_cache(value: object) -> bool:
    """Return True for a cache that keeps the entries of layers independent of one another."""
    cls = type(value)
    if cls.__module__ != _MODULE:
        return False
    cache_utils: Any = sys.modules[_MODULE]
    is_independent = isinstance(value, cache_utils.Cache) and not isinstance(
        value, cache_utils.QuantizedCache
    )
    return is_independent and not getattr(value, "offloading", False)


def state_outside_entries(cache: Any) -> dict[str, Any]:
    """Return the attributes of a cache other than the entries of layers."""
    attributes = {k: v for k, v in vars(cache).items() if k not in {"layers", "is_updated"}}
    if not _creates_entries(cache) and hasattr(cache, "layers"):
        attributes["number of entries"] = list.__len__(cache.layers)
    return attributes


def _creates_entries(cache: Any) -> bool:
    return getattr(cache, "layer_class_to_replicate", None) is not None


def create_entry(cache: Any, index: int) -> None:
    """Append the entry that ``update`` would append first, if ``index`` is the next one."""
    if _creates_entries(cache) and index == list.__len__(cache.layers):
        cache.layers.append(cache.layer_class_to_replicate())


def copy_without_tensors(cache: Any) -> Any | None:
    """Return a copy of a cache for a layer that has not filled its entry yet.

    Entries that others have filled are left out. Returns ``None`` for a cache of other attributes
    than entries and constants, such as one that consists of two caches.
    """
    attributes = dict(vars(cache))
    entries = attributes.pop("layers", ())
    if not all(map(_is_constant, attributes.values())):
        return None
    new = copy.copy(cache)
    new.layers = []
    for entry in entries:
        values = () if entry is None else vars(entry).values()
        if entry is None or any(isinstance(value, torch.Tensor) for value in values):
            new.layers.append(None)
        elif all(map(_is_constant, values)):
            new.layers.append(copy.copy(entry))
        else:
            return None
    return new


def _is_constant(value: object) -> bool:
    return isinstance(value, int | float | str | None | type | torch.dtype | torch.device)


@dataclass(frozen=True)
class EntryLocation:
    """Location of an entry in the caches among the arguments.

    Attributes:
        cache: Number of the cache.
        attribute: Attribute of the cache with the entries.
        index: Number of the entry.
        key: Key of the layer index that selected it, if one did.
    """

    cache: int
    attribute: str
    index: int
    key: tuple[int, str, int] | None

    def entry(self, caches: list[Any]) -> Any:
        """Return the entry, or ``ABSENT``."""
        entries = vars(caches[self.cache])[self.attribute]
        if isinstance(entries, dict):
            return dict.get(entries, self.index, ABSENT)
        is_present = self.index < list.__len__(entries)
        return list.__getitem__(entries, self.index) if is_present else ABSENT

    def state(self, caches: list[Any]) -> Any:
        """Return the state of the entry."""
        entry = self.entry(caches)
        return dict(vars(entry)) if self.attribute == "layers" and entry is not ABSENT else entry

    def set_state(self, caches: list[Any], state: Any) -> None:
        """Set the state of the entry to that of another entry after a call."""
        if self.attribute == "layers":
            if state is not ABSENT:
                attributes = vars(self.entry(caches))
                attributes.clear()
                attributes.update(state)
        elif state is not ABSENT:
            vars(caches[self.cache])[self.attribute][self.index] = state


@dataclass(slots=True)
class CacheAccessLog:
    """Log of the cache entries that a block accesses.

    Attributes:
        locations: The entries, in the order of their first access.
        accesses_whole_cache: True if the block depends on more of a cache than single entries.
        on_first_access: Called with the location of each entry before its first access.
    """

    locations: dict[tuple[int, str, int], EntryLocation] = field(default_factory=dict)
    accesses_whole_cache: bool = False
    on_first_access: Callable[[EntryLocation], None] = field(init=False)

    def record_access(self, cache: int, attribute: str, index: Any) -> int:
        """Record that an entry is about to be accessed; return its number."""
        number = int(unwrap_index(index))
        key = (cache, attribute, number)
        if key not in self.locations:
            location = EntryLocation(
                cache, attribute, number, index.key if type(index) is LayerIndex else None
            )
            self.locations[key] = location
            self.on_first_access(location)
        elif type(index) is not LayerIndex and self.locations[key].key is not None:
            # The same entry is selected by a layer index and by a constant.
            self.accesses_whole_cache = True
        return number


@contextlib.contextmanager
def log_cache_access(
    caches: list[Any], log: CacheAccessLog, on_first_access: Callable[[EntryLocation], None]
) -> Iterator[None]:
    """Log the entries accessed in the block.

    Args:
        caches: Caches.
        log: Log.
        on_first_access: Called with the location of each entry before its first access.
    """
    log.on_first_access = on_first_access
    originals = []
    for number, cache in enumerate(caches):
        for attribute, cls in (("layers", _LoggedEntries), ("is_updated", _LoggedUpdates)):
            if attribute in vars(cache):
                entries = vars(cache)[attribute]
                originals.append((cache, attribute, entries))
                vars(cache)[attribute] = cls(
                    entries, number, log, creates_entries=_creates_entries(cache)
                )
    try:
        yield
    finally:
        # Else a recording, which holds the arguments of the layer, would hold itself.
        del log.on_first_access
        for cache, attribute, entries in originals:
            logged = vars(cache)[attribute]
            vars(cache)[attribute] = entries
            if isinstance(entries, list):
                entries[:] = list.__iter__(logged)
            else:
                entries.clear()
                entries.update(dict.items(logged))


class _LoggedEntries(list[Any]):
    """Entries of layers, by number, with logged access."""

    def __init__(
        self, entries: list[Any], cache: int, log: CacheAccessLog, *, creates_entries: bool
    ) -> None:
        super().__init__(list.__getitem__(entries, slice(None)))
        self._cache, self._log, self._creates_entries = cache, log, creates_entries

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice) or int(unwrap_index(index)) < 0:
            self._log.accesses_whole_cache = True
            return super().__getitem__(unwrap_index(index))
        return super().__getitem__(self._log.record_access(self._cache, "layers", index))

    def __iter__(self) -> Iterator[Any]:
        self._log.accesses_whole_cache = True
        return super().__iter__()

    def __len__(self) -> int:
        # The length matters if it differs between layers.
        if self._creates_entries and sys._getframe(1).f_code.co_name not in _COUNTING:
            self._log.accesses_whole_cache = True
        return super().__len__()

    def append(self, entry: Any) -> None:
        self._log.accesses_whole_cache = True
        super().append(entry)


class _LoggedUpdates(dict[Any, Any]):
    """``is_updated`` of an encoder-decoder cache, by number of the layer, with logged access."""

    def __init__(
        self, entries: dict[Any, Any], cache: int, log: CacheAccessLog, *, creates_entries: bool
    ) -> None:
        del creates_entries  # matters for the length of a list only
        super().__init__(dict.items(entries))
        self._cache, self._log = cache, log

    def _record_access(self, index: Any) -> int:
        return self._log.record_access(self._cache, "is_updated", index)

    def get(self, index: Any, default: Any = None) -> Any:
        return super().get(self._record_access(index), default)

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(self._record_access(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        super().__setitem__(self._record_access(index), value)

    def __contains__(self, index: object) -> bool:
        return super().__contains__(self._record_access(index))

    def __iter__(self) -> Iterator[Any]:
        self._log.accesses_whole_cache = True
        return super().__iter__()

    def __len__(self) -> int:
        self._log.accesses_whole_cache = True
        return super().__len__()
