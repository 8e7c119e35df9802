"""Recurrent layers against their cells written out in a loop."""

from __future__ import annotations

from typing import Any

import pytest
import sympy
import torch
import torch.nn.functional as F
from calls import count, count_call, meta
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf

STEPS, BATCH, INPUTS, HIDDEN = 2, 3, 4, 6
aten = torch.ops.aten


def lstm_step(x: torch.Tensor, state: Any, p: dict[str, Any]) -> Any:
    h, c = state
    gates = F.linear(x, p["ih"], p["bih"]) + F.linear(h, p["hh"], p["bhh"])
    i, f, g, o = gates.chunk(4, -1)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    h = o.sigmoid() * c.tanh()
    return (h if p["hr"] is None else F.linear(h, p["hr"])), c


def gru_step(x: torch.Tensor, state: Any, p: dict[str, Any]) -> Any:
    (h,) = state
    ir, iz, in_ = F.linear(x, p["ih"], p["bih"]).chunk(3, -1)
    hr, hz, hn = F.linear(h, p["hh"], p["bhh"]).chunk(3, -1)
    n = (in_ + (ir + hr).sigmoid() * hn).tanh()
    return (n + (iz + hz).sigmoid() * (h - n),)


def tanh_step(x: torch.Tensor, state: Any, p: dict[str, Any]) -> Any:
    return ((F.linear(x, p["ih"], p["bih"]) + F.linear(state[0], p["hh"], p["bhh"])).tanh(),)


def relu_step(x: torch.Tensor, state: Any, p: dict[str, Any]) -> Any:
    return ((F.linear(x, p["ih"], p["bih"]) + F.linear(state[0], p["hh"], p["bhh"])).relu(),)


class Unrolled(nn.Module):
    """A recurrent layer as Python loops over layers, directions and steps."""

    def __init__(self, layer: Any, step: Any) -> None:
        super().__init__()
        self.layer, self.step = layer, step

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        if layer.batch_first:
            x = x.transpose(0, 1)
        for index in range(layer.num_layers):
            if index and layer.training and layer.dropout:
                x = F.dropout(x, layer.dropout)
            sides = ["", "_reverse"] if layer.bidirectional else [""]
            x = torch.cat([self.direction(x, f"l{index}{side}") for side in sides], -1)
        return x

    def direction(self, x: torch.Tensor, suffix: str) -> torch.Tensor:
        names = {"ih": "weight_ih", "hh": "weight_hh", "hr": "weight_hr"}
        names |= {"bih": "bias_ih", "bhh": "bias_hh"}
        p = {k: getattr(self.layer, f"{name}_{suffix}", None) for k, name in names.items()}
        wide = self.layer.proj_size or self.layer.hidden_size
        state = [x.new_zeros(x.shape[1], wide)]
        if self.step is lstm_step:
            state.append(x.new_zeros(x.shape[1], self.layer.hidden_size))
        rows = []
        for row in x.flip(0) if suffix.endswith("_reverse") else x:
            state = self.step(row, state, p)
            rows.append(state[0])
        return torch.stack(rows)


OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2},
    {"num_layers": 2, "bidirectional": True},
    {"num_layers": 2, "bias": False},
    {"num_layers": 3, "dropout": 0.5},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
]
PROJECTED: list[dict[str, Any]] = [
    {"num_layers": 2, "bidirectional": True, "proj_size": 2},
    {"proj_size": 2, "bias": False},
]
KINDS: dict[str, tuple[Any, Any, dict[str, Any], list[dict[str, Any]]]] = {
    "lstm": (nn.LSTM, lstm_step, {}, OPTIONS + PROJECTED),
    "gru": (nn.GRU, gru_step, {}, OPTIONS),
    "tanh": (nn.RNN, tanh_step, {}, OPTIONS),
    "relu": (nn.RNN, relu_step, {"nonlinearity": "relu"}, OPTIONS),
}
CASES = [(kind, options) for kind, (*_, every) in KINDS.items() for options in every]


def build(kind: str, options: dict[str, Any]) -> tuple[Any, Any, torch.Tensor]:
    cls, step, extra, _ = KINDS[kind]
    layer = cls(INPUTS, HIDDEN, device="meta", **extra, **options)
    shape = (BATCH, STEPS, INPUTS) if options.get("batch_first") else (STEPS, BATCH, INPUTS)
    return layer, step, meta(*shape)


def work(report: gf.Report) -> tuple[Any, Any, Any]:
    assert report.complete
    return report.macs, report.flops, report.transcendentals


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_a_layer_costs_what_its_cells_cost(kind: str, options: dict[str, Any]) -> None:
    layer, step, x = build(kind, options)
    whole = gf.count(layer, (x,))
    assert f"aten::{layer.mode.lower()}" in whole.by_operator()
    assert work(whole) == work(gf.count(Unrolled(layer, step), (x,)))


def test_dropout_between_layers_is_for_training() -> None:
    layer, _, x = build("gru", {"num_layers": 3, "dropout": 0.5})
    trained = gf.count(layer, (x,))
    evaluated = gf.count(layer.eval(), (x,))
    # What two of three layers hand on: a comparison, a mask and a scale per element.
    assert trained.flops - evaluated.flops == 3 * 2 * (2 * 3 * 6)


@pytest.mark.parametrize(("kind", "options"), CASES, ids=str)
def test_products_equal_flop_counter_mode_on_meta(kind: str, options: dict[str, Any]) -> None:
    layer, _, x = build(kind, options)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        layer(x)
    assert 2 * gf.count(layer, (x,)).macs == counter.get_total_flops()


