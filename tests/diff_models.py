"""Small models whose costs are short sums, for tests of differences."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

ROWS, WIDTH = 6, 8
"""Rows of the input, and the width of the blocks."""


class Attention(nn.Module):
    """Products of three projections: no softmax, so that costs are short sums."""

    def __init__(self, *, fused: bool = False, width: int = WIDTH) -> None:
        super().__init__()
        self.fused = fused
        if fused:
            self.qkv = nn.Linear(width, 3 * width, bias=False)
        else:
            self.q = nn.Linear(width, width, bias=False)
            self.k = nn.Linear(width, width, bias=False)
            self.v = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        product: torch.Tensor = q * k + v
        return product


class Wrapper(nn.Module):
    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, module)

    def forward(self, *args: Any) -> Any:
        return getattr(self, self.name)(*args)


class Lora(nn.Module):
    """A linear layer with a low-rank update beside it, named as peft does."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.base_layer(x) + self.lora_B(self.lora_A(x))
        return output


class MLP(nn.Module):
    """An MLP whose last layer has any name."""

    def __init__(self, name: str, width: int = WIDTH) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, width, bias=False)
        self.name = name
        self.add_module(name, nn.Linear(width, WIDTH, bias=False))

    def forward(self, x: torch.Tensor) -> Any:
        return getattr(self, self.name)(torch.relu(self.up(x)))


def stack(*, fused: bool = False, layers: int = 3) -> nn.Sequential:
    return nn.Sequential(*(Attention(fused=fused) for _ in range(layers)))


def lora(rank: int) -> nn.Module:
    model = stack()
    for block in model:
        assert isinstance(block, Attention)
        block.q = Lora(block.q, rank)  # type: ignore[assignment]  # as peft replaces a layer
    return model


def without(model: nn.Sequential, index: int) -> nn.Sequential:
    return nn.Sequential(*(module for i, module in enumerate(model) if i != index))


def mixed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.Identity(), nn.ReLU(), nn.Linear(8, 4))
