"""Functions as models, so that one operator at a time can be counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import graphflops as gf


class Call(torch.nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def count(function: Callable[..., Any], *args: Any) -> gf.Report:
    """Count a function of tensors; every call in it must have a price."""
    report = gf.count(Call(function), args)
    assert not report.unsupported_ops()
    return report


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A tensor without data."""
    return torch.empty(*shape, dtype=dtype, device="meta")
