"""Repeated layers over many transformers types: the same report with and without."""

from __future__ import annotations

import pytest
from test_layer_reuse import reused

import graphflops as gf
from benchmarks.layer_reuse import TYPES, built


@pytest.mark.slow
@pytest.mark.parametrize("name", TYPES)
def test_records_of_a_type_are_the_same(name: str) -> None:
    workload = built(name)

    def count(reuse_layers: bool) -> gf.Report:
        return gf.count(
            workload.model,
            workload.args,
            workload.kwargs,
            reuse_layers=reuse_layers,
            on_unknown="ignore",
        )

    # How many are reused is a matter of speed.
    reused(count)
