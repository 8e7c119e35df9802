"""Autocast: dtypes and bytes are those that kernels see, against a real run that is watched."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import graphflops as gf
from graphflops.errors import CaptureError


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's gap
    """Notes which dtypes contractions of a real run have, and what is cast."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # likewise
        self.seen: Counter[Any] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._opname
        if name == "_to_copy":
            self.seen["cast", name_of(args[0].dtype), name_of(out.dtype), out.numel()] += 1
        elif name in {"addmm", "mm", "bmm", "convolution", "_scaled_dot_product_attention_math"}:
            self.seen["contraction", name_of(out.dtype)] += 1
        return out


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


CONTRACTIONS = {"linear", "addmm", "mm", "bmm", "matmul", "conv1d", "conv2d", "convolution"}


def counted(report: gf.Report) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for call in (record.call for record in report.records):
        name, out = call.op.removeprefix("aten::"), call.outputs[0]
        tensors = [tensor for _, tensor in call.tensors()]
        if name in {"to", "_to_copy"} and tensors[0].dtype != out.dtype:
            found["cast", tensors[0].dtype, out.dtype, out.numel] += 1
        elif name in CONTRACTIONS:
            found["contraction", out.dtype] += 1
    return found


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8) for _ in range(3)])

    def forward(self, x: Any) -> Any:
        q, k, v = (layer(x) for layer in self.layers)
        return torch.bmm(torch.bmm(q, k.transpose(1, 2)).softmax(-1), v) @ torch.ones(8, 8)


class Outside(nn.Module):
    """Half of it computes without autocast."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        x = self.first(x)
        with torch.autocast("cpu", enabled=False):
            return self.last(x.float())


class Shared(nn.Module):
    """Its weight is cast once, and kept."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, x: Any) -> Any:
        return self.layer(self.layer(x))


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(8, 8), (2, 8)),
    "norms": (lambda: nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.Linear(8, 3)), (2, 8)),
    "convolutions": (
        lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.GroupNorm(2, 4), nn.Conv1d(4, 4, 1)),
        (2, 3, 9),
    ),
    "attention": (Attention, (2, 5, 8)),
    "outside": (Outside, (2, 8)),
    "shared": (Shared, (2, 8)),
    "repeated": (
        lambda: nn.Sequential(
            *[nn.Sequential(*[nn.Linear(8, 8) for _ in range(10)]) for _ in range(4)]
        ),
        (2, 8),
    ),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", MODELS)
def test_as_a_real_run(name: str, dtype: torch.dtype) -> None:
    make, shape = MODELS[name]
    model, x = make(), torch.randn(shape)
    with torch.no_grad(), torch.autocast("cpu", dtype), Watch() as watch:
        model(x)
    with torch.autocast("cpu", dtype):
        report = gf.count(model, (x,))
    assert counted(report) == watch.seen


def test_casts_and_the_product_by_hand() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        report = gf.count(nn.Linear(64, 64), (torch.randn(64, 64),))
    # Input, weight and bias are read in 4 bytes an element to be cast, and in 2 to be multiplied.
    elements = 64 * 64 + 64 * 64 + 64
    assert report.bytes_read == 4 * elements + 2 * elements == 33_024 + 16_512
    assert report.bytes_written == 2 * elements + 2 * 64 * 64
    assert report.macs == 64 * 64 * 64


@pytest.mark.parametrize("autocast", [True, False])
def test_dtypes_that_do_not_fit_are_refused_as_torch_does(autocast: bool) -> None:
    model, x = nn.Linear(8, 4).half(), torch.randn(2, 8)
    with torch.autocast("cpu", torch.bfloat16) if autocast else nullcontext():
        if autocast:
            assert model(x).dtype is torch.bfloat16
            assert gf.count(model, (x,)).macs == 2 * 8 * 4
        else:
            with pytest.raises(RuntimeError):
                model(x)
            with pytest.raises(CaptureError, match="float16 and float32"):
                gf.count(model, (x,))


def test_a_layer_in_and_out_of_autocast_is_no_repeated_one() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList(
                [nn.Sequential(*[nn.Linear(8, 8) for _ in range(10)]) for _ in range(4)]
            )

        def forward(self, x: Any) -> Any:
            for number, block in enumerate(self.blocks):
                with torch.autocast("cpu", torch.bfloat16, enabled=number % 2 == 0):
                    x = block(x.float())
            return F.relu(x)

    report = gf.count(Half(), (torch.randn(2, 8),))
    dtypes = [r.call.outputs[0].dtype for r in report.records if r.call.op == "aten::linear"]
    assert dtypes == (["bfloat16"] * 10 + ["float32"] * 10) * 2
