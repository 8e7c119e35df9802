"""Memory in closed form: against fresh counts, and the largest sizes that fit."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import sympy
import torch
from architectures import ARCHITECTURES, at_depth
from hypothesis import given, settings
from hypothesis import strategies as st
from test_generate_loop import TEXT, built
from torch import nn

import graphflops as gf
from benchmarks.memory_closed_form import compare
from graphflops.analysis.devices import device
from graphflops.analysis.largest_size import largest_size, parse_capacity
from graphflops.analysis.storage_levels import _without_covered
from graphflops.core.call_lookup import CallLookup, first_index
from graphflops.errors import ModelSpecError, UnboundSymbolError

BATCH = {0: "B"}


def tokens(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, dtype=torch.int64, device="meta")


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", ["llama", "bert", "resnet"])
def test_the_peak_is_that_of_fresh_counts(name: str, trained: bool) -> None:
    with at_depth(1):
        case = ARCHITECTURES[name]()
    assert compare(case.model, case.inputs, (2, 100), trained=trained)["differs"] == []


def test_by_hand() -> None:
    model = nn.Sequential(*(nn.Linear(8, 8, bias=False, device="meta") for _ in range(2)))
    report = gf.count(model, (torch.empty(4, 8),), dynamic_shapes=(BATCH,))
    # Input, the result of the first layer, that of the second: 8 floats a row each.
    assert str(report.memory.peak) == "96*B + 512"
    assert report.memory.subs(B=3).by_category()["parameters"] == 2 * 8 * 8 * 4
    with pytest.raises(UnboundSymbolError, match="B are symbols: bind them by subs"):
        _ = report.memory.at_peak
    assert report.memory.largest("B", fits=512 + 96 * 5 + 95) == 5


def test_training_peaks_where_the_batch_says() -> None:
    model = nn.Sequential(nn.Linear(1000, 1000, bias=False, device="meta"), nn.Tanh())
    report = gf.count_training(
        model, (torch.empty(4, 1000),), dynamic_shapes=(BATCH,), optimizer="adamw"
    )
    small, large = report.subs(B=2).memory, report.subs(B=10**6).memory
    assert isinstance(report.memory.peak, sympy.Max)
    assert (small.call, large.call < small.call) == (len(report.records), True)


def test_several_symbols() -> None:
    model = built("LlamaForCausalLM", **TEXT)
    axes = {"input_ids": {0: "B", 1: "S"}}
    report = gf.count(model, (), {"input_ids": tokens(2, 16)}, dynamic_shapes=axes)
    with pytest.raises(UnboundSymbolError, match="the largest B depends on S too"):
        report.memory.largest("B", fits="1GB")
    bound = report.subs(S=64).memory
    batch = bound.largest("B", fits="1GB")
    assert bound.subs(B=batch).peak <= 10**9 < bound.subs(B=batch + 1).peak
    fresh = gf.count(model, (), {"input_ids": tokens(batch, 64)})
    assert fresh.memory.peak == bound.subs(B=batch).peak


@pytest.mark.parametrize("size", ["B", "P", "N"])
def test_the_largest_generation(size: str) -> None:
    model = built("LlamaForCausalLM", **TEXT)
    report = gf.count_generation(model, {"input_ids": tokens(1, 16)}, max_new_tokens=8)
    found = report.memory.largest(size, fits="2MB")
    assert report.subs(**{size: found}).memory.peak <= 2 * 10**6
    assert report.subs(**{size: found + 1}).memory.peak > 2 * 10**6


@pytest.mark.parametrize(
    ("size", "fits", "sentence"),
    [
        ("Q", "80GB", "no function of 'Q'. Its symbols: B."),
        ("B", "80XB", "'80XB' is no device known here"),
        ("B", 0, "0 bytes is no memory"),
        ("B", "1kB", r"with B = 1 the peak is 0.00 GB, which is more .* 0.00 GB of parameters"),
    ],
)
def test_bad_input(size: str, fits: Any, sentence: str) -> None:
    model = nn.Linear(100, 100, device="meta")
    report = gf.count(model, (torch.empty(2, 100),), dynamic_shapes=(BATCH,))
    with pytest.raises(ModelSpecError, match=sentence):
        report.memory.largest(size, fits=fits)


def test_numbers_have_no_largest_size() -> None:
    report = gf.count(nn.ReLU(), (torch.empty(2),))
    with pytest.raises(ModelSpecError, match="none, so count with symbolic sizes"):
        report.memory.largest("B", fits="1GB")


@pytest.mark.parametrize(
    ("capacity", "nbytes"),
    [
        (7, 7),
        ("80GB", 80 * 10**9),
        ("80 gb", 80 * 10**9),
        ("80GiB", 80 * 2**30),
        ("1.5kB", 1500),
        ("t4", device("t4").memory),
        (device("h100"), device("h100").memory),
    ],
)
def test_capacities(capacity: Any, nbytes: int) -> None:
    assert parse_capacity(capacity) == nbytes


@settings(deadline=None)
@given(
    slope=st.integers(1, 10**6),
    base=st.integers(0, 10**9),
    fits=st.integers(1, 10**10),
    multiple=st.sampled_from([1, 2, 8]),
    most=st.sampled_from([10**3, 10**9]),
)
def test_the_largest_size_fits_and_the_graph_holds_for_it(
    slope: int, base: int, fits: int, multiple: int, most: int
) -> None:
    def peak_at(size: int) -> int:
        if size % multiple or size > most:
            raise ModelSpecError("the graph does not hold")
        return base + slope * size

    by_hand = min((fits - base) // slope, most) // multiple * multiple
    assert largest_size(peak_at, fits) == (by_hand if by_hand > 0 else None)


@settings(deadline=None)
@given(
    rows=st.lists(st.tuples(*[st.integers(0, 50)] * 3), min_size=1, max_size=20, unique=True),
    x=st.integers(1, 100),
    y=st.integers(1, 100),
)
def test_levels_left_out_are_never_the_highest(
    rows: list[tuple[int, int, int]], x: int, y: int
) -> None:
    def highest(of: Any) -> int:
        return max(int(a) + int(b) * x + int(c) * y for a, b, c in of)

    assert highest(_without_covered([np.array(row) for row in rows])) == highest(rows)


@cache
def bert_step() -> gf.TrainingReport:
    with at_depth(3):
        case = ARCHITECTURES["bert"]()
    return gf.count_training(case.model, (), case.inputs)


@settings(deadline=None)
@given(data=st.data())
def test_calls_are_found_by_their_indices(data: st.DataObject) -> None:
    for part in (bert_step().forward, bert_step().backward):
        by_index = {record.call.index: record for record in part.records}
        wanted = data.draw(st.sets(st.sampled_from([*by_index, -1, 10**6]), max_size=40))
        found = CallLookup(part.records).find(wanted)
        assert found == {index: by_index[index] for index in wanted if index in by_index}
        assert first_index(part.records) == min(by_index)
