"""What a trace does not show: ways that a model takes without a value, operators nobody sees."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.utils._python_dispatch
from torch import nn

import graphflops as gf


class Careful(nn.Module):
    """Asks for a value of its result, and does without where there is none."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = nn.Linear(8, 8), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        try:
            return self.layer(x) if self.layer(x).sum() > 0 else x
        except RuntimeError:
            return self.other(x)


def test_a_model_that_does_without_a_value_is_noted() -> None:
    report = gf.count(Careful(), (torch.randn(2, 8),))
    assert any("the model caught the refusal" in note for note in report.capture.notes)
    plain = gf.count(nn.Linear(8, 8), (torch.randn(2, 8),))
    assert not plain.capture.notes


class Unseen(nn.Module):
    """Computes where no mode sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: torch.Tensor) -> Any:
        with torch.utils._python_dispatch._disable_current_modes():
            return self.layer(x)


def test_operators_that_nobody_sees_are_not_free() -> None:
    with pytest.raises(gf.CaptureError, match="none of them can be seen"):
        gf.count(Unseen(), (torch.randn(2, 8),))
    assert gf.count(nn.Identity(), (torch.randn(2, 8),)).flops == 0


class Logs(nn.Module):
    """Writes numbers down that only data can give."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> Any:
        y = self.layer(x)
        self.log = [float(y.max()), f"{y.min():.3f}", f"{y.mean()}"]
        return y


@pytest.mark.parametrize("count", [gf.count, gf.count_training])
def test_numbers_for_a_log_are_supposed_and_noted(count: Any) -> None:
    report = count(Logs(), (torch.randn(2, 8),))
    notes = (report.parts[0] if count is gf.count_training else report).capture.notes
    assert any("Numbers that only data can give" in note for note in notes)
    assert (report.forward if count is gf.count_training else report).macs == 2 * 8 * 4


def test_numbers_that_are_known_are_read() -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            return x * float(torch.arange(5.0).max()) * float(f"{torch.ones(()):.1f}")

    report = gf.count(Scaled(), (torch.randn(2, 8),))
    scales = [r.call.attrs["other"] for r in report.records if r.call.op == "aten::mul"]
    assert (scales, report.capture.notes) == ([4.0, 1.0], ())
