"""Layers of ``torch.nn`` that generated models are made of, by the rank of what they take."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

import torch
from torch import nn

Shape: TypeAlias = tuple[int, ...]
Make: TypeAlias = Callable[[Random, Shape], nn.Module]
"""A layer for a tensor of this shape, its options drawn; an error where none fits."""

WIDTHS = (2, 3, 4, 6, 8)
RARELY, EVENLY, MOSTLY = 0.2, 0.5, 0.8


class OfSelf(nn.Module):
    """A layer that takes several tensors, given one and the same."""

    def __init__(self, layer: nn.Module, copies: int = 2, *, first: bool = False) -> None:
        super().__init__()
        self.layer, self.copies, self.first = layer, copies, first

    def forward(self, x: torch.Tensor) -> Any:
        """What the layer makes of copies of ``x``; of a tuple the first."""
        out = self.layer(*[x] * self.copies)
        return out[0] if self.first else out


class Loss(nn.Module):
    """A loss against a target made of the same tensor, added to it."""

    def __init__(self, loss: nn.Module, target: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.loss, self.target = loss, target

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input with its loss added."""
        loss: torch.Tensor = self.loss(x, self.target(x))
        return x + loss.mean()


class Positive(nn.Module):
    """A loss of positive numbers: what comes in is squashed first."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The input with the loss of its squashed self added."""
        y = x.sigmoid()
        loss: torch.Tensor = self.loss(y, y.detach())
        return x + loss.mean()


def divisor(draw: Random, number: int) -> int:
    """A divisor of a number."""
    return draw.choice([d for d in range(1, number + 1) if number % d == 0])


def _zeros(shape: Callable[[torch.Tensor], tuple[int, ...]]) -> Callable[[torch.Tensor], Any]:
    return lambda x: torch.zeros(shape(x), dtype=torch.int64, device=x.device)


def _plain(cls: type[nn.Module], *args: Any, **options: Any) -> Make:
    return lambda _draw, _shape: cls(*args, **options)


def _loss(cls: type[nn.Module], target: Callable[[torch.Tensor], Any], **options: Any) -> Make:
    return lambda _draw, _shape: Loss(cls(**options), target)


def _sometimes_in_place(cls: type[nn.Module], *args: Any) -> Make:
    return lambda draw, _shape: cls(*args, inplace=draw.random() < RARELY)


def _conv(rank: int) -> Make:
    cls: Any = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]

    def make(draw: Random, shape: Shape) -> nn.Module:
        channels = shape[1]
        groups = draw.choice((1, 1, divisor(draw, channels), channels))
        made: nn.Module = cls(
            channels,
            groups * draw.choice((1, 2, 3)),
            draw.choice((1, 2, 3)),
            stride=draw.choice((1, 1, 2)),
            padding=draw.choice((0, 1)),
            dilation=draw.choice((1, 1, 2)),
            groups=groups,
            bias=draw.random() < EVENLY,
            padding_mode=draw.choice(("zeros", "zeros", "reflect", "replicate", "circular")),
        )
        return made

    return make


def _transposed(rank: int) -> Make:
    cls: Any = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]

    def make(draw: Random, shape: Shape) -> nn.Module:
        groups = divisor(draw, shape[1])
        made: nn.Module = cls(
            shape[1],
            groups * draw.choice((1, 2)),
            draw.choice((1, 2, 3)),
            stride=draw.choice((1, 2)),
            padding=draw.choice((0, 1)),
            groups=groups,
            bias=draw.random() < EVENLY,
        )
        return made

    return make


def _batch_norm(cls: Any) -> Make:
    return lambda draw, shape: cls(
        shape[1], affine=draw.random() < MOSTLY, track_running_stats=draw.random() < MOSTLY
    )


def _instance_norm(cls: Any) -> Make:
    return lambda draw, shape: cls(
        shape[1], affine=draw.random() < EVENLY, track_running_stats=draw.random() < RARELY
    )


def _pool(cls: Any, **options: Any) -> Make:
    return lambda draw, _shape: cls(draw.choice((2, 3)), stride=draw.choice((1, 2)), **options)


def _lp_pool(cls: Any) -> Make:
    return lambda draw, _shape: cls(draw.choice((1, 2, 3)), 2)


