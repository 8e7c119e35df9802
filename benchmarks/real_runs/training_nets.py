"""Nets that training steps are made of: a forward that is a function of three layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.real_runs.training import Build, step

Function = Callable[..., Any]


def asked(*shape: int) -> torch.Tensor:
    """An input whose gradient is asked for."""
    return torch.randn(*shape).requires_grad_()


class Net(nn.Module):
    """Three linear layers, and a forward that is a function of them and the inputs."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function
        self.a, self.b, self.c = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, *args: Any) -> Any:
        """Hand it all to the function."""
        return self.function(self, *args)


def net_of(function: Function, *shape: int, ask: bool = False) -> Build:
    """A step of a net with an input, whose gradient may be asked for."""
    return lambda: step(Net(function), (asked if ask else torch.randn)(*(shape or (4, 8))))


def autocast() -> torch.autocast:
    """Half precision where it is safe."""
    return torch.autocast("cpu", dtype=torch.bfloat16)
