"""Models whose calls do not repeat, or repeat in ways of their own, on meta with their inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.swin_unetr import SwinUNETR
from graphflops.models.workload import Workload


class _Additions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4000):
            x = x + self.bias
        return x


class _Again(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(256, 4, 512, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(60):
            x = self.layer(x)
        return x


class _Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        experts = (nn.Sequential(nn.Linear(64, 128), nn.ReLU()) for _ in range(512))
        self.experts = nn.ModuleList(experts)

    def forward(self, x: torch.Tensor) -> Any:
        return sum(expert(x) for expert in self.experts)


class _Adapted(nn.Module):
    """Linear with a low-rank adapter, in the containers of PEFT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.base_layer = nn.Linear(width, width)
        self.lora_dropout = nn.ModuleDict({"default": nn.Identity()})
        self.lora_A = nn.ModuleDict({"default": nn.Linear(width, 8, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(8, width, bias=False)})
        self.lora_embedding_A = nn.ParameterDict()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.lora_A["default"](self.lora_dropout["default"](x))
        adapted: torch.Tensor = self.base_layer(x) + 2.0 * self.lora_B["default"](low)
        return adapted


class _Adapters(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleList(_Adapted(256) for _ in range(4)) for _ in range(32)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            q, k, v, o = layer.children()
            x = x + o(functional.scaled_dot_product_attention(q(x), k(x), v(x)))
        return x


class _Mamba(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.decay = nn.Parameter(torch.empty(64, 16))
        self.b, self.c, self.step = nn.Linear(64, 16), nn.Linear(64, 16), nn.Linear(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = x.new_zeros(x.shape[0], 64, 16)
        outputs = []
        for t in range(self.steps):
            u = x[:, t]
            step = functional.softplus(self.step(u))
            update = step[..., None] * self.b(u)[:, None] * u[..., None]
            state = torch.exp(step[..., None] * self.decay) * state + update
            outputs.append((state * self.c(u)[:, None]).sum(-1))
        return torch.stack(outputs, 1)


class _Recurrent(nn.Module):
    """LSTM written as a loop over steps."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(64, 64)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state = (x.new_zeros(x.shape[0], 64), x.new_zeros(x.shape[0], 64))
        outputs = []
        for step in x.unbind(1):
            state = self.cell(step, state)
            outputs.append(state[0])
        return torch.stack(outputs, 1)


class _Tree(nn.Module):
    """Binary tree of modules, Linears at its leaves."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        parts = (_Tree(depth - 1) if depth > 1 else nn.Linear(32, 32) for _ in range(2))
        self.left, self.right = parts

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both: torch.Tensor = self.left(x) + self.right(x)
        return both


def _block(given: int, width: int) -> nn.Sequential:
    parts: list[nn.Module] = []
    for channels in (given, width):
        conv = nn.Conv2d(channels, width, 3, padding=1)
        parts += [conv, nn.GroupNorm(8, width), nn.SiLU()]
    return nn.Sequential(*parts)


class _UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (32, 64, 128, 256)
        pairs = list(zip((3, *widths), widths, strict=False))
        self.down = nn.ModuleList(_block(*pair) for pair in pairs)
        self.up = nn.ModuleList(_block(a + b, a) for a, b in reversed(pairs[1:]))
        self.head = nn.Conv2d(32, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips: list[torch.Tensor] = []
        for block in self.down:
            x = block(functional.max_pool2d(x, 2) if skips else x)
            skips.append(x)
        for block, skip in zip(self.up, reversed(skips[:-1]), strict=True):
            x = block(torch.cat([functional.interpolate(x, scale_factor=2.0), skip], 1))
        image: torch.Tensor = self.head(x)
        return image


def _linears() -> nn.Module:
    return nn.Sequential(*(nn.Linear(64 + i, 65 + i) for i in range(400)))


def _convolutions() -> nn.Module:
    layers: list[nn.Module] = []
    for width in range(16, 216):
        conv = nn.Conv2d(width, width + 1, 3, padding=1)
        layers += [conv, nn.BatchNorm2d(width + 1), nn.ReLU()]
    return nn.Sequential(*layers)


def _workload(build: Callable[[], nn.Module], *shape: int) -> Callable[[], Workload]:
    def make() -> Workload:
        with torch.device("meta"):
            return Workload(model=build().eval(), args=(torch.empty(shape),))

    return make


MODELS: dict[str, Callable[[], Workload]] = {
    "400 different Linears": _workload(_linears, 8, 64),
    "200 different conv-bn-relu": _workload(_convolutions, 2, 16, 32, 32),
    "a transformer layer called 60 times": _workload(_Again, 2, 64, 256),
    "512 experts of two calls in a loop": _workload(_Experts, 4, 64),
    "LoRA on 32 layers": _workload(_Adapters, 2, 64, 256),
    "a tree of 4,095 modules": _workload(lambda: _Tree(11), 4, 32),
    "LSTM of 2,048 steps": _workload(_Recurrent, 2, 2048, 64),
    "Mamba of 256 steps": _workload(lambda: _Mamba(256), 2, 256, 64),
    "Mamba of 1,024 steps": _workload(lambda: _Mamba(1024), 2, 1024, 64),
    "4,000 additions": _workload(_Additions, 8),
    "UNet, 64x64": _workload(_UNet, 1, 3, 64, 64),
    "SwinUNETR, 64x64x64": _workload(SwinUNETR, 1, 1, 64, 64, 64),
}
"""Functions that return a model on meta with its inputs, by title."""
