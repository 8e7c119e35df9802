"""Counts in inference mode, in which tensors have no version, and of models that enter it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphflops as gf


class Routed(nn.Module):
    """Layers that write in place, choose, negate a mask and ask for the mode of gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True), nn.Linear(8, 8), nn.GELU())
            for _ in range(4)
        )
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: torch.Tensor) -> Any:
        for block in self.blocks:
            x = x + block(x)
        x = self.norm(x).mul_(2)
        chosen = torch.topk(x, 2, -1).indices
        # Of each row, the two of eight columns that were chosen, and the other six.
        mask = F.one_hot(chosen, 8).sum(1).bool()
        sorted_by_choice = torch.cat([mask, ~mask]).nonzero()
        return x[sorted_by_choice[:, 0] % len(x)] @ x.T if not torch.is_grad_enabled() else x


def _figures(report: gf.Report) -> Any:
    records = [(r.call.op, r.call.outputs, str(r.cost)) for r in report.records]
    return records, report.capture.layer_reuse, report.capture.notes


class Entering(Routed):
    """Enters the mode, and leaves it for a part."""

    @torch.inference_mode()
    def forward(self, x: torch.Tensor) -> Any:
        y = super().forward(x)
        with torch.inference_mode(mode=False):
            assert torch.is_grad_enabled()
        return y


@pytest.mark.parametrize("training", [False, True])
def test_a_count_is_what_it_is_without_gradients(training: bool) -> None:
    model, x = Routed().train(training), torch.randn(6, 8)
    with torch.no_grad():
        expected = _figures(gf.count(model, (x,)))
    with torch.inference_mode():
        assert _figures(gf.count(model, (x,))) == expected
        assert _figures(gf.count(model, (torch.randn(6, 8),))) == expected
        assert torch.is_inference_mode_enabled()
    assert torch.is_grad_enabled()


def test_a_model_may_enter_the_mode() -> None:
    model, x = Routed().eval(), torch.randn(6, 8)
    with torch.no_grad():
        expected = _figures(gf.count(model, (x,)))
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            assert _figures(gf.count(Entering().eval(), (x,))) == expected
            assert torch.is_grad_enabled() is grad


def test_a_derivative_in_the_mode_is_refused_as_torch_does() -> None:
    class Forces(nn.Module):
        def forward(self, x: torch.Tensor) -> Any:
            x = x.clone().requires_grad_()
            return torch.autograd.grad((x * x).sum(), x)[0]

    x = torch.zeros(5, 8)
    assert gf.count(Forces(), (x,)).total.flops
    with torch.inference_mode(), pytest.raises(RuntimeError):
        Forces()(x)
    with torch.inference_mode(), pytest.raises(gf.CaptureError, match="nference"):
        gf.count(Forces(), (x,))
