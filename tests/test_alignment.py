"""Alignment of sequences: order is kept, and nearly all that can stay stays."""

from __future__ import annotations

import pytest

from graphflops.analysis.alignment import align


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ("", "", 0),
        ("abc", "", 0),
        ("abc", "abc", 3),
        ("abcabba", "cbabac", 4),  # Myers's own example
        ("abab" * 50, "aba" * 50, 150),
        ("abc" * 2000, "xbc" * 2000, 4000),
    ],
)
def test_an_alignment_keeps_order_and_most_items(before: str, after: str, kept: int) -> None:
    pairs = align(before, after)
    assert all(before[i] == after[j] for i, j in pairs)
    assert pairs == sorted(pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs) == kept


def test_a_long_sequence_with_much_inserted_is_aligned_nearly_whole() -> None:
    before = [i % 25 for i in range(6000)]
    after = [*before[:2000], *range(300), *before[2000:5000], 7, *before[5000:]]
    assert len(align(before, after)) > 5900