def _adaptive(cls: Any) -> Make:
    return lambda draw, _shape: cls(draw.randint(1, 4))


def _padded(cls: Any, *value: float) -> Make:
    return lambda draw, _shape: cls(draw.choice((1, 2)), *value)


def _resized(*modes: str) -> Make:
    return lambda draw, _shape: nn.Upsample(scale_factor=2, mode=draw.choice(modes))


def _recurrent(cls: Any) -> Make:
    def make(draw: Random, shape: Shape) -> nn.Module:
        width = draw.choice(WIDTHS)
        options: dict[str, Any] = {"proj_size": draw.choice((0, 0, 1))} if cls is nn.LSTM else {}
        layer = cls(
            shape[-1],
            width,
            draw.randint(1, 2),
            batch_first=draw.random() < MOSTLY,
            bidirectional=draw.random() < EVENLY,
            bias=draw.random() < MOSTLY,
            **options,
        )
        return OfSelf(layer, copies=1, first=True)

    return make


def _cell(cls: Any) -> Make:
    return lambda draw, shape: OfSelf(
        cls(shape[-1], draw.choice(WIDTHS)), copies=1, first=cls is nn.LSTMCell
    )


def _attention(draw: Random, shape: Shape) -> nn.Module:
    layer = nn.MultiheadAttention(
        shape[-1],
        divisor(draw, shape[-1]),
        batch_first=draw.random() < MOSTLY,
        bias=draw.random() < EVENLY,
        add_bias_kv=draw.random() < RARELY,
        add_zero_attn=draw.random() < RARELY,
    )
    return OfSelf(layer, copies=3, first=True)


def _transformer_layer(cls: Any, copies: int) -> Make:
    def make(draw: Random, shape: Shape) -> nn.Module:
        layer = cls(
            shape[-1],
            divisor(draw, shape[-1]),
            draw.choice((4, 8)),
            batch_first=True,
            norm_first=draw.random() < EVENLY,
            activation=draw.choice(("relu", "gelu")),
        )
        return OfSelf(layer, copies)

    return make


def _encoder(draw: Random, shape: Shape) -> nn.Module:
    heads = divisor(draw, shape[-1])
    layer = nn.TransformerEncoderLayer(shape[-1], heads, 8, batch_first=True)
    return nn.TransformerEncoder(layer, draw.randint(2, 4), enable_nested_tensor=False)


def _decoder(draw: Random, shape: Shape) -> nn.Module:
    layer = nn.TransformerDecoderLayer(shape[-1], divisor(draw, shape[-1]), 8, batch_first=True)
    return OfSelf(nn.TransformerDecoder(layer, draw.randint(1, 3)))


def _transformer(draw: Random, shape: Shape) -> nn.Module:
    return OfSelf(nn.Transformer(shape[-1], divisor(draw, shape[-1]), 1, 1, 8, batch_first=True))


