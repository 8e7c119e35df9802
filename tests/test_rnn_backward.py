"""Backward of recurrent layers: against autograd through their cells."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch
from calls import count, count_call, meta
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
B, T, INPUTS, H = 3, 5, 4, 6
x, h = meta(T, B, INPUTS), meta(B, H)


def weights(layer: Any) -> list[torch.Tensor]:
    return [meta(*parameter.shape) for parameter in layer.parameters()]


def cudnn(layer: Any, mode: int, mask: tuple[bool, ...] = (True,) * 4, **options: Any) -> Any:
    sides = 2 if layer.bidirectional else 1
    state = meta(layer.num_layers * sides, B, layer.hidden_size)
    out = meta(T, B, sides * (getattr(layer, "proj_size", 0) or layer.hidden_size))
    return count_call(
        aten._cudnn_rnn_backward.default,
        *(x, weights(layer), 4, meta(1), state, state, out, out, state, state, mode),
        *(layer.hidden_size, 0, layer.num_layers, False, options.get("dropout", 0.0), True),
        *(layer.bidirectional, [], None, meta(1), list(mask)),
        out=(x, state, state, *weights(layer)),
    )


def mkldnn(layer: Any, mode: int) -> Any:
    state, out = meta(B, H), meta(T, B, H)
    params = weights(layer)
    padded = params if layer.bias else [*params, meta(1), meta(1)]
    return count_call(
        aten.mkldnn_rnn_layer_backward.default,
        *(x, *padded, state, state, out, state, state, out, state, state),
        *(False, mode, H, 1, layer.bias, True, False, [], False, meta(1)),
        out=(x, *params, state, state),
    )


MODES = {nn.LSTM: 2, nn.GRU: 3}


@pytest.mark.parametrize("kind", MODES)
@pytest.mark.parametrize("bias", [True, False])
def test_products_are_twice_those_of_the_forward(kind: Any, bias: bool) -> None:
    layer = kind(INPUTS, H, bias=bias, device="meta")
    forward = count(layer, x).macs
    assert mkldnn(layer, MODES[kind]).macs == cudnn(layer, MODES[kind]).macs == 2 * forward
    deep = kind(INPUTS, H, 2, bidirectional=True, device="meta")
    assert cudnn(deep, MODES[kind]).macs == 2 * count(deep, x).macs
    # Neither the weights' nor the input's, which is that of both directions.
    rest = cudnn(deep, MODES[kind], (False, True, True, False)).macs
    gates = 4 if kind is nn.LSTM else 3
    assert rest == count(deep, x).macs - T * B * 2 * gates * H * INPUTS


def test_products_equal_flop_counter_mode_on_meta() -> None:
    layer = nn.LSTM(INPUTS, H, device="meta")
    inputs = [t.requires_grad_() for t in (meta(T, B, INPUTS), meta(1, B, H), meta(1, B, H))]
    with FlopCounterMode(display=False) as counter:
        out, _ = layer(inputs[0], (inputs[1], inputs[2]))
        out.sum().backward()
    assert counter.get_total_flops() == 2 * (count(layer, x).macs + mkldnn(layer, 2).macs)


def test_an_lstm_cell_costs_what_autograd_does_and_tanh_again() -> None:
    def cell(gates: torch.Tensor, cx: torch.Tensor) -> torch.Tensor:
        i, f, g, o = gates.chunk(4, -1)
        cy = f.sigmoid() * cx + i.sigmoid() * g.tanh()
        return torch.cat([o.sigmoid() * cy.tanh(), cy])

    expected = oracle.backward(cell, meta(B, 4 * H), meta(B, H))
    assert not expected.stopped
    for bias in (False, True):
        ours = count_call(
            aten._thnn_fused_lstm_cell_backward.default,
            *(h, h.clone(), h.clone(), h.clone(), meta(B, 4 * H), bias),
            out=(meta(B, 4 * H), meta(B, 4 * H), h, meta(4 * H), meta(4 * H)),
        )
        summed = 4 * H * (B - 1) if bias else 0
        assert ours.flops == expected.flops + B * H + summed
        assert ours.transcendentals == B * H


@pytest.mark.parametrize("bias", [False, True])
def test_a_gru_cell_by_hand(bias: bool) -> None:
    ours = count_call(
        aten._thnn_fused_gru_cell_backward.default,
        *(h, meta(B, 5 * H), bias),
        out=(meta(B, 3 * H), meta(B, 3 * H), h, meta(3 * H), meta(3 * H)),
    )
    # g (h - n) (1 - z) z; g (1 - z) (1 - n n), times r; that times hn (1 - r) r; g z.
    per_unit = (1 + 1 + 1 + 1 + 1) + (1 + 1 + 1 + 1 + 1) + 1 + (1 + 1 + 1 + 1) + 1
    assert ours.flops == B * H * per_unit + (2 * 3 * H * (B - 1) if bias else 0)


@pytest.mark.parametrize("kind", MODES)
def test_a_layer_is_its_products_its_cells_and_what_is_added(kind: Any) -> None:
    gates, cell, biases = (4, 23, 1) if kind is nn.LSTM else (3, 16, 2)
    report = mkldnn(kind(INPUTS, H, device="meta"), MODES[kind])
    # Each state's gradient comes from the output and from the next step.
    steps = T * B * H * (cell + 1)
    assert report.flops == 2 * report.macs + steps + biases * gates * H * (T * B - 1)
    assert report.transcendentals == (T * B * H if kind is nn.LSTM else 0)


def test_directions_join_and_dropout_counts_between_layers() -> None:
    deep = nn.LSTM(INPUTS, H, 2, bidirectional=True, bias=False, device="meta")
    report = cudnn(deep, 2)
    steps = 4 * T * B * H * (23 + 1)
    # Inputs of either layer get a gradient from each direction.
    joined = T * B * (INPUTS + 2 * H)
    assert report.flops == 2 * report.macs + steps + joined
    assert cudnn(deep, 2, dropout=0.5).flops - report.flops == 2 * T * B * 2 * H


def test_plain_cells_are_their_functions_derivatives() -> None:
    for mode, per_unit in ((0, 1), (1, 3)):
        layer = nn.RNN(INPUTS, H, bias=False, device="meta")
        report = mkldnn(layer, mode)
        assert report.flops - 2 * report.macs == T * B * H * (per_unit + 1)
