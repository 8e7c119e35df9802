"""Counts against real runs: the sweeps of benchmarks.real_runs, small, and their oracle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks.real_runs import generation, generation_cases, page, training, training_cases
from benchmarks.real_runs.comparison import verdict
from benchmarks.real_runs.counting_mode import Contractions, CountingMode, flop_counter, gaps
from benchmarks.results import rows_of

pytestmark = pytest.mark.filterwarnings("ignore")
EQUAL = {"equal", "gap"}

z = torch.randn


def _backward(loss: torch.Tensor) -> None:
    loss.sum().backward()  # type: ignore[no-untyped-call]  # torch's gap


@pytest.mark.parametrize(
    ("run", "macs"),
    [
        (lambda: z(2, 3, 4) @ z(4, 5), 2 * 3 * 4 * 5),
        (lambda: z(3, 4) @ z(4), 3 * 4),
        (lambda: torch.dot(z(7), z(7)), 7),
        (lambda: torch.baddbmm(z(2, 3, 5), z(2, 3, 4), z(2, 4, 5)), 2 * 3 * 4 * 5),
        (lambda: F.conv2d(z(2, 4, 8, 8), z(6, 2, 3, 3), groups=2), 2 * 6 * 6 * 6 * 2 * 9),
        (lambda: F.conv_transpose1d(z(2, 4, 8), z(4, 3, 5), groups=2), 2 * 4 * 8 * 3 * 5),
        (
            # For the input and for the weight, each what the forward does: 3 times in all.
            lambda: _backward(
                nn.Conv1d(4, 6, 3, groups=2)(z(2, 4, 10, requires_grad=True)),
            ),
            3 * (2 * 6 * 8) * 2 * 3,
        ),
        (
            # Scores again, and two products for each of the two: 2 + 5 of 2 x 3 heads x 5 x 7 x 8.
            lambda: _backward(
                F.scaled_dot_product_attention(
                    z(2, 3, 5, 8, requires_grad=True),
                    z(2, 3, 7, 8, requires_grad=True),
                    z(2, 3, 7, 8),
                )
            ),
            7 * 2 * 3 * 5 * 7 * 8,
        ),
        (lambda: nn.Bilinear(5, 6, 7)(z(4, 5), z(4, 6)), 4 * 7 * 5 * 6 + 4 * 7 * 6),
        (lambda: torch.cdist(z(30, 8), z(40, 8)), 30 * 40 * (8 + 2)),
        (lambda: (z(3, 4) + 1).exp().sum(), 0),
    ],
)
def test_the_oracle_counts_what_kernels_contract(run: Callable[[], Any], macs: int) -> None:
    with CountingMode() as mode:
        run()
    assert mode.found.total == macs
    assert not mode.found.unpriced


def test_a_kernel_without_arithmetic_is_named() -> None:
    layer = nn.LSTM(4, 5)
    with torch.no_grad(), CountingMode() as mode:
        layer(z(3, 2, 4))
    assert mode.found.unpriced
    assert verdict(mode.found, {}, equal=True, complete=True) == "oracle"


def test_the_difference_of_flop_counter_mode_is_told_by_operator() -> None:
    with flop_counter() as counter, CountingMode() as mode:
        z(3, 4) @ z(4)
        z(3, 4) @ z(4, 5)
    assert gaps(mode.found, counter) == {"mv": (2 * 3 * 4, 0)}


@pytest.mark.parametrize(
    ("apart", "equal", "complete", "expected"),
    [
        ({}, True, True, "equal"),
        ({"mv": (2, 0)}, True, True, "gap"),
        ({"mm": (2, 0)}, True, True, "oracle"),  # no gap that is known
        ({}, False, True, "differs"),
        ({}, False, False, "incomplete"),
    ],
)
def test_each_difference_has_a_class(
    apart: dict[str, tuple[int, int]], equal: bool, complete: bool, expected: str
) -> None:
    assert verdict(Contractions(), apart, equal=equal, complete=complete) == expected


def test_the_page_has_a_line_for_each_case_that_differs() -> None:
    text = page.render()
    for path in page.RESULTS.values():
        rows = rows_of(path)[1] if path.exists() else []
        for row in rows:
            assert (f"`{row['name']}`" in text) == (row["outcome"] not in page.COMPARED)


STEPS = (
    *("dense/bilinear", "convolutions/transposed 2d, groups", "recurrent/LSTM, bidirectional"),
    *("attention/scaled dot product, grouped queries", "checkpoints/reentrant, nested"),
    *("checkpoints/selective, products kept", "functions/own backward, for what is asked"),
    *("hooks/after a gradient is summed", "frozen/every other", "precision/autocast inside"),
    *("transformers/t5, checkpoints", "adapters/DoRA"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_what_autograd_runs(name: str) -> None:
    row = training.examine(training_cases.CASES[name])
    assert row["outcome"] in EQUAL, row


GENERATIONS = (
    *("causal/llama", "causal/gemma2", "causal/deepseek_v3", "hybrid/mamba2"),
    *("encoder-decoder/t5", "vision/llava", "audio/whisper"),
)


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATIONS)
def test_a_generation_is_what_generate_runs(name: str) -> None:
    runs = [run for run in generation.RUNS if run.batch > 1 and not run.static]
    row = generation.examine(generation_cases.CASES[name], runs)
    assert row["outcome"] in EQUAL, row
