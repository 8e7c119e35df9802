"""Backward of recurrent layers and cells: the gradients of their products and of the cell.

Gates are kept by the forward. As there, everything is per *token*, one row of one time step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.registry import register

from ._shapes import contraction, summed
from .rnn import MODES, directions_of, tokens_of

if TYPE_CHECKING:
    from graphflops.core.ir import OpCall, TensorMeta

# Per unit, from the gradients of h and c to those of the gates and of the last state.
# LSTM: tanh(c) again; o: g tanh(c); c: g o (1 - tanh(c)^2) added, 5; i, f, g and the last c a
# product each; three sigmoids' derivatives and a tanh's, 3 each.
_LSTM = OpCost(flops=1 + 1 + 5 + 4 + 4 * 3, transcendentals=1)
# GRU: z: g (h - n) and the sigmoid's, 5; n: g (1 - z) and the tanh's, 5; the hidden part of n
# its product with r; r: product with that part and the sigmoid's, 4; the last h: g z.
_GRU = OpCost(flops=5 + 5 + 1 + 4 + 1)
_CELLS = {
    "lstm": (_LSTM, 4, 1),
    "gru": (_GRU, 3, 2),
    "rnn_tanh": (OpCost(flops=3), 1, 1),
    "rnn_relu": (OpCost(flops=1), 1, 1),
}
"""Of a kind: the cell per unit, its gates, and how many biases have gradients of their own."""


def _step(
    kind: str,
    tokens: Dim,
    weights: tuple[TensorMeta, ...],
    biases: int,
    asked: tuple[bool, bool],
) -> OpCost:
    """One direction of one layer; ``asked`` are the gradients of its input and its weights."""
    cell, gates, _ = _CELLS[kind]
    rows = weights[0].shape[0]
    of_input, of_weights = asked
    # The state's gradient runs through all steps whatever is asked for.
    macs = sum((w.numel for w in weights), start=0) - (0 if of_input else weights[0].numel)
    # What comes from the output and from the next step is added in each state.
    joined = OpCost(flops=weights[1].shape[1])
    cost = contraction(tokens * macs, weights[0]) + (cell * (rows // gates) + joined) * tokens
    if of_weights:
        cost += contraction(tokens * sum((w.numel for w in weights), start=0), weights[0])
    if of_weights and biases:
        cost += OpCost(flops=_summed_biases(kind, tokens, weights[0]))
    return cost


def _summed_biases(kind: str, tokens: Dim, weight: TensorMeta) -> Dim:
    *_, distinct = _CELLS[kind]
    return distinct * (tokens - 1) * weight.shape[0]


@register("aten::mkldnn_rnn_layer_backward", position_dependent=False)
def mkldnn_rnn_layer_backward(
    input: TensorMeta,
    weight1: TensorMeta,
    weight2: TensorMeta,
    hx_: TensorMeta,
    mode: int,
    hidden_size: int,
    has_biases: bool,
    *,
    call: OpCall,
) -> OpCost:
    """One direction of one layer over T tokens, gates of G H rows, state R: all gradients.

    MACs are twice the forward's, T * 2 (G H I + G H R). Per token the cell (LSTM 23 H, GRU
    16 H, tanh 3 H, relu H) and R additions of what comes from the next step; the bias's
    gradient sums T rows to one, of a GRU two. Without the gradients that nobody asks for, which
    the kernel makes all the same: that of the input, of the weights, and of the first state,
    whose batch of tokens is then passed over. ``cx_tmp`` stands for what runs through the steps.
    """
    unused, tokens, kind = call.discarded_gradients, tokens_of(input), MODES[mode]
    cost = OpCost()
    if "cx_tmp" not in unused:
        cost += _step(kind, tokens, (weight1, weight2), 0, ("input" not in unused, False))
        if "hx_" in unused:
            batch = hx_.numel // hidden_size
            cost += contraction(batch * weight2.numel, weight2) * -1
    for name, weight in (("weight1", weight1), ("weight2", weight2)):
        if name not in unused:
            cost += contraction(tokens * weight.numel, weight)
    if has_biases and not {"weight3", "weight4"} <= unused:
        cost += OpCost(flops=_summed_biases(kind, tokens, weight1))
    return cost


@register("aten::_cudnn_rnn_backward", "aten::miopen_rnn_backward")
def vendor_rnn_backward(
    input: TensorMeta,
    weight: tuple[TensorMeta, ...],
    mode: int,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    output_mask: tuple[bool, bool, bool, bool],
) -> OpCost:
    """All layers and directions, as ``mkldnn_rnn_layer_backward``.

    ``output_mask`` asks for the gradients of input, state, cell and weights; those of the
    first layer's input and of the weights cost nothing where it does not. Inputs of two
    directions add their gradients, dropout between layers costs 2 per element.
    """
    kind, tokens, sides = MODES[mode], tokens_of(input), 1 + bidirectional
    cost = OpCost()
    for place, (weights, biases) in enumerate(directions_of(weight, num_layers * sides)):
        layer, side = divmod(place, sides)
        asked = (layer > 0 or output_mask[0], output_mask[3])
        cost += _step(kind, tokens, weights, biases, asked)
        inputs = tokens * weights[0].shape[1]
        joined = inputs if side and asked[0] else 0
        dropped = 2 * inputs if layer and not side and dropout and train else 0
        cost += OpCost(flops=joined + dropped)
    return cost


@register("aten::_thnn_fused_lstm_cell_backward", "aten::_thnn_fused_lstm_cell_backward_impl")
def fused_lstm_cell_backward(cx: TensorMeta, workspace: TensorMeta, has_bias: bool) -> OpCost:
    """The pointwise half of a cell: 23 per unit, one transcendental, and the bias's sum.

    (B, 4 H) gates: 4 H (B - 1) additions for both biases, which have one gradient.
    """
    cost = _LSTM * cx.numel
    return cost + summed(workspace, workspace.shape[1]) if has_bias else cost


@register("aten::_thnn_fused_gru_cell_backward")
def fused_gru_cell_backward(grad_hy: TensorMeta, has_bias: bool) -> OpCost:
    """The pointwise half of a cell: 16 per unit, and 3 H (B - 1) additions for either bias."""
    batch, units = grad_hy.shape
    return _GRU * grad_hy.numel + OpCost(flops=2 * 3 * units * (batch - 1) if has_bias else 0)
