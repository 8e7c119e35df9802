"""Contiguous stages of balanced cost, against all ways to cut."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graphflops as gf
from graphflops.graph.stages import balanced_stages

numbers = st.lists(st.integers(0, 50), min_size=1, max_size=9)


def all_cuts(items: int, stages: int) -> Any:
    for cuts in itertools.combinations(range(1, items), stages - 1):
        yield [range(a, b) for a, b in itertools.pairwise((0, *cuts, items))]


@given(costs=numbers, transfers=numbers, data=st.data())
def test_no_other_cut_is_better(costs: list[int], transfers: list[int], data: Any) -> None:
    transfers = (transfers * 9)[: len(costs)]
    stages = data.draw(st.integers(1, len(costs)))
    slack = data.draw(st.sampled_from([0.0, 0.25, 1.0]))

    def largest(ranges: list[range]) -> int:
        return max(sum(costs[i] for i in part) for part in ranges)

    def crossing(ranges: list[range]) -> int:
        return sum(transfers[part.start] for part in ranges[1:])

    ways = list(all_cuts(len(costs), stages))
    allowed = min(map(largest, ways)) * (1 + slack)
    found = list(balanced_stages(costs, stages, transfers, slack))
    assert [i for part in found for i in part] == list(range(len(costs)))
    assert len(found) == stages
    assert all(found)
    assert largest(found) <= allowed
    assert crossing(found) == min(crossing(way) for way in ways if largest(way) <= allowed)
    if slack == 0:
        assert largest(list(balanced_stages(costs, stages))) == min(map(largest, ways))


@pytest.mark.parametrize(("costs", "stages"), [([], 1), ([1, 2], 3), ([1], 0), ([1, -1], 1)])
def test_what_cannot_be_cut_is_refused(costs: list[int], stages: int) -> None:
    with pytest.raises(gf.ModelSpecError, match="cannot be cut into"):
        balanced_stages(costs, stages)
