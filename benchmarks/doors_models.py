"""Twelve small models with real weights, of the architectures that compilers meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional

from graphflops.models.optional_dependencies import repair_torchvision

repair_torchvision()  # transformers imports it
BATCH = 4


class Case(NamedTuple):
    """A model in evaluation mode and its inputs, whose first axis is the batch."""

    model: nn.Module
    args: tuple[Tensor, ...]


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Conv2d(channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.norm1(self.conv1(x)))
        return functional.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class _ResNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 8, 7, 2, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
            _ResidualBlock(8, 16, 1),
            _ResidualBlock(16, 32, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(32, 10),
        )


class _UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1 = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
        self.down2 = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.middle = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU())
        self.up2 = nn.ConvTranspose2d(32, 16, 2, 2)
        self.join2 = nn.Conv2d(32, 16, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(16, 8, 2, 2)
        self.join1 = nn.Conv2d(16, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(first)
        y = self.up2(self.middle(second))
        y = functional.relu(self.join2(torch.cat([y, second], 1)))
        y = functional.relu(self.join1(torch.cat([self.up1(y), first], 1)))
        out: Tensor = self.head(y)
        return out


class _FeedForward(nn.Sequential):
    def __init__(self, features: int, hidden: int) -> None:
        super().__init__(
            nn.LayerNorm(features),
            nn.Linear(features, hidden),
            nn.GELU(),
            nn.Linear(hidden, features),
        )


class _ConformerBlock(nn.Module):
    def __init__(self, features: int) -> None:
        super().__init__()
        self.feed_forward1 = _FeedForward(features, 4 * features)
        self.norm = nn.LayerNorm(features)
        self.attention = nn.MultiheadAttention(features, 4, batch_first=True)
        self.pointwise1 = nn.Conv1d(features, 2 * features, 1)
        self.depthwise = nn.Conv1d(features, features, 7, padding=3, groups=features)
        self.batch_norm = nn.BatchNorm1d(features)
        self.pointwise2 = nn.Conv1d(features, features, 1)
        self.feed_forward2 = _FeedForward(features, 4 * features)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.feed_forward1(x) / 2
        y = self.norm(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        y = functional.glu(self.pointwise1(x.transpose(1, 2)), dim=1)
        y = functional.silu(self.batch_norm(self.depthwise(y)))
        x = x + self.pointwise2(y).transpose(1, 2)
        out: Tensor = x + self.feed_forward2(x) / 2
        return out


class _MixerBlock(nn.Module):
    def __init__(self, tokens: int, features: int) -> None:
        super().__init__()
        self.tokens = _FeedForward(tokens, 2 * tokens)
        self.features = _FeedForward(features, 2 * features)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(x.transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + self.features(x)
        return out


class _Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, 8)
        self.blocks = nn.Sequential(_MixerBlock(16, 32), _MixerBlock(16, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.patches(x).flatten(2).transpose(1, 2))
        out: Tensor = self.head(x.mean(1))
        return out


class _Tagger(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 16)
        self.lstm = nn.LSTM(16, 24, num_layers=2, batch_first=True, bidirectional=True)
        self.head = nn.Linear(48, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.head(self.lstm(self.embedding(tokens))[0])
        return out


class _Recommender(nn.Module):
    """Bags of features, their pairwise products and an MLP, as in DLRM."""

    def __init__(self) -> None:
        super().__init__()
        self.bags = nn.ModuleList(nn.EmbeddingBag(50, 16, mode="sum") for _ in range(3))
        self.bottom = nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 16))
        self.top = nn.Sequential(nn.Linear(16 + 16, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        dense = self.bottom(dense)
        bags = [bag(sparse[:, index]) for index, bag in enumerate(self.bags)]
        features = torch.stack([dense, *bags], dim=1)
        pairs = torch.bmm(features, features.transpose(1, 2)).flatten(1)
        out: Tensor = self.top(torch.cat([dense, pairs], dim=1))
        return out


class _GroupedAttention(nn.Module):
    def __init__(self, features: int, heads: int, kv_heads: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = heads, kv_heads
        size = features // heads
        self.q = nn.Linear(features, features, bias=False)
        self.kv = nn.Linear(features, 2 * kv_heads * size, bias=False)
        self.out = nn.Linear(features, features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.kv(x).unflatten(-1, (2 * self.kv_heads, -1)).transpose(1, 2).chunk(2, 1)
        y = functional.scaled_dot_product_attention(
            query, key, value, is_causal=True, enable_gqa=True
        )
        out: Tensor = self.out(y.transpose(1, 2).flatten(2))
        return out


class _Transformer(nn.Module):
    """A transformers model as a function of one tensor to one tensor."""

    def __init__(self, model: Any, **kwargs: Any) -> None:
        super().__init__()
        self.model, self.kwargs = model, kwargs

    def forward(self, x: Tensor) -> Any:
        return self.model(x, **self.kwargs)[0]


def _tokens(*shape: int, vocabulary: int = 50) -> Tensor:
    return torch.randint(vocabulary, shape)


def _mlp() -> Case:
    layers = nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 10)
    return Case(nn.Sequential(*layers), (torch.randn(BATCH, 32),))


def _attention() -> Case:
    layers = (_GroupedAttention(64, 8, 2), _FeedForward(64, 128), _GroupedAttention(64, 8, 2))
    return Case(nn.Sequential(*layers), (torch.randn(BATCH, 12, 64),))


def _gpt2() -> Case:
    config = transformers.GPT2Config(
        n_layer=2, n_embd=32, n_head=4, vocab_size=100, bos_token_id=0, eos_token_id=0
    )
    model = transformers.GPT2LMHeadModel(config)
    return Case(_Transformer(model, use_cache=False), (_tokens(BATCH, 12),))


_SMALL = {
    "num_hidden_layers": 2,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "vocab_size": 100,
}
"""Sizes of the transformers, by the names that most configs have for them."""


def _llama() -> Case:
    config = transformers.LlamaConfig(**_SMALL, num_key_value_heads=2)
    model = transformers.LlamaForCausalLM(config)
    return Case(_Transformer(model, use_cache=False), (_tokens(BATCH, 12),))


def _bert() -> Case:
    config = transformers.BertConfig(**_SMALL)
    return Case(_Transformer(transformers.BertModel(config)), (_tokens(BATCH, 12),))


def _vit() -> Case:
    config = transformers.ViTConfig(
        num_hidden_layers=2,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        image_size=32,
        patch_size=8,
    )
    return Case(
        _Transformer(transformers.ViTModel(config, add_pooling_layer=False)),
        (torch.randn(BATCH, 3, 32, 32),),
    )


_BUILDERS: dict[str, Callable[[], Case]] = {
    "MLP": _mlp,
    "ResNet": lambda: Case(_ResNet(), (torch.randn(BATCH, 3, 32, 32),)),
    "U-Net": lambda: Case(_UNet(), (torch.randn(BATCH, 3, 16, 16),)),
    "Conformer": lambda: Case(
        nn.Sequential(_ConformerBlock(16), _ConformerBlock(16)), (torch.randn(BATCH, 20, 16),)
    ),
    "Mixer": lambda: Case(_Mixer(), (torch.randn(BATCH, 3, 32, 32),)),
    "LSTM": lambda: Case(_Tagger(), (_tokens(BATCH, 6),)),
    "DLRM": lambda: Case(_Recommender(), (torch.randn(BATCH, 13), _tokens(BATCH, 3, 5))),
    "GQA": _attention,
    "GPT-2": _gpt2,
    "Llama": _llama,
    "BERT": _bert,
    "ViT": _vit,
}
MODELS = tuple(_BUILDERS)


def build(name: str) -> Case:
    """Return a model in evaluation mode, with random weights, and its inputs."""
    torch.manual_seed(0)
    model, args = _BUILDERS[name]()
    return Case(model.eval(), args)
