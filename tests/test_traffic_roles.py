"""Bytes by what they are: by hand, and sums that are those of the report."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import graphflops as gf


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def test_forward_by_hand() -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).to("meta")
    assert gf.count(model, (meta(3, 8),)).bytes_by_role() == {
        "forward": {
            "weights": 4 * (8 * 16 + 16 + 16 * 4 + 4),
            "inputs": 4 * 3 * 8,
            # The first layer's result is written and read, that of the activation too.
            "activations": 4 * (4 * 3 * 16 + 3 * 4),
        }
    }


def test_training_by_hand() -> None:
    model = nn.Linear(8, 4, bias=False, device="meta")
    found = gf.count_training(model, (meta(3, 8),), loss=lambda y: y.exp().sum()).bytes_by_role()
    assert found["forward"] == {
        "weights": 4 * 8 * 4,
        "inputs": 4 * 3 * 8,
        "activations": 4 * (2 * 3 * 4 + 1),  # the product, written and read; the loss
        # The exponential: written, read by the sum; the gradient of the loss: one.
        "saved_activations": 4 * (2 * 3 * 4 + 1),
    }
    # The gradient of the product is the exponential times one; then the product with x.
    assert found["backward"]["saved_activations"] == 4 * (3 * 4 + 1)
    assert found["backward"]["inputs"] == 4 * 3 * 8
    assert "weights" not in found["backward"]


def test_a_lookup_reads_rows_of_its_table() -> None:
    table = nn.Embedding(1000, 16, device="meta")
    ids = torch.zeros(2, 3, dtype=torch.int64)
    (found,) = gf.count(table, (ids,)).bytes_by_role().values()
    assert found == {"weights": 6 * 16 * 4, "inputs": 6 * 8, "activations": 6 * 16 * 4}


def llama(**sizes: int) -> tuple[Any, dict[str, torch.Tensor]]:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        vocab_size=50,
        **{"num_hidden_layers": 7, **sizes},
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    return model, {"input_ids": torch.zeros(2, 10, dtype=torch.int64)}


def test_the_cache_of_a_decode_step() -> None:
    model, prompt = llama()
    report = gf.count_generation(model.eval(), prompt, max_new_tokens=4)
    found = report.bytes_by_role()["decode"]["kv_cache"]
    # Each of two caches in seven layers: what is there is read, written with one token more, and
    # read by attention.
    grown = [2 * 4 * tokens * 16 * 4 for tokens in (10, 11)]
    value = found if isinstance(found, int) else found.subs(dict.fromkeys(found.free_symbols, 10))
    assert value == 2 * 7 * (grown[0] + 2 * grown[1])


@pytest.mark.parametrize("reuse", [True, False])
def test_roles_sum_to_the_bytes_of_the_report(*, reuse: bool) -> None:
    model, kwargs = llama()
    report: Any = gf.count_training(model.train(), kwargs=kwargs, reuse_layers=reuse)
    for name, roles in report.bytes_by_role().items():
        total = report.passes_by_name[name].report.total
        assert sum(roles.values()) == total.bytes_read + total.bytes_written
    roles = report.bytes_by_role()
    if not reuse:
        assert roles == gf.count_training(model, kwargs=kwargs).bytes_by_role()
    # Each weight is read forward, whole or as looked up.
    matrices = sum(p.nbytes for n, p in model.named_parameters() if "embed" not in n)
    assert roles["forward"]["weights"] >= matrices
