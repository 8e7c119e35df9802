"""Recurrent layers, whole: what their cells cost when the loops are written out.

Every formula is per *token*, one row of one time step, so that padded, batch-first and packed
sequences are all priced by the number of tokens. A weight's rows are its gates: four of H in
an LSTM, three in a GRU, one in a plain RNN. Cells are those of ``torch._decomp``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.memory_traffic import gather_elements
from graphflops.pricing.registry import free, register

from ._shapes import contraction

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphflops.core.ir import TensorMeta

_SIGMOID = OpCost(flops=4, transcendentals=1)
_TANH = OpCost(flops=1, transcendentals=1)
_DROPOUT = 3
# Weights (and biases) of one direction of one layer; an odd number ends in the projection.
_WITH_PROJECTION = {3, 5}


def _lstm(units: Dim) -> OpCost:
    # Per unit: 4 gates summed of input and hidden part, 3 sigmoids and a tanh,
    # c = f * c + i * g, h = o * tanh(c).
    return (_SIGMOID * 3 + _TANH * 2 + OpCost(flops=4 + 3 + 1)) * units


def _gru(units: Dim) -> OpCost:
    # Per unit: r and z are sigmoids of a sum, n = tanh(i + r * h), h = (h - n) * z + n.
    return (_SIGMOID * 2 + _TANH + OpCost(flops=2 + 2 + 3)) * units


def _rnn_tanh(units: Dim) -> OpCost:
    return (_TANH + OpCost(flops=1)) * units


def _rnn_relu(units: Dim) -> OpCost:
    return OpCost(flops=2) * units


_CELLS: dict[str, tuple[int, Callable[[Dim], OpCost]]] = {
    "lstm": (4, _lstm),
    "gru": (3, _gru),
    "rnn_tanh": (1, _rnn_tanh),
    "rnn_relu": (1, _rnn_relu),
}
# How ``_cudnn_rnn``, ``miopen_rnn`` and ``mkldnn_rnn_layer`` number them.
MODES = ("rnn_relu", "rnn_tanh", "lstm", "gru")


def _step(kind: str, tokens: Dim, weights: tuple[TensorMeta, ...], biases: int) -> OpCost:
    """One direction of one layer over ``tokens``: its products, its biases, its cell."""
    gates, cell = _CELLS[kind]
    rows = weights[0].shape[0]
    units = rows // gates
    product = contraction(tokens * sum((w.numel for w in weights), start=0), weights[0])
    return product + (cell(units) + OpCost(flops=biases * rows)) * tokens


def _layers(
    kind: str,
    tokens: Dim,
    params: tuple[TensorMeta, ...],
    layers: int,
    directions: int,
    dropout: float,
) -> OpCost:
    """All layers and directions, and dropout of what one layer hands to the next."""
    cost = OpCost()
    for weights, biases in directions_of(params, layers * directions):
        cost += _step(kind, tokens, weights, biases)
    # The hidden product reads what a layer hands on: its columns are the width of that.
    width = directions * params[1].shape[1]
    dropped = tokens * width * (layers - 1) if dropout else 0
    return cost + OpCost(flops=_DROPOUT * dropped)


def directions_of(
    params: tuple[TensorMeta, ...], number: int
) -> list[tuple[tuple[TensorMeta, ...], int]]:
    """The weights of each direction of each layer, a projection last, and how many biases."""
    each = len(params) // number
    found = []
    for start in range(0, len(params), each):
        weights = params[start : start + 2]
        if each in _WITH_PROJECTION:
            weights += (params[start + each - 1],)
        found.append((weights, each - len(weights)))
    return found


def tokens_of(input: TensorMeta) -> Dim:
    """Rows of all time steps, padded or packed."""
    tokens: Dim = 1
    for size in input.shape[:-1]:
        tokens *= size
    return tokens


def _whole(kind: str) -> None:
    formula = f"""A whole ``{kind}``: every layer and direction, over T tokens (steps x batch).

    Per token, layer and direction, MACs are the elements of the weights: G H x I for the
    input, G H x R for the hidden state, R x H for a projection (G gates, hidden size H, input
    I, state R; I is directions x R after the first layer). FLOPs = 2 * MACs, one addition per
    gate row for each bias, and the cell: LSTM 22 H (5 H transcendental), GRU 16 H (3 H), tanh
    2 H (H), relu 2 H. Dropout between layers, in training only: 3 per element.
    """

    @register(f"aten::{kind}.input")
    def padded(
        input: TensorMeta,
        params: tuple[TensorMeta, ...],
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
    ) -> OpCost:
        rate = dropout if train else 0.0
        return _layers(kind, tokens_of(input), params, num_layers, 1 + bidirectional, rate)

    @register(f"aten::{kind}.data")
    def packed(
        data: TensorMeta,
        params: tuple[TensorMeta, ...],
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
    ) -> OpCost:
        rate = dropout if train else 0.0
        return _layers(kind, tokens_of(data), params, num_layers, 1 + bidirectional, rate)

    @register(f"aten::{kind}_cell")
    def cell(
        input: TensorMeta,
        w_ih: TensorMeta,
        w_hh: TensorMeta,
        b_ih: TensorMeta | None,
        b_hh: TensorMeta | None,
    ) -> OpCost:
        biases = (b_ih is not None) + (b_hh is not None)
        return _step(kind, tokens_of(input), (w_ih, w_hh), biases)

    padded.__doc__ = formula
    packed.__doc__ = formula.replace("steps x batch", "rows of the packed data")
    cell.__doc__ = f"One step of one direction of one layer of ``{kind}``, as in the whole one."


for _kind in _CELLS:
    _whole(_kind)


@register("aten::_cudnn_rnn", "aten::miopen_rnn")
def vendor_rnn(
    input: TensorMeta,
    weight: tuple[TensorMeta, ...],
    mode: int,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
) -> OpCost:
    """The kernels of cuDNN and MIOpen: as ``lstm``, ``gru`` or ``rnn``, which ``mode`` says."""
    rate = dropout if train else 0.0
    return _layers(MODES[mode], tokens_of(input), weight, num_layers, 1 + bidirectional, rate)


@register("aten::mkldnn_rnn_layer")
def mkldnn_rnn_layer(
    input: TensorMeta, weight0: TensorMeta, weight1: TensorMeta, mode: int, has_biases: bool
) -> OpCost:
    """oneDNN's kernel for one direction of one layer: as ``lstm`` of one layer."""
    return _step(MODES[mode], tokens_of(input), (weight0, weight1), 2 if has_biases else 0)


@register("aten::_thnn_fused_lstm_cell")
def fused_lstm_cell(cx: TensorMeta, input_bias: TensorMeta | None) -> OpCost:
    """The pointwise half of ``lstm_cell``, products done: 22 per unit, 8 more for two biases."""
    biases = 0 if input_bias is None else 2 * 4
    return _lstm(cx.numel) + OpCost(flops=biases * cx.numel)


@register("aten::_thnn_fused_gru_cell")
def fused_gru_cell(hx: TensorMeta, input_bias: TensorMeta | None) -> OpCost:
    """The pointwise half of ``gru_cell``, products done: 16 per unit, 6 more for two biases."""
    biases = 0 if input_bias is None else 2 * 3
    return _gru(hx.numel) + OpCost(flops=biases * hx.numel)


free(
    "aten::_pack_padded_sequence",
    reason="copy: the rows of sequences without their padding, step by step",
    traffic=gather_elements,
)
