"""Alignment of two sequences: a shortest edit script, in linear time for long ones.

difflib takes quadratic time where items repeat, as the calls of repeated layers do: 15,000 calls
of 300 equal layers against the same without one call in each take it minutes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import TypeAlias

_WORK = 2_000_000
"""Steps that aligning two sequences may take; it bounds the edits that are looked ahead."""
_FEWEST_EDITS = 16
"""Edits that are looked ahead, however long the sequences are."""

Pairs: TypeAlias = list[tuple[int, int]]
_Path: TypeAlias = "tuple[int, int, int, _Path] | None"
"""Runs of equal items, the last first: position in both, length, the runs before."""


def align(before: Sequence[Hashable], after: Sequence[Hashable]) -> Pairs:
    """Return the positions of items that stay, as pairs that increase in both sequences.

    Myers's algorithm (An O(ND) Difference Algorithm, 1986). Sequences that differ in more items
    than a window takes are aligned window by window: optimal within each, linear in total.

    Args:
        before: First sequence.
        after: Second sequence.

    Example:
        >>> align("abcd", "acxd")
        [(0, 0), (2, 1), (3, 3)]
    """
    shorter = min(len(before), len(after))
    head = 0
    while head < shorter and before[head] == after[head]:
        head += 1
    tail = 0
    while tail < shorter - head and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    end_before, end_after = len(before) - tail, len(after) - tail
    # An item that the other sequence lacks takes an edit wherever it stands: it is not looked at.
    items = set(before[head:end_before]), set(after[head:end_after])
    left = [i for i in range(head, end_before) if before[i] in items[1]]
    right = [j for j in range(head, end_after) if after[j] in items[0]]
    middle = _align_windows([before[i] for i in left], [after[j] for j in right])
    return [
        *((i, i) for i in range(head)),
        *((left[x], right[y]) for x, y in middle),
        *((end_before + i, end_after + i) for i in range(tail)),
    ]


def gaps(pairs: Pairs, sizes: tuple[int, int]) -> Iterator[tuple[range, range]]:
    """Yield the positions between aligned items, in both sequences.

    Args:
        pairs: Positions of aligned items.
        sizes: Lengths of the two sequences.

    Example:
        >>> list(gaps([(0, 0), (2, 1)], (3, 3)))
        [(range(1, 2), range(1, 1)), (range(3, 3), range(2, 3))]
    """
    i, j = 0, 0
    for next_i, next_j in (*pairs, sizes):
        if next_i > i or next_j > j:
            yield range(i, next_i), range(j, next_j)
        i, j = next_i + 1, next_j + 1


def _align_windows(before: Sequence[Hashable], after: Sequence[Hashable]) -> Pairs:
    most_edits = max(_WORK // (len(before) + len(after) + 1), _FEWEST_EDITS)
    pairs: Pairs = []
    i = j = 0
    while i < len(before) and j < len(after):
        window = _align_window(before[i:], after[j:], most_edits)
        pairs += [(i + x, j + y) for x, y in _unwound(window[2])]
        i, j = i + window[0], j + window[1]
    return pairs


def _align_window(
    before: Sequence[Hashable], after: Sequence[Hashable], most_edits: int
) -> tuple[int, int, _Path]:
    """Return how far two sequences are aligned with a number of edits, and the equal runs."""
    # By diagonal x - y, the furthest x that so many edits reach.
    frontier: dict[int, tuple[int, _Path]] = {1: (0, None)}
    for edits in range(most_edits + 1):
        for k in range(-edits, edits + 1, 2):
            if k == -edits or (k != edits and frontier[k - 1][0] < frontier[k + 1][0]):
                x, path = frontier[k + 1]
            else:
                x, path = frontier[k - 1][0] + 1, frontier[k - 1][1]
            start, y = x, x - k
            while x < len(before) and y < len(after) and before[x] == after[y]:
                x, y = x + 1, y + 1
            if x > start:
                path = (start, start - k, x - start, path)
            frontier[k] = (x, path)
            if x >= len(before) and y >= len(after):
                return len(before), len(after), path
    reached = [
        (x, x - k, path)
        for k, (x, path) in frontier.items()
        if x <= len(before) and 0 <= x - k <= len(after)
    ]
    return max(reached, key=lambda point: point[0] + point[1])


def _unwound(path: _Path) -> Pairs:
    runs = []
    while path is not None:
        x, y, length, path = path
        runs.append([(x + i, y + i) for i in range(length)])
    return [pair for run in reversed(runs) for pair in run]
