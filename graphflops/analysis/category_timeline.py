"""Memory by category over the calls of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from graphflops.analysis.live_tensors import Category, LiveTensor
from graphflops.analysis.optimizer_memory import OptimizerMemory
from graphflops.core.storage_events import BEFORE, StorageEvents

_CATEGORIES = tuple(Category)


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

    def highest(self, points: int) -> list[int]:
        """Return positions to draw: of equal ranges the highest each, and both ends.

        Args:
            points: Number of ranges: about one for each pixel of a curve's width.
        """
        totals = self.totals
        count = len(totals)
        bins = groupby(range(count), key=lambda i: i * points // count)
        return sorted({0, *(max(group, key=totals.__getitem__) for _, group in bins), count - 1})


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
    for call, storage, allocation in storages:
        label = labels[storage]
        if label.device == device:
            level[columns[label.category]] += label.nbytes * (-1 if allocation is None else 1)
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
