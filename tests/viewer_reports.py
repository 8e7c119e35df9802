"""Reports of all kinds for viewers: with tied parameters, checkpoints, several runs and saved."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache

import torch
import transformers
from torch import nn
from torch.utils.checkpoint import checkpoint
from typing_extensions import override

import graphflops as gf
from graphflops.saving.files import AnyReport


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 64), nn.Linear(64, 16)

    @override
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.down(self.up(x).relu())
        return y


class Model(nn.Module):
    """Blocks of which all but the first are computed again, between tied ends."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(4))
        self.head = nn.Linear(16, 40, bias=False)
        self.head.weight = self.embed.weight

    @override
    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.blocks[0](self.embed(tokens))
        for block in self.blocks[1:]:
            x = checkpoint(block, x, use_reentrant=False) if self.training else block(x)
        y: torch.Tensor = self.head(x)
        return y


def tokens() -> torch.Tensor:
    return torch.zeros(2, 8, dtype=torch.int64)


def _forward() -> AnyReport:
    return gf.count(Model().eval(), (tokens(),))


def _training() -> AnyReport:
    return gf.count_training(
        Model(), (tokens(),), optimizer="adamw", gradient_accumulation_steps=3, steps=2
    )


def _generation(new_tokens: int, layers: int = 1) -> AnyReport:
    config = transformers.GPT2Config(n_layer=layers, n_embd=16, n_head=2, vocab_size=40)
    with torch.device("meta"):
        model = transformers.GPT2LMHeadModel(config).eval()
    return gf.count_generation(model, {"input_ids": tokens()}, max_new_tokens=new_tokens)


def _saved(report: AnyReport) -> AnyReport:
    with tempfile.TemporaryDirectory() as folder:
        gf.save(report, f"{folder}/report.json")
        return gf.load(f"{folder}/report.json")


KINDS: dict[str, Callable[[], AnyReport]] = {
    "forward": _forward,
    "training": _training,
    "one token": lambda: _generation(1),
    "two tokens": lambda: _generation(2),
    "generation": lambda: _generation(12, layers=3),
    "saved forward": lambda: _saved(_forward()),
    "saved training": lambda: _saved(_training()),
    "saved generation": lambda: _saved(_generation(12, layers=3)),
}


@cache
def report_of_kind(kind: str) -> AnyReport:
    return KINDS[kind]()
