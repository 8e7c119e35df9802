"""Contiguous stages of balanced cost: where to cut a sequence of operators, or of layers."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from graphflops.core.ir import OpRecord
from graphflops.errors import ModelSpecError
from graphflops.graph.critical_path import Weight, weight_function
from graphflops.graph.dataflow import Use


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Contiguous calls of a graph.

    Attributes:
        records: Their records.
        weight: Sum of their weights.
        bytes_in: Bytes of the tensors that earlier stages compute and it or a later one uses.
    """

    records: tuple[OpRecord, ...]
    weight: int
    bytes_in: int


def cut_into_stages(
    records: Sequence[OpRecord], uses: Sequence[Use], count: int, by: Weight, slack: float
) -> tuple[Stage, ...]:
    """Cut the records of a graph into stages of balanced weight."""
    weights = list(map(weight_function(by), records))
    crossing = _crossing_bytes(len(records), uses)
    return tuple(
        Stage(
            records=tuple(records[part.start : part.stop]),
            weight=sum(weights[part.start : part.stop]),
            bytes_in=crossing[part.start],
        )
        for part in balanced_stages(weights, count, crossing, slack)
    )


def _crossing_bytes(length: int, uses: Sequence[Use]) -> list[int]:
    """Return the bytes of the tensors that cross a cut before each call."""
    lifetimes: dict[tuple[int, str], tuple[int, int]] = {}
    for use in uses:
        if use.producer is not None:
            key = use.producer, use.tensor.name
            nbytes, _ = lifetimes.get(key, (use.tensor.nbytes, 0))
            lifetimes[key] = int(nbytes), use.consumer
    changes = [0] * (length + 1)
    for (producer, _), (nbytes, last) in lifetimes.items():
        changes[producer + 1] += nbytes
        changes[last + 1] -= nbytes
    return list(accumulate(changes))[:length]


def balanced_stages(
    costs: Sequence[int],
    stages: int,
    transfers: Sequence[int] | None = None,
    slack: float = 0.0,
) -> tuple[range, ...]:
    """Cut a sequence of costs into contiguous stages whose largest cost is the least possible.

    Args:
        costs: Costs of the items in order, each 0 or more.
        stages: Number of stages, each of at least one item.
        transfers: Costs of a cut before each item, such as the bytes that cross it; of the
            admissible cuts those with the least sum are taken. By default all cuts cost the same.
        slack: Share by which the largest cost may exceed the least possible one.

    Returns:
        Indices of the items in each stage.

    Raises:
        ModelSpecError: There are fewer items than stages, or a number is negative.

    Example:
        >>> balanced_stages([3, 1, 1, 4, 2], 2)
        (range(0, 3), range(3, 5))
    """
    if not 1 <= stages <= len(costs) or min(costs) < 0 or slack < 0:
        msg = (
            f"{len(costs)} items cannot be cut into {stages} stages with a slack of {slack}. Ask "
            "for 1 to as many stages as there are items, with costs and a slack of 0 or more."
        )
        raise ModelSpecError(msg)
    ends = [0, *accumulate(costs)]
    largest = int(_least_maximum(costs, ends, stages) * (1 + slack))
    cuts = _cheapest_cuts(ends, stages, largest, transfers or [0] * len(costs))
    return tuple(range(start, stop) for start, stop in pairwise((0, *cuts, len(costs))))


def _least_maximum(costs: Sequence[int], ends: Sequence[int], stages: int) -> int:
    """Return the least possible cost of the most expensive stage."""
    low, high = max(costs), ends[-1]
    while low < high:
        middle = (low + high) // 2
        if _stages_needed(ends, middle) <= stages:
            high = middle
        else:
            low = middle + 1
    return low


def _stages_needed(ends: Sequence[int], largest: int) -> int:
    """Return the number of stages if each is as long as a largest cost allows."""
    start, stages = 0, 0
    while start < len(ends) - 1:
        start = bisect_right(ends, ends[start] + largest) - 1
        stages += 1
    return stages


def _cheapest_cuts(
    ends: Sequence[int], stages: int, largest: int, transfers: Sequence[int]
) -> list[int]:
    """Return the cuts with the least sum of transfers among those that keep to a largest cost."""
    items = len(ends) - 1
    # Least sum of transfers for the items before each index, for one stage, then two, ...
    sums: list[int | None] = [
        0 if index and end <= largest else None for index, end in enumerate(ends)
    ]
    origins: list[list[int]] = []
    for _ in range(stages - 1):
        sums, origin = _add_stage(ends, sums, largest, transfers)
        origins.append(origin)
    cuts, stop = [], items
    for origin in reversed(origins):
        stop = origin[stop]
        cuts.append(stop)
    return cuts[::-1]


def _add_stage(
    ends: Sequence[int], sums: Sequence[int | None], largest: int, transfers: Sequence[int]
) -> tuple[list[int | None], list[int]]:
    """Return the least sums with one more stage, and the index at which that stage begins."""
    items = len(ends) - 1
    added: list[int | None] = [None] * (items + 1)
    origin = [0] * (items + 1)
    window: deque[tuple[int, int]] = deque()  # sums in ascending order, with their index
    for stop in range(2, items + 1):
        start = stop - 1
        if (before := sums[start]) is not None:
            total = before + transfers[start]
            while window and window[-1][0] >= total:
                window.pop()
            window.append((total, start))
        first = bisect_left(ends, ends[stop] - largest)
        while window and window[0][1] < first:
            window.popleft()
        if window:
            added[stop], origin[stop] = window[0]
    return added, origin
