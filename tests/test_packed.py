"""Packed sequences: a recurrent layer costs by the rows that are no padding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from calls import count
from torch import nn
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf


class Packed(nn.Module):
    """A recurrent layer over sequences of several lengths, padded again."""

    def __init__(
        self, rnn: nn.RNNBase, *, is_sorted: bool = True, total: int | None = None
    ) -> None:
        super().__init__()
        self.rnn, self.is_sorted, self.total = rnn, is_sorted, total

    def forward(self, x: torch.Tensor, lengths: Any) -> tuple[torch.Tensor, torch.Tensor]:
        batch_first = self.rnn.batch_first
        packed = pack_padded_sequence(
            x, lengths, batch_first=batch_first, enforce_sorted=self.is_sorted
        )
        out, _ = self.rnn(packed)
        return pad_packed_sequence(out, batch_first=batch_first, total_length=self.total)


SORTED, UNSORTED = torch.tensor([7, 3, 1]), torch.tensor([4, 10, 7])
STEPS, BATCHES = torch.rand(7, 3, 10), torch.rand(3, 10, 32)
CASES: dict[str, tuple[Packed, torch.Tensor, Any, int]] = {
    "lstm": (Packed(nn.LSTM(10, 20)), STEPS, SORTED, 11 * 4 * 20 * (10 + 20)),
    "gru": (Packed(nn.GRU(10, 20)), STEPS, SORTED, 11 * 3 * 20 * (10 + 20)),
    "rnn": (Packed(nn.RNN(10, 20)), STEPS, SORTED, 11 * 20 * (10 + 20)),
    "relu": (Packed(nn.RNN(10, 20, nonlinearity="relu")), STEPS, SORTED, 11 * 20 * (10 + 20)),
    "a list": (Packed(nn.LSTM(10, 20)), STEPS, [7, 3, 1], 11 * 4 * 20 * (10 + 20)),
    "int32": (Packed(nn.LSTM(10, 20)), STEPS, SORTED.int(), 11 * 4 * 20 * (10 + 20)),
    "one length": (Packed(nn.GRU(10, 20)), STEPS, [5, 5, 5], 15 * 3 * 20 * (10 + 20)),
    "padded further": (Packed(nn.GRU(10, 20), total=9), STEPS, SORTED, 11 * 3 * 20 * (10 + 20)),
    "two directions": (
        Packed(nn.LSTM(10, 20, bidirectional=True)),
        STEPS,
        SORTED,
        2 * 11 * 4 * 20 * (10 + 20),
    ),
    "projected": (
        Packed(nn.LSTM(10, 20, proj_size=5)),
        STEPS,
        SORTED,
        11 * (4 * 20 * (10 + 5) + 5 * 20),
    ),
    "unsorted, batch first": (
        Packed(nn.LSTM(32, 64, num_layers=2, batch_first=True), is_sorted=False),
        BATCHES,
        UNSORTED,
        21 * 4 * 64 * ((32 + 64) + (64 + 64)),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_rows_are_multiplied_and_padding_is_not(case: str) -> None:
    model, x, lengths, macs = CASES[case]
    report = gf.count(model, (x, lengths))
    assert (report.macs, report.complete) == (macs, True)
    with FlopCounterMode(display=False) as counter:
        out, _ = model(x, lengths)
    assert counter.get_total_flops() == 2 * macs
    # Nothing but the layer computes: packing and padding move elements.
    assert report.flops == report.by_module()["rnn"].flops
    padded = [r.call for r in report.records if r.call.outputs[0].shape == tuple(out.shape)]
    assert padded


@pytest.mark.parametrize("case", CASES)
def test_training_is_what_a_run_multiplies(case: str) -> None:
    model, x, lengths, macs = CASES[case]
    report = gf.count_training(model, (x, lengths), loss=lambda out: out[0].sum())
    assert (report.forward.macs, report.complete) == (macs, True)
    with FlopCounterMode(display=False) as counter:
        model(x, lengths)[0].sum().backward()
    model.zero_grad()
    assert 2 * (report.forward.macs + report.backward.macs) == counter.get_total_flops()


def test_gradients_of_inputs_are_packed_again() -> None:
    model, x, lengths, macs = CASES["lstm"]
    report = gf.count_training(
        model, (x.clone().requires_grad_(), lengths), loss=lambda out: out[0].sum()
    )
    # Without the gradient of the first state of three rows.
    assert report.backward.macs == 2 * macs - 3 * 4 * 20 * 20
    assert report.complete


def test_lengths_on_meta_are_refused() -> None:
    model, x, lengths, _ = CASES["lstm"]
    with pytest.raises(gf.CaptureError, match=r"lengths of sequences at .* are not known"):
        gf.count(model, (x, lengths.to("meta")))


def test_a_note_says_that_lengths_decide() -> None:
    model, x, lengths, _ = CASES["lstm"]
    notes = gf.count(model, (x.to("meta"), lengths)).capture.notes
    assert any("follow from values of the inputs" in note for note in notes)


def test_sequences_that_come_packed() -> None:
    rnn = nn.LSTM(10, 20)

    def run(packed: PackedSequence) -> Any:
        out, _ = rnn(packed)
        return out.data

    packed = pack_padded_sequence(STEPS, SORTED)
    assert count(run, packed).macs == 11 * 4 * 20 * (10 + 20)


def test_sequences_that_are_packed_from_a_list() -> None:
    gru = nn.GRU(10, 20)

    def run(*sequences: torch.Tensor) -> torch.Tensor:
        out, _ = gru(pack_sequence(list(sequences)))
        return pad_packed_sequence(out)[0]

    report = count(run, torch.rand(6, 10), torch.rand(2, 10))
    assert report.macs == 8 * 3 * 20 * (10 + 20)
