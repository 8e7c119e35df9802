"""Repeated layers over many transformers types: the same report with and without."""

from __future__ import annotations

import pytest
from test_regions import reused

import graphflops as gf
from benchmarks.regions import TYPES, built


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_records_of_a_type_are_the_same(name: str) -> None:
    workload = built(name)

    def count(regions: bool) -> gf.Report:
        return gf.count(
            workload.model, workload.args, workload.kwargs, regions=regions, on_unknown="ignore"
        )

    # How many are reused is a matter of speed.
    reused(count)