def test_the_products_by_hand() -> None:
    layer, _, x = build("lstm", {"num_layers": 2, "bidirectional": True, "proj_size": 2})
    first = 4 * 6 * 4 + 4 * 6 * 2 + 2 * 6
    second = 4 * 6 * (2 * 2) + 4 * 6 * 2 + 2 * 6
    assert gf.count(layer, (x,)).macs == 2 * 3 * 2 * (first + second)
    layer, _, x = build("gru", {})
    assert gf.count(layer, (x,)).macs == 2 * 3 * (3 * 6 * 4 + 3 * 6 * 6)


def test_the_cell_by_hand() -> None:
    layer, _, x = build("lstm", {"bias": False})
    report = gf.count(layer, (x,))
    # 4 gates added; three sigmoids of 4, two tanh; two products and a sum for c, one for h.
    per_unit = 4 + 3 * 4 + 2 + 3 + 1
    assert report.flops == 2 * report.macs + 2 * 3 * 6 * per_unit
    assert report.transcendentals == 2 * 3 * 6 * 5


@pytest.mark.parametrize(
    ("layer", "cell"),
    [
        (nn.LSTM, nn.LSTMCell),
        (nn.GRU, nn.GRUCell),
        (nn.RNN, nn.RNNCell),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_cell_is_a_layer_of_one_step(layer: Any, cell: Any, bias: bool) -> None:
    one = gf.count(layer(4, 6, bias=bias, device="meta"), (meta(1, 3, 4),))
    assert work(gf.count(cell(4, 6, bias=bias, device="meta"), (meta(3, 4),))) == work(one)


def test_an_unbatched_sequence_is_a_batch_of_one() -> None:
    layer = nn.GRU(4, 6, device="meta")
    assert work(gf.count(layer, (meta(5, 4),))) == work(gf.count(layer, (meta(5, 1, 4),)))


def test_a_symbolic_batch_gives_the_concrete_number() -> None:
    # torch.export freezes the length of a recurrent layer (pt#193192), not the batch.
    layer = nn.LSTM(4, 6, 2, batch_first=True, bidirectional=True, device="meta")
    sizes = ({0: torch.export.Dim("B", min=2)},)
    symbolic = gf.count(layer, (meta(3, 2, 4),), dynamic_shapes=sizes)
    (name,) = (symbol.name for symbol in sympy.sympify(symbolic.flops).free_symbols)
    assert symbolic.total.subs(**{name: 7}) == gf.count(layer, (meta(7, 2, 4),)).total


def test_packed_sequences_cost_their_tokens() -> None:
    layer: Any = nn.LSTM(4, 6, device="meta")
    weights = list(layer.parameters())
    state = [meta(1, 3, 6), meta(1, 3, 6)]
    sizes = torch.tensor([3, 3, 2, 1])
    packed = count_call(
        aten.lstm.data,
        *(meta(9, 4), sizes, state, weights, True, 1, 0.0, False, False),
        out=(meta(9, 6), meta(1, 3, 6), meta(1, 3, 6)),
    )
    assert work(packed) == work(gf.count(layer, (meta(9, 1, 4),)))


def test_kernels_of_vendors_cost_the_same() -> None:
    layer: Any = nn.GRU(4, 6, 2, bidirectional=True, device="meta")
    x, h = meta(5, 3, 4), meta(4, 3, 6)
    cudnn = count_call(
        aten._cudnn_rnn.default,
        *(x, list(layer.parameters()), 4, None, h, None, 3, 6, 0, 2, False, 0.0, False, True),
        *([], None),
        out=(meta(5, 3, 12), h, h, meta(1), meta(1)),
    )
    assert work(cudnn) == work(gf.count(layer, (x,)))
    lstm: Any = nn.LSTM(4, 6, device="meta")
    mkldnn = count_call(
        aten.mkldnn_rnn_layer.default,
        *(x, *lstm.parameters(), meta(3, 6), meta(3, 6), False, [], 2, 6, 1, True, False, False),
        False,
        out=(meta(5, 3, 6), meta(3, 6), meta(3, 6), meta(1)),
    )
    assert work(mkldnn) == work(gf.count(lstm, (x,)))


@pytest.mark.parametrize(("gates", "step"), [(4, lstm_step), (3, gru_step)])
def test_fused_cells_are_cells_without_their_products(gates: int, step: Any) -> None:
    x, h, c = meta(3, 4), meta(3, 6), meta(3, 6)
    p = [meta(gates * 6, 4), meta(gates * 6, 6), meta(gates * 6), meta(gates * 6)]

    def cell(x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, *p: torch.Tensor) -> Any:
        names = dict(zip(("ih", "hh", "bih", "bhh"), p, strict=True))
        return step(x, (h, c) if gates == 4 else (h,), {**names, "hr": None})

    whole = count(cell, x, h, c, *p)
    sums, biases = (meta(3, gates * 6), meta(3, gates * 6)), p[2:]
    if gates == 4:
        fused = count_call(
            aten._thnn_fused_lstm_cell.default, *sums, c, *biases, out=(h, c, meta(3, 24))
        )
    else:
        fused = count_call(
            aten._thnn_fused_gru_cell.default, *sums, h, *biases, out=(h, meta(3, 30))
        )
    assert (fused.flops, fused.macs) == (whole.flops - 2 * whole.macs, 0)
    assert fused.transcendentals == whole.transcendentals
