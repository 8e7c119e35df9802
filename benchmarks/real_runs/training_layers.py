"""Training steps of layers: what autograd does of each, and which gradients nobody asks for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - what everybody calls it
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from benchmarks.real_runs.training import Build, step

z = torch.randn
Kind = Callable[..., nn.Module]


def _asked(*shape: int) -> torch.Tensor:
    """An input whose gradient is asked for."""
    return z(*shape).requires_grad_()


def _tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape)


def _mlp(*widths: int) -> nn.Sequential:
    layers = (nn.Linear(a, b) for a, b in pairwise(widths))
    return nn.Sequential(*(part for layer in layers for part in (layer, nn.Tanh())))


class _First(nn.Module):
    """A module of which the first output is taken."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner, self.head = inner, nn.Linear(width, 3)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.head(self.inner(*args, **kwargs)[0])


class _Unrolled(nn.Module):
    """A cell called once a step."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: torch.Tensor) -> Any:
        state: Any = None
        for row in x:
            state = self.cell(row, state)
        return state[0] if isinstance(state, tuple) else state


class _Packed(nn.Module):
    def __init__(self, kind: Kind) -> None:
        super().__init__()
        self.rnn = kind(6, 10, 2, batch_first=True)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        padded: torch.Tensor = pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]
        return padded


class _Calls(nn.Module):
    """A function of the input and parameters of the shapes given."""

    def __init__(self, function: Callable[..., torch.Tensor], *shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterList(nn.Parameter(z(*shape)) for shape in shapes)

    def forward(self, *args: torch.Tensor) -> torch.Tensor:
        return self.function(*args, *self.weights)


def _conv(rank: int, *args: Any, inputs_ask: bool = False, **options: Any) -> Build:
    layer = getattr(nn, f"Conv{rank}d")

    def build() -> Any:
        size = (2, args[0], *(9, 8, 7)[:rank])
        x = _asked(*size) if inputs_ask else z(*size)
        return step(nn.Sequential(layer(*args, **options), nn.ReLU()), x)

    return build


def _transposed(rank: int, *args: Any, **options: Any) -> Build:
    layer = getattr(nn, f"ConvTranspose{rank}d")
    return lambda: step(layer(*args, **options), _asked(2, args[0], *(6, 5, 4)[:rank]))


def _separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.Conv2d(8, 8, 3, padding=1, groups=8),
        nn.GELU(),
        nn.Conv2d(8, 16, 3, stride=2, groups=4),
        nn.SiLU(),
        nn.ConvTranspose2d(16, 8, 4, stride=2, groups=2),
        nn.Dropout(0.3),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


CONVOLUTIONS: dict[str, Build] = {
    "1d": _conv(1, 4, 6, 3),
    "2d": _conv(2, 4, 6, 3),
    "3d": _conv(3, 4, 6, 3),
    "2d, input asks": _conv(2, 4, 6, 3, inputs_ask=True),
    "2d, groups": _conv(2, 4, 8, 3, groups=2, inputs_ask=True),
    "2d, depthwise": _conv(2, 4, 4, 3, groups=4, padding=1, inputs_ask=True),
    "2d, depthwise, multiplied": _conv(2, 4, 12, 3, groups=4, inputs_ask=True),
    "1d, groups": _conv(1, 6, 9, 3, groups=3, inputs_ask=True),
    "3d, groups": _conv(3, 4, 4, 2, groups=2, inputs_ask=True),
    "2d, dilated and strided": _conv(2, 4, 6, 3, dilation=2, stride=2, inputs_ask=True),
    "2d, circular padding": _conv(2, 4, 6, 3, padding=1, padding_mode="circular"),
    "2d, same padding of an even kernel": _conv(2, 4, 6, 4, padding="same", inputs_ask=True),
    "2d, 1 x 1": _conv(2, 4, 6, 1, inputs_ask=True),
    "2d, without bias": _conv(2, 4, 6, 3, bias=False),
    "transposed 1d": _transposed(1, 4, 6, 3),
    "transposed 2d": _transposed(2, 4, 6, 3, stride=2, output_padding=1),
    "transposed 2d, groups": _transposed(2, 4, 6, 3, stride=2, groups=2),
    "transposed 3d, groups": _transposed(3, 4, 4, 2, groups=4),
    "separable, with batch norm": lambda: step(_separable(), z(2, 3, 9, 9)),
    "unfold and product": lambda: step(
        _Calls(lambda x, w: F.unfold(x, 3).transpose(1, 2) @ w, (36, 5)), z(2, 4, 6, 6)
    ),
    "pixel shuffle": lambda: step(
        nn.Sequential(nn.Conv2d(4, 16, 3), nn.PixelShuffle(2), nn.Conv2d(4, 2, 3)), z(2, 4, 6, 6)
    ),
    "interpolated": lambda: step(
        nn.Sequential(
            nn.Conv2d(4, 6, 3), nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(6, 2, 3)
        ),
        z(2, 4, 6, 6),
    ),
}


def _rnn(kind: Kind, *, ask: bool = False, **options: Any) -> Build:
    def build() -> Any:
        width = options.get("proj_size", 10) * (2 if options.get("bidirectional") else 1)
        x = _asked(5, 2, 6) if ask else z(5, 2, 6)
        return step(_First(kind(6, 10, **options), width), x)

    return build


_KINDS: dict[str, Kind] = {"RNN": nn.RNN, "LSTM": nn.LSTM, "GRU": nn.GRU}


def _of_kinds(named: str, make: Callable[[Kind], Build]) -> dict[str, Build]:
    return {f"{kind}{named}": make(layer) for kind, layer in _KINDS.items()}


def _with_state(kind: Kind) -> Build:
    def build() -> Any:
        state: Any = z(1, 2, 10)
        return step(
            _First(kind(6, 10), 10), z(5, 2, 6), (state, state) if kind is nn.LSTM else state
        )

    return build


def _partly_frozen() -> Any:
    layer = nn.LSTM(6, 10, 2)
    layer.weight_ih_l0.requires_grad_(False)
    return step(_First(layer, 10), z(5, 2, 6))


RECURRENT: dict[str, Build] = {
    **_of_kinds("", _rnn),
    **_of_kinds(", input asks", partial(_rnn, ask=True)),
    **_of_kinds(", 2 layers", lambda kind: _rnn(kind, num_layers=2)),
    **_of_kinds(", bidirectional", lambda kind: _rnn(kind, num_layers=2, bidirectional=True)),
    **_of_kinds(", with a state", _with_state),
    **_of_kinds(
        ", packed", lambda kind: lambda: step(_Packed(kind), z(3, 7, 6), torch.tensor([7, 4, 2]))
    ),
    **_of_kinds(
        ", one step",
        lambda kind: lambda: step(_First(kind(6, 10), 10), z(1, 2, 6)),
    ),
    "LSTM, dropout": _rnn(nn.LSTM, num_layers=2, dropout=0.2),
    "LSTM, projected": _rnn(nn.LSTM, proj_size=4),
    "LSTM, projected, bidirectional": _rnn(
        nn.LSTM, proj_size=4, num_layers=2, bidirectional=True, ask=True
    ),
    "LSTM, without biases": _rnn(nn.LSTM, bias=False),
    "LSTM, partly frozen": _partly_frozen,
    "LSTM, float64": lambda: step(_First(nn.LSTM(6, 10), 10).double(), z(5, 2, 6).double()),
    "RNN, ReLU": _rnn(nn.RNN, nonlinearity="relu"),
    "RNNCell": lambda: step(_Unrolled(nn.RNNCell(6, 10)), z(4, 2, 6)),
    "LSTMCell": lambda: step(_Unrolled(nn.LSTMCell(6, 10)), z(4, 2, 6)),
    "GRUCell": lambda: step(_Unrolled(nn.GRUCell(6, 10)), _asked(4, 2, 6)),
}


def _attention(**options: Any) -> Any:
    return nn.MultiheadAttention(16, 4, batch_first=True, **options)


def _sdpa(heads: int, **options: Any) -> Build:
    def build() -> Any:
        def attend(q: torch.Tensor, kv: torch.Tensor) -> torch.Tensor:
            return F.scaled_dot_product_attention(q, kv, kv, **options)

        return step(_Calls(attend), _asked(2, 4, 6, 8), _asked(2, heads, 9, 8))

    return build


def _masked() -> Any:
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    return step(_First(_attention(), 16), *(z(2, 6, 16),) * 3, kwargs={"attn_mask": ~mask})


ATTENTION: dict[str, Build] = {
    "MultiheadAttention": lambda: step(_First(_attention(), 16), *(z(2, 6, 16),) * 3),
    "MultiheadAttention, weights left out": lambda: step(
        _First(_attention(), 16), *(z(2, 6, 16),) * 3, kwargs={"need_weights": False}
    ),
    "MultiheadAttention, other widths": lambda: step(
        _First(_attention(kdim=8, vdim=12), 16), z(2, 6, 16), z(2, 5, 8), z(2, 5, 12)
    ),
    "MultiheadAttention, mask": _masked,
    "MultiheadAttention, bias of K and V": lambda: step(
        _First(_attention(add_bias_kv=True, add_zero_attn=True), 16), *(_asked(2, 6, 16),) * 3
    ),
    "scaled dot product": _sdpa(4),
    "scaled dot product, causal": _sdpa(4, is_causal=True),
    "scaled dot product, grouped queries": _sdpa(2, enable_gqa=True),
    "scaled dot product, dropout": _sdpa(4, dropout_p=0.2),
    "scaled dot product, a mask that learns": lambda: step(
        _Calls(lambda q, m: F.scaled_dot_product_attention(q, q, q, attn_mask=m), (6, 6)),
        _asked(2, 4, 6, 8),
    ),
    "TransformerEncoder": lambda: step(
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 3),
        z(2, 6, 16),
    ),
    "TransformerEncoder, eval": lambda: step(
        nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), 2).eval(),
        z(2, 6, 16),
    ),
    "Transformer": lambda: step(
        nn.Transformer(16, 4, 2, 2, 32, batch_first=True), z(2, 6, 16), z(2, 5, 16)
    ),
    "TransformerDecoder": lambda: step(
        nn.TransformerDecoder(nn.TransformerDecoderLayer(16, 4, 32, norm_first=True), 2),
        *(z(6, 2, 16), z(5, 2, 16)),
    ),
}


def _tied() -> Any:
    table, head = nn.Embedding(50, 16, padding_idx=0), nn.Linear(16, 50, bias=False)
    head.weight = table.weight
    return step(nn.Sequential(table, nn.Linear(16, 16), head), _tokens(3, 7))


def _embedding(**options: Any) -> Build:
    return lambda: step(
        nn.Sequential(nn.Embedding(50, 16, **options), nn.Linear(16, 5)), _tokens(3, 7)
    )


def _called(function: Callable[..., torch.Tensor], *shapes: tuple[int, ...]) -> Build:
    """A function of an input of the first shape and of parameters of the others."""
    first, *weights = shapes
    return lambda: step(_Calls(function, *weights), z(*first))


DENSE: dict[str, Build] = {
    "linear": lambda: step(nn.Linear(8, 4), z(2, 8)),
    "linear, input asks": lambda: step(nn.Linear(8, 4), _asked(2, 8)),
    "linear, a vector": lambda: step(_mlp(8, 6, 4), z(8)),
    "linear, many axes": lambda: step(_mlp(8, 6, 4), z(2, 3, 5, 8)),
    "linear, no rows": lambda: step(_mlp(8, 6, 4), z(0, 8)),
    "mlp": lambda: step(_mlp(8, 16, 16, 4), z(2, 8)),
    "mlp, input asks": lambda: step(_mlp(8, 16, 16, 4), _asked(2, 8)),
    "bilinear": lambda: step(nn.Bilinear(5, 6, 7), z(4, 5), z(4, 6)),
    "tied embedding": _tied,
    "embedding": _embedding(),
    "embedding, sparse": _embedding(sparse=True),
    "embedding, max_norm": _embedding(max_norm=1.0),
    "embedding bag": lambda: step(
        nn.Sequential(nn.EmbeddingBag(50, 16), nn.Linear(16, 5)), _tokens(3, 7)
    ),
    "adaptive softmax": lambda: step(
        nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 10]),
        *(z(6, 8), torch.tensor([0, 3, 4, 7, 12, 19])),
        loss=lambda out: out.loss,
    ),
    "matmul, broadcast": _called(torch.matmul, (2, 3, 4, 5), (3, 5, 6)),
    "matmul, vector on the right": _called(torch.matmul, (2, 3, 5), (5,)),
    "matmul, vector on the left": _called(lambda x, w: w @ x, (2, 5, 3), (5,)),
    "einsum": _called(partial(torch.einsum, "bij,jk,kl->bil"), (2, 3, 4), (4, 5), (5, 6)),
    "einsum, traces": _called(partial(torch.einsum, "bij,kj->bk"), (2, 3, 4), (5, 4)),
    "tensordot": _called(partial(torch.tensordot, dims=([1, 2], [0, 1])), (2, 3, 4), (3, 4, 5)),
    "baddbmm": _called(torch.baddbmm, (2, 3, 5), (2, 3, 4), (2, 4, 5)),
    "addmm, weight first": _called(lambda x, b, w: torch.addmm(b, w, x), (4, 5), (3, 5), (3, 4)),
    "chain of products": _called(torch.chain_matmul, (3, 4), (4, 5), (5, 2)),
    "outer": _called(torch.outer, (4,), (5,)),
    "cdist": _called(torch.cdist, (30, 8), (40, 8)),
    "matrix power": _called(lambda x, w: torch.linalg.matrix_power(w, 3) @ x, (4, 2), (4, 4)),
    "linear, complex": lambda: step(
        _Calls(lambda x, a, b: (x.to(torch.complex64) @ torch.complex(a, b)).abs(), (5, 3), (5, 3)),
        z(2, 5),
    ),
    "weight_norm": lambda: step(
        nn.Sequential(weight_norm(nn.Linear(8, 6)), nn.Linear(6, 2)), z(4, 8)
    ),
    "weight_norm, parametrized": lambda: step(
        nn.Sequential(parametrizations.weight_norm(nn.Conv1d(8, 6, 3)), nn.ReLU()), z(2, 8, 9)
    ),
    "spectral_norm": lambda: step(
        nn.Sequential(spectral_norm(nn.Linear(8, 6)), nn.Linear(6, 2)), z(4, 8)
    ),
    "spectral_norm, parametrized": lambda: step(
        nn.Sequential(parametrizations.spectral_norm(nn.Linear(8, 6)), nn.Linear(6, 2)), z(4, 8)
    ),
    "orthogonal": lambda: step(
        nn.Sequential(parametrizations.orthogonal(nn.Linear(8, 8)), nn.Linear(8, 2)), z(4, 8)
    ),
    "gumbel softmax, hard": lambda: step(
        _Calls(lambda x, w: F.gumbel_softmax(x @ w, hard=True) @ w.t(), (8, 6)), z(4, 8)
    ),
}
