"""Bytes: what moves, and what only looks as if it did."""

from collections.abc import Callable

import pytest
import torch
from calls import count

F32, I64 = 4, 8
x = torch.empty(6, 4)
row = torch.empty(1, 4)
ids = torch.zeros(5, dtype=torch.int64)


CASES: dict[str, tuple[Callable[..., object], tuple[torch.Tensor, ...], int, int]] = {
    # name: function, inputs, bytes read, bytes written
    "two operands": (lambda a, b: a + b, (x, x.clone()), 2 * 24 * F32, 24 * F32),
    "one operand twice": (lambda a: a * a, (x,), 24 * F32, 24 * F32),
    "broadcast": (lambda a, b: a + b, (x, row), (24 + 4) * F32, 24 * F32),
    "expanded view": (lambda a, b: a + b.expand(6, 4), (x, row), (24 + 4) * F32, 24 * F32),
    "scalar": (lambda a: a * 3, (x,), 24 * F32, 24 * F32),
    "views": (lambda a: a.view(24).unsqueeze(0).transpose(0, 1), (x,), 0, 0),
    "reshape that views": (lambda a: a.reshape(3, 8), (x,), 0, 0),
    "reshape that copies": (lambda a: a.t().reshape(24), (x,), 24 * F32, 24 * F32),
    "contiguous already": (lambda a: a.contiguous(), (x,), 0, 0),
    "contiguous copies": (lambda a: a.t().contiguous(), (x,), 24 * F32, 24 * F32),
    "cast to itself": (lambda a: a.to(torch.float32), (x,), 0, 0),
    "cast": (lambda a: a.to(torch.bfloat16), (x,), 24 * F32, 24 * 2),
    "clone": (lambda a: a.clone(), (x,), 24 * F32, 24 * F32),
    # 5 rows of 4 out of 6, and the 5 indices.
    "embedding": (
        torch.nn.functional.embedding,
        (ids, x),
        5 * 4 * F32 + 5 * I64,
        5 * 4 * F32,
    ),
    "index": (lambda a, i: a[i], (x, ids), 5 * 4 * F32 + 5 * I64, 5 * 4 * F32),
    "gather": (
        lambda a, i: a.gather(0, i[:, None]),
        (x, ids),
        5 * F32 + 5 * I64,
        5 * F32,
    ),
    "in place": (lambda a, b: a.clone().add_(b), (x, row), (24 + 24 + 4) * F32, (24 + 24) * F32),
    "fill": (lambda a: torch.zeros_like(a), (x,), 0, 24 * F32),
    "shape only": (lambda a: a.new_ones(7), (x,), 0, 7 * F32),
    "copy into": (lambda a, b: a.clone().copy_(b), (x, row), (24 + 4) * F32, (24 + 24) * F32),
    # Written: the clone, and in place the 5 rows of the source.
    "scatter in place": (
        lambda a, i, s: a.clone().index_copy_(0, i, s),
        (x, ids, torch.empty(5, 4)),
        (24 + 20) * F32 + 5 * I64,
        (24 + 20) * F32,
    ),
    "dropout off": (lambda a: torch.dropout(a, 0.5, train=False), (x,), 0, 0),
    "dropout on": (lambda a: torch.dropout(a, 0.5, train=True), (x,), 24 * F32, 24 * F32),
    "linear": (
        torch.nn.functional.linear,
        (x, torch.empty(3, 4), torch.empty(3)),
        (24 + 12 + 3) * F32,
        18 * F32,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_bytes(name: str) -> None:
    function, inputs, read, written = CASES[name]
    report = count(function, *inputs)
    assert (report.bytes_read, report.bytes_written) == (read, written)
