"""Functional operators that generated models are made of, by the rank of what they take."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F  # noqa: N812 - what everybody calls it
from torch import nn

Function: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


class Applied(nn.Module):
    """A function of a tensor as a layer."""

    def __init__(self, name: str, function: Function) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """What the function makes of ``x``."""
        return self.function(x)

    def extra_repr(self) -> str:
        """The function's name."""
        return self.name


def _attended(x: torch.Tensor, *, causal: bool = False, masked: bool = False) -> torch.Tensor:
    q = x.unsqueeze(1)
    seen = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).tril()
    mask = seen if masked else None
    return F.scaled_dot_product_attention(q, q, q, attn_mask=mask, is_causal=causal).squeeze(1)


def _grouped_queries(x: torch.Tensor) -> torch.Tensor:
    q, kv = torch.stack([x, x], 1), x.unsqueeze(1)
    return F.scaled_dot_product_attention(q, kv, kv, enable_gqa=True).mean(1)


def _written_in_place(x: torch.Tensor) -> torch.Tensor:
    y = x.clone()
    y[:, :1] = 1.0
    y += 2
    return y.mul_(x).relu_()


def _zeros(x: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(x, dtype=torch.int64)


def _sampled(x: torch.Tensor) -> torch.Tensor:
    theta = torch.eye(2, 3, dtype=x.dtype, device=x.device).expand(len(x), 2, 3)
    grid = F.affine_grid(theta, [len(x), 1, 3, 3], align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _unpooled(x: torch.Tensor) -> torch.Tensor:
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(y, indices, [2, 2])


def _counted(x: torch.Tensor) -> torch.Tensor:
    positive = (x > 0).to(torch.int64)
    return x * (positive.sum(1, keepdim=True) // 2).to(x.dtype)


def _positions(x: torch.Tensor) -> torch.Tensor:
    places = torch.arange(x.shape[-1], dtype=x.dtype, device=x.device)
    return x * torch.cos(places / 10.0) + torch.linspace(0, 1, x.shape[-1], device=x.device).to(x)


def _spectrum(x: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = torch.fft.irfft(torch.fft.rfft(x, n=8) * 1j, n=8)
    return out


def _complex_product(x: torch.Tensor) -> torch.Tensor:
    z = torch.complex(x, x.flip(-1))
    return (z @ z.mH).real


def _quadratic(x: torch.Tensor) -> torch.Tensor:
    rows = x.flatten(1)
    return rows @ rows.t() @ rows


ANY: dict[str, Function] = {
    "torch.mul": lambda x: x * 2,
    "torch.exp": lambda x: torch.exp(-x.abs()),
    "torch.clamp": lambda x: x.clamp(-1, 1),
    "torch.pow": lambda x: x.abs().pow(1.5) + x**2,
    "torch.rsqrt": lambda x: torch.rsqrt(x.square() + 1),
    "torch.log1p": lambda x: x.abs().log1p(),
    "torch.reciprocal": lambda x: (x.abs() + 1).reciprocal(),
    "torch.sin": lambda x: x.sin() + x.cos(),
    "torch.tan": lambda x: x.tanh().tan(),
    "torch.asinh": lambda x: x.asinh() + x.tanh().atan(),
    "torch.erf": lambda x: x.erf() + x.erfc(),
    "torch.lgamma": lambda x: (x.abs() + 1).lgamma(),
    "torch.atan2": lambda x: torch.atan2(x, x + 1),
    "torch.hypot": lambda x: torch.hypot(x, x),
    "torch.logaddexp": lambda x: torch.logaddexp(x, -x),
    "torch.lerp": lambda x: torch.lerp(x, x.flip(-1), 0.3),
    "torch.addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "torch.addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1, value=0.5),
    "torch.remainder": lambda x: x.remainder(2) + x.fmod(3),
    "torch.floor": lambda x: x.floor() + x.round() + x.trunc() + x.frac(),
    "torch.sign": lambda x: x.sign() * x,
    "torch.where": lambda x: torch.where(x > 0, x, -x),
    "torch.maximum": lambda x: torch.maximum(x, -x) - torch.minimum(x, -x),
    "torch.masked_fill": lambda x: x.masked_fill(x > 0, 0.0),
    "torch.nan_to_num": lambda x: (x / (x - x + 1)).nan_to_num(),
    "torch.logit": lambda x: torch.logit(x.sigmoid(), eps=1e-3),
    "torch.sinc": torch.sinc,
    "torch.softmax": lambda x: x.softmax(-1),
    "torch.logsumexp": lambda x: x - x.logsumexp(1, keepdim=True),
    "torch.mean": lambda x: x - x.mean(1, keepdim=True),
    "torch.var": lambda x: x / (x.var(-1, keepdim=True, unbiased=False) + 1),
    "torch.std_mean": lambda x: x * torch.std_mean(x, 1, keepdim=True, correction=0)[0],
    "torch.norm": lambda x: x / (x.norm(p=1, dim=1, keepdim=True) + 1),
    "torch.amax": lambda x: x - x.amax(1, keepdim=True),
    "torch.max": lambda x: x - x.max(1, keepdim=True)[0],
    "torch.median": lambda x: x - x.median(-1, keepdim=True)[0],
    "torch.prod": lambda x: x * x.prod(1, keepdim=True),
    "torch.cumsum": lambda x: x.cumsum(1),
    "torch.cumprod": lambda x: x.tanh().cumprod(-1),
    "torch.logcumsumexp": lambda x: x.logcumsumexp(-1),
    "torch.sort": lambda x: x.sort(1)[0],
    "torch.topk": lambda x: x - x.topk(1, 1)[0],
    "torch.argmax": lambda x: x * x.argmax(1, keepdim=True).to(x.dtype),
    "torch.diff": lambda x: x.diff(dim=-1, prepend=x[..., :1]),
    "torch.roll": lambda x: x.roll(1, 1),
    "torch.flip": lambda x: x.flip(-1),
    "torch.cat": lambda x: torch.cat([x[:, :1], x[:, 1:] * 2], 1),
    "torch.stack": lambda x: torch.stack([x, x]).sum(0),
    "torch.chunk": lambda x: torch.maximum(*torch.cat([x, x], 1).chunk(2, 1)),
    "torch.split": lambda x: torch.cat(
        [part * 2 for part in torch.split_with_sizes(x, [1] * x.shape[1], 1)], 1
    ),
    "torch.repeat_interleave": lambda x: x.repeat_interleave(2, 1),
    "torch.gather": lambda x: x.gather(1, _zeros(x)),
    "torch.scatter_add": lambda x: torch.zeros_like(x).scatter_add(1, _zeros(x), x),
    "torch.index_select": lambda x: x.index_select(
        1, torch.zeros(2, dtype=torch.int64).to(x.device)
    ),
    "torch.index_put": lambda x: x.index_put((torch.tensor([0], device=x.device),), x[:1] * 2),
    "torch.tril": lambda x: x.unsqueeze(-2).expand(*x.shape[:-1], 2, -1).tril().sum(-2),
    "torch.transpose": lambda x: x.transpose(1, -1).contiguous().transpose(1, -1),
    "torch.expand": lambda x: x * torch.ones(1, device=x.device, dtype=x.dtype).expand_as(x),
    "torch.unfold": lambda x: x.unfold(1, 1, 1).sum(-1),
    "torch.einsum, elementwise": lambda x: torch.einsum("b...,b...->b...", x, x),
    "torch.matmul, flattened": _quadratic,
    "torch.outer": lambda x: x + torch.outer(x.flatten()[:3], x.flatten()[:2]).mean(),
    "torch.dot": lambda x: x + torch.dot(x.flatten(), x.flatten()),
    "torch.cdist": lambda x: x + torch.cdist(x.flatten(1), x.flatten(1)).sum(),
    "torch.pdist": lambda x: x + F.pdist(torch.cat([x, x * 2]).flatten(1)).sum(),
    "torch.bernoulli": lambda x: x * torch.bernoulli(torch.full_like(x, 0.5)),
    "torch.rand_like": lambda x: x + torch.rand_like(x) * torch.randn_like(x),
    "torch.arange": _positions,
    "integers": _counted,
    "in place": _written_in_place,
    "detach": lambda x: x + x.detach() * 2,
    "F.dropout": lambda x: F.dropout(x, 0.1, training=True),
    "F.gumbel_softmax": lambda x: F.gumbel_softmax(x, dim=1),
    "F.normalize": lambda x: F.normalize(x, dim=1),
    "F.layer_norm": lambda x: F.layer_norm(x, x.shape[1:]),
    "F.glu": lambda x: F.glu(torch.cat([x, x], 1), 1),
    "F.gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "F.one_hot": lambda x: x + F.one_hot(x.argmax(-1), x.shape[-1]).to(x.dtype),
    "F.pad": lambda x: F.pad(x, (1, 0)),
    "F.linear": lambda x: F.linear(x, torch.ones(3, x.shape[-1], dtype=x.dtype, device=x.device)),
    "F.cosine_similarity": lambda x: x * F.cosine_similarity(x, x.roll(1, 0), dim=-1).unsqueeze(-1),
    "F.mse_loss": lambda x: x * F.mse_loss(x, x.roll(1, -1)),
}
ROWS: dict[str, Function] = {
    "torch.mm": lambda x: x @ x.t() @ x,
    "torch.addmm": lambda x: torch.addmm(x, x @ x.t(), x, beta=0.5, alpha=2),
    "torch.mv": lambda x: x * torch.mv(x, x[0]).unsqueeze(1),
    "torch.addmv": lambda x: x + torch.addmv(x[:, 0], x, x[0]).unsqueeze(1),
    "torch.linalg.multi_dot": lambda x: torch.linalg.multi_dot([x, x.t(), x]),
    "torch.matrix_power": lambda x: torch.matrix_power(x @ x.t(), 3) @ x,
    "torch.kron": lambda x: torch.kron(x, x)[:4, :6],
    "torch.bucketize": lambda x: (
        x + torch.bucketize(x, torch.tensor([0.0, 1.0], device=x.device, dtype=x.dtype)).to(x.dtype)
    ),
    "outer product": lambda x: x.unsqueeze(2) * x.unsqueeze(1),
}
SEQUENCES: dict[str, Function] = {
    "torch.bmm": lambda x: torch.bmm(x, x.transpose(1, 2)),
    "torch.baddbmm": lambda x: torch.baddbmm(x @ x.mT, x, x.mT, beta=0.5),
    "torch.einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "torch.einsum, summed": lambda x: torch.einsum("bij,bij->bi", x, x).unsqueeze(-1) * x,
    "torch.matmul, vectors": lambda x: x * (x @ x[0, 0]).unsqueeze(-1),
    "torch.matmul, complex": _complex_product,
    "torch.tensordot": lambda x: torch.tensordot(x, x[0], dims=([2], [1])),
    "torch.linalg.vecdot": lambda x: x * torch.linalg.vecdot(x, x.flip(1)).unsqueeze(-1),
    "torch.fft": _spectrum,
    "attention, written out": lambda x: torch.softmax(x @ x.mT / 2, -1) @ x,
    "F.scaled_dot_product_attention": _attended,
    "F.scaled_dot_product_attention, causal": lambda x: _attended(x, causal=True),
    "F.scaled_dot_product_attention, masked": lambda x: _attended(x, masked=True),
    "F.scaled_dot_product_attention, grouped": _grouped_queries,
    "F.conv1d": lambda x: F.conv1d(x, x.new_ones(2, x.shape[1], 1)),
    "transpose, sequence": lambda x: x.transpose(1, 2),
    "mean over time": lambda x: x.mean(1),
    "unsqueeze": lambda x: x.unsqueeze(1),
}
IMAGES: dict[str, Function] = {
    "F.grid_sample": _sampled,
    "F.max_unpool2d": _unpooled,
    "F.unfold": lambda x: F.unfold(x, 2),
    "F.interpolate": lambda x: F.interpolate(x, size=(3, 4), mode="area"),
    "F.interpolate, antialiased": lambda x: F.interpolate(
        x, size=(3, 3), mode="bilinear", antialias=True
    ),
    "F.avg_pool2d": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
    "F.adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    "F.conv2d": lambda x: F.conv2d(x, x.new_ones(2, x.shape[1], 1, 1), padding="same"),
    "channels last": lambda x: x.to(memory_format=torch.channels_last),
    "flatten to a sequence": lambda x: x.flatten(2).transpose(1, 2),
}
VOLUMES: dict[str, Function] = {
    "F.conv3d": lambda x: F.conv3d(x, x.new_ones(2, x.shape[1], 1, 1, 1)),
    "mean over depth": lambda x: x.mean(2),
}
BY_RANK: dict[int, dict[str, Function]] = {2: ROWS, 3: SEQUENCES, 4: IMAGES, 5: VOLUMES}
