"""Packed sequences: their number of rows follows from the lengths, which must be known."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch

from graphflops.capture.fake.value_lookup import ValueLookup
from graphflops.capture.source_lines import current_source_line
from graphflops.capture.torch_internals.no_modes import no_modes
from graphflops.capture.torch_internals.operators import pad_packed_sequence
from graphflops.errors import CaptureError

PACK = torch.ops.aten._pack_padded_sequence.default
PAD: Any = pad_packed_sequence


def pack(
    values: ValueLookup,
    input: torch.Tensor,  # noqa: A002 - the operator's own names
    lengths: torch.Tensor,
    batch_first: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of padded sequences, fake, and the batch size of each step.

    The batch sizes are a real tensor: the operator's backward, and no other, reads its memory.

    Raises:
        CaptureError: The lengths are not known.
    """
    value = _value(values, lengths, "lengths")
    steps = torch.empty([int(size) for size in input.shape[:2]])
    with no_modes():
        rows, batch_sizes = PACK(steps, value, batch_first)
    return input.new_empty((len(rows), *input.shape[2:])), batch_sizes


def pad(  # noqa: PLR0913, PLR0917 - the operator's own
    values: ValueLookup,
    data: torch.Tensor,
    batch_sizes: torch.Tensor,
    batch_first: bool,
    padding_value: float,
    total_length: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return padded sequences and their lengths, as the kernel makes them (``PackedSequence.cpp``).

    The kernel reads memory, and runs above all operators that a mode sees.

    Raises:
        CaptureError: The batch sizes of the steps are not known.
    """
    sizes = _value(values, batch_sizes, "batch sizes").tolist()
    padded = data.new_full((total_length, sizes[0], *data.shape[1:]), padding_value)
    row = step = 0
    for size, run in groupby(sizes):
        steps = len(list(run))
        rows = data[row : row + steps * size].view(steps, size, *data.shape[1:])
        padded[step : step + steps, :size].copy_(rows)
        row, step = row + steps * size, step + steps
    lengths = torch.tensor([sum(size > i for size in sizes) for i in range(sizes[0])])
    return padded.transpose(0, 1) if batch_first else padded, lengths


def _value(values: ValueLookup, tensor: torch.Tensor, name: str) -> torch.Tensor:
    value = values.value(tensor)
    if value is None:
        line = current_source_line()
        raise CaptureError(
            f"the {name} of sequences{f' at {line}' if line else ''} are not known, and how many "
            "rows are computed follows from them. Give them as numbers, or in a tensor with data."
        )
    values.note_dependence(tensor)
    return value