ANY: dict[str, Make] = {
    **{
        cls.__name__: _plain(cls)
        for cls in (
            *(nn.GELU, nn.Sigmoid, nn.Tanh, nn.Hardshrink, nn.Softshrink, nn.LogSigmoid),
            *(nn.Softplus, nn.Softsign, nn.Tanhshrink, nn.PReLU, nn.Identity),
        )
    },
    **{
        cls.__name__: _sometimes_in_place(cls)
        for cls in (
            *(nn.ReLU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.ReLU6, nn.RReLU),
            *(nn.Hardswish, nn.Hardsigmoid, nn.Hardtanh, nn.LeakyReLU),
        )
    },
    "Dropout": _sometimes_in_place(nn.Dropout, 0.1),
    "AlphaDropout": _sometimes_in_place(nn.AlphaDropout, 0.1),
    "FeatureAlphaDropout": _sometimes_in_place(nn.FeatureAlphaDropout, 0.1),
    "Threshold": _plain(nn.Threshold, 0.1, 0.0),
    "GLU": _plain(nn.GLU),
    "Softmax": _plain(nn.Softmax, -1),
    "Softmin": _plain(nn.Softmin, 1),
    "LogSoftmax": _plain(nn.LogSoftmax, -1),
    "Flatten": _plain(nn.Flatten),
    "Linear": lambda draw, s: nn.Linear(s[-1], draw.choice(WIDTHS), bias=draw.random() < MOSTLY),
    "Linear, square": lambda _draw, s: nn.Linear(s[-1], s[-1]),
    "Bilinear": lambda draw, s: OfSelf(nn.Bilinear(s[-1], s[-1], draw.choice(WIDTHS))),
    "LayerNorm": lambda draw, s: nn.LayerNorm(s[-1], elementwise_affine=draw.random() < MOSTLY),
    "RMSNorm": lambda _draw, s: nn.RMSNorm(s[-1]),
    "CosineSimilarity": lambda _draw, _shape: OfSelf(nn.CosineSimilarity(dim=-1)),
    "PairwiseDistance": lambda _draw, _shape: OfSelf(nn.PairwiseDistance(keepdim=True)),
    "MSELoss": _loss(nn.MSELoss, torch.tanh),
    "L1Loss": _loss(nn.L1Loss, torch.tanh, reduction="sum"),
    "SmoothL1Loss": _loss(nn.SmoothL1Loss, torch.tanh),
    "HuberLoss": _loss(nn.HuberLoss, torch.tanh, reduction="none"),
    "SoftMarginLoss": _loss(nn.SoftMarginLoss, torch.sign),
    "HingeEmbeddingLoss": _loss(nn.HingeEmbeddingLoss, torch.sign),
    "PoissonNLLLoss": _loss(nn.PoissonNLLLoss, torch.abs),
    "KLDivLoss": _loss(nn.KLDivLoss, torch.sigmoid, reduction="batchmean"),
    "BCEWithLogitsLoss": _loss(nn.BCEWithLogitsLoss, torch.sigmoid),
    "BCELoss": lambda _draw, _shape: Positive(nn.BCELoss()),
    "CrossEntropyLoss": _loss(nn.CrossEntropyLoss, _zeros(lambda x: (x.shape[0], *x.shape[2:]))),
    "NLLLoss": _loss(nn.NLLLoss, _zeros(lambda x: (x.shape[0], *x.shape[2:]))),
}
ROWS: dict[str, Make] = {
    "BatchNorm1d": _batch_norm(nn.BatchNorm1d),
    "Unflatten": lambda draw, s: nn.Unflatten(1, (d := divisor(draw, s[1]), s[1] // d)),
    "RNNCell": _cell(nn.RNNCell),
    "LSTMCell": _cell(nn.LSTMCell),
    "GRUCell": _cell(nn.GRUCell),
    "MultiMarginLoss": _loss(nn.MultiMarginLoss, _zeros(lambda x: (x.shape[0],))),
    "MultiLabelSoftMarginLoss": _loss(nn.MultiLabelSoftMarginLoss, torch.sigmoid),
    "TripletMarginLoss": lambda _draw, _shape: OfSelf(nn.TripletMarginLoss(reduction="none"), 3),
}
SEQUENCES: dict[str, Make] = {
    "RNN": _recurrent(nn.RNN),
    "LSTM": _recurrent(nn.LSTM),
    "GRU": _recurrent(nn.GRU),
    "MultiheadAttention": _attention,
    "TransformerEncoderLayer": _transformer_layer(nn.TransformerEncoderLayer, 1),
    "TransformerDecoderLayer": _transformer_layer(nn.TransformerDecoderLayer, 2),
    "TransformerEncoder": _encoder,
    "TransformerDecoder": _decoder,
    "Transformer": _transformer,
    "Conv1d": _conv(1),
    "ConvTranspose1d": _transposed(1),
    "BatchNorm1d": _batch_norm(nn.BatchNorm1d),
    "InstanceNorm1d": _instance_norm(nn.InstanceNorm1d),
    "GroupNorm": lambda draw, s: nn.GroupNorm(divisor(draw, s[1]), s[1]),
    "MaxPool1d": _pool(nn.MaxPool1d),
    "AvgPool1d": _pool(nn.AvgPool1d),
    "LPPool1d": _lp_pool(nn.LPPool1d),
    "AdaptiveAvgPool1d": _adaptive(nn.AdaptiveAvgPool1d),
    "AdaptiveMaxPool1d": _adaptive(nn.AdaptiveMaxPool1d),
    "ZeroPad1d": _padded(nn.ZeroPad1d),
    "ConstantPad1d": _padded(nn.ConstantPad1d, 0.5),
    "ReflectionPad1d": _padded(nn.ReflectionPad1d),
    "ReplicationPad1d": _padded(nn.ReplicationPad1d),
    "CircularPad1d": _padded(nn.CircularPad1d),
    "Dropout1d": _sometimes_in_place(nn.Dropout1d, 0.1),
    "Upsample": _resized("nearest", "linear"),
    "Fold": lambda _draw, s: nn.Fold((2, s[2] + 1), (2, 2)),
}
IMAGES: dict[str, Make] = {
    "Conv2d": _conv(2),
    "ConvTranspose2d": _transposed(2),
    "BatchNorm2d": _batch_norm(nn.BatchNorm2d),
    "InstanceNorm2d": _instance_norm(nn.InstanceNorm2d),
    "GroupNorm": lambda draw, s: nn.GroupNorm(divisor(draw, s[1]), s[1]),
    "LocalResponseNorm": _plain(nn.LocalResponseNorm, 2),
    "MaxPool2d": _pool(nn.MaxPool2d),
    "MaxPool2d, ceil": _pool(nn.MaxPool2d, ceil_mode=True),
    "AvgPool2d": _pool(nn.AvgPool2d),
    "AvgPool2d, unpadded": _pool(nn.AvgPool2d, padding=1, count_include_pad=False),
    "LPPool2d": _lp_pool(nn.LPPool2d),
    "FractionalMaxPool2d": _plain(nn.FractionalMaxPool2d, 2, output_size=2),
    "AdaptiveAvgPool2d": _adaptive(nn.AdaptiveAvgPool2d),
    "AdaptiveMaxPool2d": _adaptive(nn.AdaptiveMaxPool2d),
    "Upsample": _resized("nearest", "bilinear", "bicubic"),
    "UpsamplingNearest2d": _plain(nn.UpsamplingNearest2d, scale_factor=2),
    "UpsamplingBilinear2d": _plain(nn.UpsamplingBilinear2d, scale_factor=2),
    "PixelShuffle": _plain(nn.PixelShuffle, 2),
    "PixelUnshuffle": _plain(nn.PixelUnshuffle, 2),
    "ChannelShuffle": lambda draw, s: nn.ChannelShuffle(divisor(draw, s[1])),
    "ZeroPad2d": _padded(nn.ZeroPad2d),
    "ConstantPad2d": _padded(nn.ConstantPad2d, 0.5),
    "ReflectionPad2d": _padded(nn.ReflectionPad2d),
    "ReplicationPad2d": _padded(nn.ReplicationPad2d),
    "CircularPad2d": _padded(nn.CircularPad2d),
    "Softmax2d": _plain(nn.Softmax2d),
    "Dropout2d": _sometimes_in_place(nn.Dropout2d, 0.1),
    "Unfold": _plain(nn.Unfold, 2),
    "Flatten, rows": _plain(nn.Flatten, 2),
}
VOLUMES: dict[str, Make] = {
    "Conv3d": _conv(3),
    "ConvTranspose3d": _transposed(3),
    "BatchNorm3d": _batch_norm(nn.BatchNorm3d),
    "InstanceNorm3d": _instance_norm(nn.InstanceNorm3d),
    "MaxPool3d": _pool(nn.MaxPool3d),
    "AvgPool3d": _pool(nn.AvgPool3d),
    "LPPool3d": _lp_pool(nn.LPPool3d),
    "AdaptiveAvgPool3d": _adaptive(nn.AdaptiveAvgPool3d),
    "AdaptiveMaxPool3d": _adaptive(nn.AdaptiveMaxPool3d),
    "ZeroPad3d": _padded(nn.ZeroPad3d),
    "ConstantPad3d": _padded(nn.ConstantPad3d, 0.5),
    "ReflectionPad3d": _padded(nn.ReflectionPad3d),
    "ReplicationPad3d": _padded(nn.ReplicationPad3d),
    "Dropout3d": _sometimes_in_place(nn.Dropout3d, 0.1),
    "Upsample": _resized("nearest", "trilinear"),
    "Flatten, images": _plain(nn.Flatten, 3),
}
BY_RANK: dict[int, dict[str, Make]] = {2: ROWS, 3: SEQUENCES, 4: IMAGES, 5: VOLUMES}
