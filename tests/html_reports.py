"""Reports that pages are made of in tests."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import torch
from torch import nn

import graphflops as gf

HOSTILE = (
    '<script>alert("1")</script>',
    '"><img src=x onerror=alert(2)>',
    "{{7*7}}`${1}`&amp;",
    "\u202e\x1b[2J\n",
)
WIDTH = 16
LAYERS = 5


class Layer(nn.Module):
    """A layer that repeats."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH, device="meta")
        self.up = nn.Linear(WIDTH, 4 * WIDTH, device="meta")
        self.down = nn.Linear(4 * WIDTH, WIDTH, device="meta")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = x + self.down(nn.functional.gelu(self.up(self.norm(x))))
        return y


class Stage(nn.Module):
    """Layers, and a head of its own: what repeats has repeats within."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Linear(WIDTH, WIDTH, device="meta")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        y: torch.Tensor = self.head(x)
        return y


class Stack(nn.Module):
    """Stages."""

    def __init__(self, stages: int = 2) -> None:
        super().__init__()
        self.stages = nn.Sequential(*(Stage() for _ in range(stages)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.stages(x)
        return y


class Named(nn.Module):
    """Modules whose names mean something in markup, in templates and in scripts."""

    def __init__(self) -> None:
        super().__init__()
        for name in HOSTILE:
            self.add_module(name, nn.Linear(WIDTH, WIDTH, device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for module in self.children():
            x = module(x)
        return x


def rows(count: int = 3) -> torch.Tensor:
    """Input of the models."""
    return torch.empty(count, WIDTH, device="meta")


@cache
def stack(stages: int = 2) -> gf.Report:
    """A forward pass with repeated layers."""
    return gf.count(Stack(stages), (rows(),))


@cache
def named() -> gf.Report:
    """A forward pass of modules with hostile names."""
    return replace(gf.count(Named(), (rows(),)), model="<b>bold</b>")


@cache
def symbolic() -> gf.Report:
    """A forward pass with a symbolic size."""
    return gf.count(Layer(), (rows(),), dynamic_shapes=({0: "B"},))


@cache
def trained() -> gf.TrainingReport:
    """A training step."""
    return gf.count_training(Stack(), (rows(),), optimizer="adamw")


@cache
def generated() -> gf.GenerationReport:
    """A generation of 8 tokens."""
    from transformers import AutoModelForCausalLM, LlamaConfig

    sizes = {"hidden_size": 64, "intermediate_size": 96, "vocab_size": 128}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 4}
    config: Any = LlamaConfig(**sizes, **heads)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    prompt = torch.zeros(1, 12, dtype=torch.long, device="meta")
    return gf.count_generation(model, {"input_ids": prompt}, max_new_tokens=8)
