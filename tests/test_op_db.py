"""Every operator that PyTorch tests itself with: priced, and priced like its reference."""

from __future__ import annotations

import pytest
from op_db import (
    COUNTABLE,
    DIFFERENT,
    NOT_TRACEABLE,
    OPINFOS,
    Trained,
    check,
    differentiable,
    dtype_of,
    samples,
)

import graphflops as gf


def _holds(name: str, most: int) -> None:
    outcome = check(OPINFOS[name], most)
    assert not outcome.failed
    assert not outcome.unknown
    if name not in DIFFERENT:
        assert not outcome.different


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COUNTABLE)
def test_priced_like_the_reference(name: str) -> None:
    _holds(name, most=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", COUNTABLE)
def test_priced_like_the_reference_on_many_samples(name: str) -> None:
    _holds(name, most=10)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in COUNTABLE if OPINFOS[name].supports_autograd])
def test_all_of_its_backward_is_priced(name: str) -> None:
    for sample in filter(differentiable, samples(OPINFOS[name], most=3)):
        assert not gf.count_training(Trained(sample), on_unknown="ignore").unsupported_ops()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", DIFFERENT)
def test_a_listed_difference_is_one(name: str) -> None:
    assert check(OPINFOS[name], most=10).different


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in NOT_TRACEABLE if dtype_of(OPINFOS[name])])
def test_what_is_listed_as_not_traceable_is_not(name: str) -> None:
    assert check(OPINFOS[name], most=10).failed


def test_differences_are_few() -> None:
    # Those of one function in several forms count once.
    assert len({name.partition(".chunked")[0] for name in DIFFERENT}) <= 0.05 * len(OPINFOS)
    assert set(DIFFERENT) | set(NOT_TRACEABLE) <= set(OPINFOS)
