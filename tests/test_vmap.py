"""What ``torch.vmap`` maps costs as often as it is mapped."""

from __future__ import annotations

from typing import Any

import torch
from calls import count, meta
from torch._dynamo._trace_wrapped_higher_order_op import TransformGetItemToIndex

x, w = meta(7, 4, 5), meta(5, 6)


def one(a: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    return a.sin() @ w


def test_a_mapped_function_costs_its_batch() -> None:
    mapped = count(lambda x, w: torch.vmap(one, (0, None))(x, w), x, w)
    batched = count(one, x, w)
    assert (mapped.macs, mapped.flops) == (batched.macs, batched.flops)
    assert mapped.macs == 7 * 4 * 5 * 6


def test_maps_within_maps_multiply() -> None:
    def outer(a: torch.Tensor, b: torch.Tensor) -> Any:
        return torch.vmap(lambda row: torch.vmap(lambda col: (row * col).sum())(b))(a)

    pairs = count(outer, meta(3, 8), meta(5, 8))
    # 8 products and 7 additions for each of 3 x 5 pairs.
    assert pairs.flops == 3 * 5 * (8 + 7)


def test_what_is_not_mapped_runs_once() -> None:
    report = count(lambda x, w: torch.vmap(lambda a: a @ w.exp())(x), x, w)
    assert report.transcendentals == 5 * 6


def test_a_mask_function_that_indexes_moves_what_it_picks() -> None:
    """transformers' masks of padding: an index inside vmap, hidden in an autograd function."""

    def masked(x: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
        def kept(example: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            return padding[example, position]

        with TransformGetItemToIndex():
            every = torch.vmap(torch.vmap(kept, (None, 0)), (0, None))
            mask = every(torch.arange(2), torch.arange(5))
        return x.masked_fill(~mask, 0)

    report = count(masked, meta(2, 5), meta(2, 5, dtype=torch.bool))
    assert report.complete
    (index,) = (r for r in report.records if r.call.op == "aten::index")
    # Each of 2 x 5 places picks one boolean by two positions of 8 bytes and writes it.
    assert index.cost is not None
    assert index.cost.bytes_written == 2 * 5 * 1
    assert index.cost.flops == 0
