"""The CTC loss: its states follow from the longest sequence of labels, which may be a value."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphflops as gf

STEPS, BATCH, CLASSES, MOST = 7, 2, 6, 5


class Recognizer(nn.Module):
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(4, CLASSES)
        self.options = options

    def forward(self, x: torch.Tensor, labels: torch.Tensor, lengths: Any, taken: Any) -> Any:
        log_probs = self.linear(x).log_softmax(-1)
        return F.ctc_loss(log_probs, labels, lengths, taken, **self.options)


def _inputs(taken: Any = (3, 2), device: str = "cpu") -> tuple[Any, ...]:
    lengths = torch.full((BATCH,), STEPS) if isinstance(taken, torch.Tensor) else (STEPS,) * BATCH
    labels = torch.ones(BATCH, MOST, dtype=torch.int64, device=device)
    return torch.zeros(STEPS, BATCH, 4, device=device), labels, lengths, taken


def _cost(longest: int) -> tuple[int, int]:
    """FLOPs and transcendentals by hand: one cell a state and step, without the first step."""
    cells = BATCH * (STEPS - 1) * (2 * longest + 1)
    return 9 * cells + 6 * BATCH, 4 * cells + 3 * BATCH


def _of_the_loss(report: gf.Report) -> tuple[Any, Any]:
    (cost,) = (c for name, c in report.by_operator().items() if "ctc" in name)
    return cost.flops, cost.transcendentals


@pytest.mark.parametrize("taken", [(3, 2), torch.tensor([3, 2])], ids=["a list", "a tensor"])
def test_lengths_that_are_known(taken: Any) -> None:
    report = gf.count(Recognizer(reduction="none"), _inputs(taken))
    assert report.complete
    assert report.capture.data_sizes == ()
    assert _of_the_loss(report) == _cost(3)


def test_lengths_that_nobody_knows_are_the_largest() -> None:
    given = _inputs(torch.zeros(BATCH, dtype=torch.int64, device="meta"), "meta")
    report = gf.count(Recognizer(reduction="none"), given)
    assert _of_the_loss(report) == _cost(MOST)
    (size,) = report.capture.data_sizes
    assert (size.largest, size.operator) == (MOST, "aten::_ctc_loss")
    fewer = gf.count(Recognizer(reduction="none"), given, assume={size.name: 2})
    assert _of_the_loss(fewer) == _cost(2)


def test_a_step_is_priced_whole() -> None:
    report = gf.count_training(Recognizer(), _inputs(torch.tensor([3, 2])))
    assert report.complete
    backward = report.backward.by_operator()["aten::_ctc_loss_backward"]
    cells = BATCH * (STEPS - 1) * 7
    assert backward.flops == 15 * cells + 4 * STEPS * BATCH * CLASSES
    assert backward.transcendentals == 7 * cells + 2 * STEPS * BATCH * CLASSES


def test_states_are_as_many_as_in_a_real_run() -> None:
    x, labels, lengths, taken = _inputs()
    log_probs = x.new_zeros(STEPS, BATCH, CLASSES).log_softmax(-1)
    _, alpha = torch.ops.aten._ctc_loss.default(log_probs, labels, lengths, taken)
    assert alpha.shape == (BATCH, STEPS, 2 * 3 + 1)
