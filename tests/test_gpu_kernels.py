"""Models on meta are counted as on a GPU: kernels as it chooses them, memory as it was measured."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import graphflops as gf
from benchmarks.gpu import predict, results

TOKENS, HEADS = 16, 4
PADDED = 12
"""Width of a head that a kernel pads to a multiple of 8."""
FLASH, EFFICIENT = "_scaled_dot_product_flash_attention", "_scaled_dot_product_efficient_attention"
CPU, WRITTEN_OUT = "_scaled_dot_product_flash_attention_for_cpu", "bmm"
KERNELS = (FLASH, EFFICIENT, CPU, WRITTEN_OUT)


class Attention(nn.Module):
    def __init__(  # noqa: PLR0913 - what the choice of a kernel depends on
        self, *, width: int, shared: bool, mask: str, dropout: float, device: str, dtype: Any
    ) -> None:
        super().__init__()
        self.shared, self.mask, self.dropout = shared, mask, dropout
        self.project = nn.Linear(HEADS * width, HEADS * width, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query = self.project(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        key = query[:, : HEADS // 2] if self.shared else query
        out: torch.Tensor = F.scaled_dot_product_attention(
            query, key, key, self._mask(x), self.dropout, enable_gqa=self.shared
        )
        return out

    def _mask(self, x: torch.Tensor) -> torch.Tensor | None:
        if self.mask == "bool":
            return torch.ones(TOKENS, TOKENS, dtype=torch.bool, device=x.device)
        if self.mask == "permuted":  # as T5 makes its bias
            return x.new_zeros(TOKENS, TOKENS, HEADS).permute(2, 0, 1).unsqueeze(0)
        return None


def kernels(report: gf.TrainingReport) -> set[str]:
    found = {op.removeprefix("aten::") for op in report.forward.by_operator()}
    return found & set(KERNELS)


@pytest.mark.parametrize(
    ("dtype", "options", "kernel"),
    [
        # As seen on an H100, where half precision runs by cuDNN with the memory of FLASH.
        ("bfloat16", {}, FLASH),
        ("bfloat16", {"dropout": 0.1}, FLASH),
        ("bfloat16", {"shared": True}, FLASH),
        ("bfloat16", {"width": PADDED}, FLASH),
        ("bfloat16", {"mask": "bool"}, EFFICIENT),
        ("bfloat16", {"mask": "permuted"}, WRITTEN_OUT),
        ("float32", {}, EFFICIENT),
        ("float32", {"dropout": 0.1}, EFFICIENT),
        ("float32", {"mask": "bool"}, EFFICIENT),
        ("float32", {"mask": "permuted"}, WRITTEN_OUT),
        ("float32", {"shared": True}, WRITTEN_OUT),
        ("float32", {"width": 6}, WRITTEN_OUT),
    ],
)
def test_attention_kernels(dtype: str, options: dict[str, Any], kernel: str) -> None:
    arguments = {"width": 8, "shared": False, "mask": "", "dropout": 0.0, **options}
    arguments["dtype"] = getattr(torch, dtype)
    x = torch.empty(2, TOKENS, HEADS * arguments["width"], dtype=arguments["dtype"])
    found = {}
    for device in ("meta", "cpu"):
        model = Attention(**arguments, device=device)
        found[device] = gf.count_training(model, (x.to(device),))
    assert kernels(found["meta"]) == {kernel}
    on_cpu = WRITTEN_OUT if arguments["dropout"] else CPU
    assert kernels(found["cpu"]) == {on_cpu}
    if arguments["width"] != PADDED:
        assert found["meta"].macs == found["cpu"].macs


def test_dropout_of_nothing_makes_no_copy() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.0), nn.Tanh())
    with_dropout = gf.count_training(model, (torch.empty(2, 8),))
    del model[1]
    without = gf.count_training(model, (torch.empty(2, 8),))
    assert with_dropout.memory.peak == without.memory.peak


def test_torch_is_as_it_was_and_other_threads_see_nothing() -> None:
    attention, dropout = (
        torch.ops.aten.scaled_dot_product_attention.default,
        torch.ops.aten.dropout.default,
    )
    before = dict(attention.py_kernels), dict(dropout.py_kernels)
    seen: list[Any] = []

    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = F.dropout(F.scaled_dot_product_attention(x, x, x), 0.5)
            seen.append(dict(attention.py_kernels))
            return out

    def other() -> None:
        exported = torch.export.export(nn.Dropout(0.0).train(), (torch.ones(3),))
        seen.append(exported.module()(torch.ones(3)))

    x = torch.empty(1, 2, 4, 8, device="meta", requires_grad=True)
    gf.count_training(Model(), (x,))
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen[0] != before[0]
    assert torch.equal(seen[-1], torch.ones(3))
    assert (dict(attention.py_kernels), dict(dropout.py_kernels)) == before


def measured(key: str) -> int:
    (row,) = (row for row in results.measured("h100") if row["key"] == key)
    phases = row["memory"]["steady"].values()
    # What cuBLAS takes: 32 MiB for each thread that calls it, and 1 MiB for biases.
    workspaces = (65 << 20) if row["mode"] == "training" else (33 << 20)
    return int(max(phase["peak_requested"] for phase in phases)) - workspaces


@pytest.mark.parametrize(
    "key",
    [
        "gpt2/default/bfloat16/training/8x512",  # attention with dropout
        "gpt2/default/float32/training/8x512",
        "bert/default/bfloat16/training/8x512",
        "llama_1b/default/float32/training/8x512",  # shared keys, in float32 written out
        "llama_1b/default/bfloat16/inference/8x512",
        "qwen3_0.6b/default/bfloat16/training/1x512",
        "convnext_tiny/default/bfloat16/inference/32x224",
    ],
)
def test_memory_against_an_h100(key: str) -> None:
    live = predict.predict(predict.rows()[key])["memory"]["live"]
    assert live == pytest.approx(measured(key), rel=1e-3)
