"""Labels of all storages of a pass, and memory by category over its calls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from graphflops.analysis.memory import Category, LiveTensor, _Labels
from graphflops.analysis.optimizer_memory import OptimizerMemory
from graphflops.core.ir import OpCall
from graphflops.core.storage_events import BEFORE, StorageEvents

_CATEGORIES = tuple(Category)


def label_storages(
    storages: StorageEvents, calls: Sequence[OpCall], caches: Iterable[str] = ()
) -> dict[int, LiveTensor]:
    """Return what each storage of a pass is for and where it comes from, by its number."""
    released = {event.storage: event.call for event in storages if event.is_release}
    labels = _Labels(storages, calls, frozenset(caches), released)
    return {
        event.storage: labels._tensor(
            event.storage, event.call, storages.allocations[event.allocation]
        )
        for event in storages
        if event.allocation is not None
    }


@dataclass(frozen=True, slots=True)
class CategoryTimeline:
    """Memory by category over the calls.

    Attributes:
        calls: Indices of the calls; -1 before the first one, the number of calls after the last.
        nbytes: Bytes of each category at these: while a call runs, when it needs most.
    """

    calls: tuple[int, ...]
    nbytes: Mapping[Category, tuple[int, ...]]

    @property
    def totals(self) -> list[int]:
        """Bytes of all categories."""
        return [sum(row) for row in zip(*self.nbytes.values(), strict=True)]


def category_timeline(
    storages: StorageEvents,
    labels: Mapping[int, LiveTensor],
    device: str,
    after: OptimizerMemory,
    length: int,
) -> CategoryTimeline:
    """Return the memory by category over the calls.

    Args:
        storages: When each storage is allocated and freed, with sizes that are numbers.
        labels: What each storage is for.
        device: Device whose memory is counted.
        after: Memory of the step of an optimizer that follows.
        length: Number of calls.
    """
    columns = {category: column for column, category in enumerate(_CATEGORIES)}
    level = [0] * len(_CATEGORIES)
    level[columns[Category.OPTIMIZER]] = after.state
    highest: dict[int, tuple[int, ...]] = {}
    latest: dict[int, tuple[int, ...]] = {BEFORE: tuple(level)}
    elsewhere: set[int] = set()
    for call, storage, number in storages:
        if number is not None and storages.allocations[number].device != device:
            elsewhere.add(storage)
        if storage not in elsewhere:
            sign = -1 if number is None else 1
            level[columns[labels[storage].category]] += sign * labels[storage].nbytes
        latest[call] = row = tuple(level)
        if call not in highest or sum(row) > sum(highest[call]):
            highest[call] = row
    rows = []
    before = latest[BEFORE]
    for call in range(BEFORE, length + 1):
        rows.append(highest.get(call, before))
        before = latest.get(call, before)
    if after.temporaries:
        step = list(before)
        step[columns[Category.TEMPORARIES]] += after.temporaries
        rows[-1] = tuple(step)
    by_category = zip(_CATEGORIES, zip(*rows, strict=True), strict=True)
    return CategoryTimeline(tuple(range(BEFORE, length + 1)), dict(by_category))
