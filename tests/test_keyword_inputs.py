"""Functions whose values a count reads, called by keyword."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from calls import Call
from torch import nn

import graphflops as gf

X = torch.ones(3, 4)
CALLS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], Callable[..., torch.Tensor]]] = {
    "tensor": (
        lambda x: x * torch.tensor(data=[x.shape[0], 2.0, 3.0, 4.0]),
        lambda x: x * torch.tensor([x.shape[0], 2.0, 3.0, 4.0]),
    ),
    "isfinite": (
        lambda x: x if bool(torch.isfinite(input=x).all()) else x @ x.mT,
        lambda x: x if bool(torch.isfinite(x).all()) else x @ x.mT,
    ),
    "one_hot": (
        lambda x: nn.functional.one_hot(input=x.argmax(-1), num_classes=4) * x,  # type: ignore[call-arg]  # torch's gap
        lambda x: nn.functional.one_hot(x.argmax(-1), 4) * x,
    ),
    "attention": (
        lambda x: nn.functional.scaled_dot_product_attention(query=x, key=x, value=x),
        lambda x: nn.functional.scaled_dot_product_attention(x, x, x),
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_keyword_is_a_position(name: str) -> None:
    by_keyword, by_position = (gf.count(Call(run), (X,)) for run in CALLS[name])
    assert by_keyword.total == by_position.total


def test_a_jagged_query_by_keyword_counts_what_it_holds() -> None:
    rows = [torch.ones(n, 2, 8) for n in (3, 5)]
    x = torch.nested.nested_tensor(rows, layout=torch.jagged).transpose(1, 2)
    attend = nn.functional.scaled_dot_product_attention
    by_keyword = gf.count(Call(lambda q: attend(query=q, key=q, value=q)), (x,))
    by_position = gf.count(Call(lambda q: attend(q, q, q)), (x,))
    assert by_keyword.macs == by_position.macs > 0
