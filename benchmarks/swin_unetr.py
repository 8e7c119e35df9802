"""A Swin UNETR in plain torch: shifted windows in volumes, and a decoder of convolutions.

The calls are those of the network of the same name in MONAI, an attention bias gathered by
positions and a mask written region by region among them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn import functional

WINDOW = 7
_HEADS = (3, 6, 12, 24)


def _windows(x: torch.Tensor, window: Sequence[int]) -> torch.Tensor:
    """Return the windows of a volume, batch x depth x height x width x channels."""
    batch, *sizes, channels = x.shape
    split = [part for n, w in zip(sizes, window, strict=True) for part in (n // w, w)]
    windows = x.view(batch, *split, channels).permute(0, 1, 3, 5, 2, 4, 6, 7).contiguous()
    return windows.view(-1, window[0] * window[1] * window[2], channels)


def _volume(windows: torch.Tensor, window: Sequence[int], shape: Sequence[int]) -> torch.Tensor:
    """Return the volume of some windows."""
    counts = [n // w for n, w in zip(shape[1:4], window, strict=True)]
    x = windows.view(shape[0], *counts, *window, -1)
    return x.permute(0, 1, 4, 2, 5, 3, 6, 7).contiguous().view(*shape[:4], -1)


def _mask(
    sizes: Sequence[int], window: Sequence[int], shift: Sequence[int], device: torch.device
) -> torch.Tensor:
    """Return the mask that keeps regions apart which a shift has brought into one window."""
    regions = torch.zeros((1, *sizes, 1), device=device)
    parts = [
        (slice(-w), slice(-w, -s), slice(-s, None)) for w, s in zip(window, shift, strict=True)
    ]
    for number, (d, h, w) in enumerate(itertools.product(*parts)):
        regions[:, d, h, w, :] = number
    rows = _windows(regions, window).squeeze(-1)
    mask = rows.unsqueeze(1) - rows.unsqueeze(2)
    return mask.masked_fill(mask != 0, -100.0).masked_fill(mask == 0, 0.0)


def _fit(sizes: Sequence[int], *, is_shifted: bool) -> tuple[list[int], list[int]]:
    """Return window and shift of a volume, which may be smaller than a window."""
    window = [min(n, WINDOW) for n in sizes]
    return window, [WINDOW // 2 if is_shifted and n > WINDOW else 0 for n in sizes]


class _Attention(nn.Module):
    index: torch.Tensor

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.table = nn.Parameter(torch.empty((2 * WINDOW - 1) ** 3, heads))
        self.register_buffer("index", torch.empty(WINDOW**3, WINDOW**3, dtype=torch.int64))
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.drop = nn.Dropout(0.0)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        batch, n, width = x.shape
        qkv = self.qkv(x).reshape(batch, n, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        scores = (q * self.scale) @ k.transpose(-2, -1)
        bias = self.table[self.index.clone()[:n, :n].reshape(-1)].reshape(n, n, -1)
        scores = scores + bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            count = mask.shape[0]
            scores = scores.view(batch // count, count, self.heads, n, n)
            scores = (scores + mask.unsqueeze(1).unsqueeze(0)).view(-1, self.heads, n, n)
        mixed = self.drop(scores.softmax(-1)).to(v.dtype) @ v
        projected: torch.Tensor = self.proj(mixed.transpose(1, 2).reshape(batch, n, width))
        return projected


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, *, is_shifted: bool) -> None:
        super().__init__()
        self.is_shifted = is_shifted
        self.norm1, self.attn = nn.LayerNorm(width), _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        sizes = x.shape[1:4]
        window, shift = _fit(sizes, is_shifted=self.is_shifted)
        y = self.norm1(x)
        missing = [-n % w for n, w in zip(sizes, window, strict=True)]
        y = functional.pad(y, (0, 0, 0, missing[2], 0, missing[1], 0, missing[0]))
        shape = y.shape
        if any(shift):
            y = torch.roll(y, shifts=[-s for s in shift], dims=(1, 2, 3))
        windows = self.attn(_windows(y, window), mask if any(shift) else None)
        y = _volume(windows, window, shape)
        if any(shift):
            y = torch.roll(y, shifts=shift, dims=(1, 2, 3))
        if any(missing):
            y = y[:, : sizes[0], : sizes[1], : sizes[2], :].contiguous()
        x = x + y
        moved: torch.Tensor = x + self.mlp(self.norm2(x))
        return moved


class _Stage(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_Block(width, heads, is_shifted=s) for s in (False, True))
        self.norm, self.reduction = nn.LayerNorm(8 * width), nn.Linear(8 * width, 2 * width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.permute(0, 2, 3, 4, 1)
        window, shift = _fit(x.shape[1:4], is_shifted=True)
        padded = [-(-n // w) * w for n, w in zip(x.shape[1:4], window, strict=True)]
        mask = _mask(padded, window, shift, x.device)
        for block in self.blocks:
            x = block(x, mask)
        corners = itertools.product(range(2), repeat=3)
        x = torch.cat([x[:, i::2, j::2, k::2, :] for i, j, k in corners], -1)
        merged: torch.Tensor = self.reduction(self.norm(x)).permute(0, 4, 1, 2, 3)
        return merged


class _Residual(nn.Module):
    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(given, width, 3, padding=1, bias=False)
        self.conv2 = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.InstanceNorm3d(width), nn.InstanceNorm3d(width)
        self.act = nn.LeakyReLU(0.01, inplace=True)
        self.skip: nn.Module = nn.Identity()
        if given != width:
            skip = nn.Conv3d(given, width, 1, bias=False)
            self.skip = nn.Sequential(skip, nn.InstanceNorm3d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.act(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y += self.skip(x)
        result: torch.Tensor = self.act(y)
        return result


class _Up(nn.Module):
    def __init__(self, given: int, width: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose3d(given, width, 2, 2, bias=False)
        self.block = _Residual(2 * width, width)

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        block: Callable[..., torch.Tensor] = self.block
        return block(torch.cat((self.up(x), skip), 1))


class SwinUNETR(nn.Module):
    """Segmentation of volumes of one channel into two classes."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(5)]
        self.embed = nn.Conv3d(1, width, 2, 2)
        self.stages = nn.ModuleList(map(_Stage, widths, _HEADS))
        encoders = [(1, width), *((w, w) for w in (*widths[:3], widths[4]))]
        self.encoders = nn.ModuleList(_Residual(*pair) for pair in encoders)
        ups = [(2 * w, w) for w in reversed(widths[:4])] + [(width, width)]
        self.ups = nn.ModuleList(_Up(*pair) for pair in ups)
        self.head = nn.Conv3d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores of the classes."""
        hidden = [self.embed(x)]
        for stage in self.stages:
            hidden.append(stage(hidden[-1]))
        normed = [functional.layer_norm(h.movedim(1, -1), h.shape[1:2]) for h in hidden]
        hidden = [h.movedim(-1, 1) for h in normed]
        first, *others = self.encoders
        shallow = [encoder(h) for encoder, h in zip(others, hidden[:3], strict=False)]
        skips = [first(x), *shallow, hidden[3]]
        y = others[3](hidden[4])
        for up in self.ups:
            y = up(y, skips.pop())
        scores: torch.Tensor = self.head(y)
        return scores
