"""Random numbers of a count: those that the process would draw, which it then draws itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import graphflops as gf

random: Any = np.random


class Scaled(nn.Module):
    def forward(self, x: Any) -> Any:
        return x * float(random.rand())


@pytest.fixture
def other_algorithm() -> Iterator[None]:
    """NumPy draws by another algorithm than it does unasked."""
    before = random.get_bit_generator()
    random.set_bit_generator(random.PCG64(1))
    yield
    random.set_bit_generator(before)


@pytest.mark.usefixtures("other_algorithm")
def test_whatever_algorithm_numpy_draws_by() -> None:
    counts = [gf.count(Scaled(), (torch.zeros(2, 3),)) for _ in range(2)]
    drawn = [report.records[0].call.attrs["other"] for report in counts]
    assert drawn == [random.rand()] * 2


class Seeded(nn.Module):
    """Hashes with a seed of its own in each forward, as Reformer does in training."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        seed = torch.seed() % 7
        assert torch.manual_seed(seed).device.type == "cpu"
        return x * seed


def test_functions_that_seed_return_what_torchs_do() -> None:
    before = torch.initial_seed()
    assert gf.count(Seeded(), (torch.zeros(2, 3),)).flops == 2 * 3
    assert torch.initial_seed() == before
