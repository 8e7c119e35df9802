"""Jagged nested tensors: rows of several lengths, none of them padding."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from calls import Call
from torch import nn

import graphflops as gf


def _jagged(*lengths: int) -> torch.Tensor:
    rows = [torch.rand(length, 8) for length in lengths]
    return torch.nested.nested_tensor(rows, layout=torch.jagged)


class Attention(nn.Module):
    """Attention within each sequence."""

    def __init__(self, heads: int, *, is_causal: bool = False) -> None:
        super().__init__()
        self.project, self.heads, self.is_causal = nn.Linear(8, 24), heads, is_causal

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.project(x).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        rows: torch.Tensor = out.transpose(1, 2).flatten(2)
        return rows


class Block(nn.Module):
    """A block of a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.attention, self.norm = Attention(2), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attention(x)
        rows: torch.Tensor = x + self.down(F.gelu(self.up(self.norm(x))))
        return rows


PROJECTED, SCORED = 8 * 8 * 24, 2 * 8 * (3 * 3 + 5 * 5)
"""MACs of 8 rows for q, k and v, and of attention over sequences of 3 and of 5."""
BLOCK = PROJECTED + SCORED + 2 * 8 * 8 * 32


@pytest.mark.parametrize(
    ("model", "macs"),
    [
        (nn.Linear(8, 4), 8 * 8 * 4),
        (Attention(1), PROJECTED + SCORED),
        (Attention(2), PROJECTED + SCORED),
        (Attention(2, is_causal=True), PROJECTED + SCORED),
        (Block(), BLOCK),
    ],
)
def test_rows_of_all_sequences_and_pairs_within_each(model: nn.Module, macs: int) -> None:
    report = gf.count(model, (_jagged(3, 5),))
    assert (report.macs, report.complete) == (macs, True)


def test_elementwise_work_is_on_all_rows() -> None:
    report = gf.count(Call(lambda x: F.relu(x) + x), (_jagged(3, 5),))
    assert report.flops == 2 * 8 * 8


def _made(x: torch.Tensor, y: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
    return torch.nested.as_nested_tensor([x, y], layout=torch.jagged)


def _viewed(x: torch.Tensor, y: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return torch.nested.nested_tensor_from_jagged(torch.cat([x, y]), offsets)


@pytest.mark.parametrize("make", [_made, _viewed])
def test_sequences_that_are_put_together_inside(make: Any) -> None:
    linear, attention = nn.Linear(8, 8), Attention(2)

    def run(x: torch.Tensor, y: torch.Tensor, offsets: torch.Tensor) -> Any:
        return attention(linear(make(x, y, offsets))).to_padded_tensor(0.0)

    model = Call(run)
    model.linear, model.attention = linear, attention
    report = gf.count(model, (torch.rand(3, 8), torch.rand(5, 8), torch.tensor([0, 3, 8])))
    assert (report.macs, report.complete) == (8 * 8 * 8 + PROJECTED + SCORED, True)


def test_a_buffer_of_sequences() -> None:
    class Queries(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.queries = _jagged(3, 5)
            self.attention = Attention(1)

        def forward(self) -> torch.Tensor:
            out: torch.Tensor = self.attention(self.queries)
            return out

    assert gf.count(Queries(), ()).macs == PROJECTED + SCORED


def _sum(out: torch.Tensor) -> torch.Tensor:
    return out.values().sum()


def test_training_is_twice_the_forward_but_for_what_nobody_asks() -> None:
    report = gf.count_training(Attention(2), (_jagged(3, 5),), loss=_sum)
    assert report.forward.macs == PROJECTED + SCORED
    assert report.backward.macs == PROJECTED + 2 * SCORED  # no gradient of the input
    assert report.complete
    asked = _jagged(3, 5).requires_grad_()
    report = gf.count_training(Attention(2), (asked,), loss=_sum)
    assert report.backward.macs == 2 * (PROJECTED + SCORED)


@pytest.mark.parametrize("reuse_layers", [True, False])
def test_layers_in_a_row(reuse_layers: bool) -> None:
    model = nn.Sequential(*[Block() for _ in range(4)])
    report = gf.count(model, (_jagged(3, 5),), reuse_layers=reuse_layers)
    assert report.macs == 4 * BLOCK
    report = gf.count(model, (_jagged(8),), reuse_layers=reuse_layers)
    assert report.macs == 4 * (BLOCK - SCORED + 2 * 8 * 8 * 8)


def test_inputs_are_named_by_their_parts() -> None:
    report = gf.count(nn.Linear(8, 4), (_jagged(3, 5),))
    shapes = {name: meta.shape for name, meta in report.capture.inputs}
    assert shapes == {"input_values": (8, 8), "input_offsets": (3,)}


@pytest.mark.parametrize(
    ("model", "x", "message"),
    [
        (nn.Linear(8, 4), None, r"layout=torch\.jagged"),
        (Call(lambda x: F.scaled_dot_product_attention(x, x, x)), _jagged(3), "an axis of heads"),
    ],
)
def test_what_cannot_be_had_is_one_sentence(
    model: nn.Module, x: torch.Tensor | None, message: str
) -> None:
    with warnings.catch_warnings(action="ignore"):  # torch's own of the strided layout
        x = torch.nested.nested_tensor([torch.rand(3, 8)]) if x is None else x
    with pytest.raises(gf.CaptureError, match=message):
        gf.count(model, (x,))


def test_offsets_on_meta_decide_nothing_but_attention() -> None:
    values, offsets = torch.rand(8, 8), torch.empty(3, dtype=torch.int64, device="meta")
    model = nn.Linear(8, 8)

    class OfParts(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, values: torch.Tensor, offsets: torch.Tensor) -> Any:
            return self.inner(torch.nested.nested_tensor_from_jagged(values, offsets))

    assert gf.count(OfParts(model), (values, offsets)).macs == 8 * 8 * 8
    with pytest.raises(gf.CaptureError, match=r"lengths of a nested tensor at .* are not known"):
        gf.count(OfParts(Attention(1)), (values, offsets))


def test_nothing_fake_is_left_in_torch() -> None:
    gf.count(Call(lambda x: Attention(1)(_made(x, x, x))), (torch.rand(3, 8),))
    model = Attention(1)
    x: Any = _jagged(3, 5)
    again = torch.nested.nested_tensor_from_jagged(x.values(), x.offsets())
    assert torch.equal(model.project(again).values(), model.project(x).values())
