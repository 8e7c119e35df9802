"""Fusion: which operators run as one kernel, and bounds on what it saves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import graphflops as gf
from graphflops.analysis import fusible_operators
from graphflops.analysis.devices import device
from graphflops.analysis.fusion import FusedKernel, fuse
from graphflops.core.ir import OpRecord

A100 = device("a100-sxm-80gb")
N = 64 * 32 * 4  # bytes of the tensors below


class Chain(nn.Module):
    """One of the expressions below."""

    def __init__(self, which: str) -> None:
        super().__init__()
        self.which = which
        self.linear = nn.Linear(32, 32, bias=False)
        self.norm = nn.LayerNorm(32, elementwise_affine=False)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:  # noqa: PLR0911 - one a case
        match self.which:
            case "chain":
                return torch.exp(x + y) * 2
            case "epilogue":
                return F.relu(self.linear(x)) + y
            case "prologue":
                return (x * y).sum()
            case "not after a reduction":
                return torch.relu(self.norm(x))
            case "not before a contraction":
                return self.linear(torch.relu(x))
            case "read twice":
                hidden = torch.relu(x)
                return hidden * y, self.linear(hidden)
            case "returned":
                hidden = torch.relu(x)
                return hidden, hidden + 1
            case "halves":
                left, right = x.chunk(2)
                return F.silu(left) * right
            case "one input":
                return torch.exp(x) + torch.sin(x)
            case _:  # "in place"
                return F.relu_(x + y) * 2


def kernels(which: str) -> list[FusedKernel]:
    x = torch.empty(64, 32, device="meta")
    with torch.device("meta"):
        model = Chain(which)
    report = gf.count(model, (x, torch.empty_like(x)))
    kept = frozenset(meta.storage or meta.name for meta in report.capture.outputs)
    return fuse(report.records, kept)


def nbytes(kernel: FusedKernel) -> Any:
    costs = [record.cost for record in kernel.records if record.cost is not None]
    moved = sum((cost.bytes_read + cost.bytes_written for cost in costs), start=0)
    return moved - sum(kernel.on_chip, start=0)


@pytest.mark.parametrize(
    ("which", "sizes", "moved"),
    [
        ("chain", [3], [3 * N]),  # x, y in; one out
        ("epilogue", [3], [3 * N + 32 * 32 * 4]),  # x, y and the weight in; one out
        ("prologue", [2], [2 * N + 4]),
        ("not after a reduction", [1, 1], [2 * N, 2 * N]),
        ("not before a contraction", [1, 1], [2 * N, 2 * N + 32 * 32 * 4]),
        # relu is written for the contraction, and not read by the product.
        ("read twice", [2, 1], [4 * N, 2 * N + 32 * 32 * 4]),
        ("returned", [2], [3 * N]),
        ("halves", [2], [3 * N / 2]),
        # exp and sin are two kernels: neither reads the other; the sum joins the later.
        ("one input", [1, 2], [2 * N, 3 * N]),
        ("in place", [3], [3 * N]),
    ],
)
def test_kernels_by_hand(which: str, sizes: list[int], moved: list[float]) -> None:
    found = kernels(which)
    assert [len(kernel.records) for kernel in found] == sizes
    assert [nbytes(kernel) for kernel in found] == moved


def test_pointwise_operators_are_those_of_torch() -> None:
    untagged = [
        "_to_copy",
        "clone",
        "contiguous",
        "dropout",
        "elu_backward",
        "hardsigmoid_backward",
        "hardswish",
        "hardswish_backward",
        "hardtanh_backward",
        "leaky_relu_backward",
        "mish_backward",
        "native_dropout",
        "prelu",
        "softplus_backward",
        "to",
    ]
    for name in fusible_operators._POINTWISE.split():
        packet = getattr(torch.ops.aten, name)
        tags = [getattr(packet, overload).tags for overload in packet.overloads()]
        is_pointwise = any(torch.Tag.pointwise in each for each in tags)
        assert is_pointwise or name in untagged, name
    for name in fusible_operators._CONTRACTIONS.split() + fusible_operators._REDUCTIONS.split():
        assert hasattr(torch.ops.aten, name), name


# --- bounds ------------------------------------------------------------------------------------


def architecture(name: str) -> tuple[nn.Module, dict[str, Any]]:
    transformers = pytest.importorskip("transformers")
    sizes = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
    }
    ids = {"input_ids": torch.zeros(2, 24, dtype=torch.int64)}
    match name:
        case "llama":
            config = transformers.LlamaConfig(**sizes, vocab_size=100)
            return transformers.LlamaForCausalLM(config), ids
        case "bert":
            config = transformers.BertConfig(**sizes, vocab_size=100)
            return transformers.BertForSequenceClassification(config), ids
        case "gpt2":
            config = transformers.GPT2Config(n_embd=64, n_layer=7, n_head=4, vocab_size=100)
            return transformers.GPT2LMHeadModel(config), ids
        case "t5":
            config = transformers.T5Config(d_model=64, d_kv=16, d_ff=128, num_layers=3, num_heads=4)
            return transformers.T5ForConditionalGeneration(config), ids | {
                "decoder_input_ids": ids["input_ids"]
            }
        case "vit":
            config = transformers.ViTConfig(**sizes, image_size=32, patch_size=8)
            images = {"pixel_values": torch.zeros(2, 3, 32, 32)}
            return transformers.ViTForImageClassification(config), images
        case _:
            config = transformers.ResNetConfig(embedding_size=16, hidden_sizes=[16, 32, 64, 64])
            return transformers.ResNetForImageClassification(config), {
                "pixel_values": torch.zeros(2, 3, 64, 64)
            }


def test_what_the_backward_pass_reads_is_written() -> None:
    """The exponential is read again through a view, a detached one."""
    model, x = nn.Linear(32, 32, bias=False, device="meta"), torch.empty(64, 32, device="meta")
    report = gf.count_training(model, (x,), loss=lambda y: y.exp().sum())
    forward = report.time(A100, fused=True).passes["forward"].total.nbytes
    weight = 32 * 32 * 4
    # x and the weight are read, the exponential is written, and read for the sum; the loss and
    # its gradient are written.
    assert forward == N + weight + 2 * N + 2 * 4


NAMES = ("llama", "bert", "gpt2", "t5", "vit", "resnet")


@pytest.mark.parametrize("training", [False, True], ids=["inference", "training"])
@pytest.mark.parametrize("name", NAMES)
def test_bounds_of_architectures(name: str, *, training: bool) -> None:
    with torch.device("meta"):
        model, kwargs = architecture(name)
    if training:
        report: Any = gf.count_training(model.train(), kwargs=kwargs)
    else:
        report = gf.count(model.eval(), kwargs=kwargs)
    fused, unfused = (report.time(A100, fused=fused) for fused in (True, False))
    assert fused.bound < unfused.bound
    assert fused.expected < unfused.expected
    assert fused.total.flops == unfused.total.flops
    for part, runs in report.passes_by_name.items():
        moved = float(fused.passes[part].total.nbytes)
        assert distinct_bytes(runs.records(0.0)) <= moved <= unfused.passes[part].total.nbytes


def distinct_bytes(records: Any) -> float:
    """Bytes of what a pass has to read, as far as one call reads all of it, and of the unread."""
    made: dict[str, int] = {}
    read: dict[str, int] = {}
    for record in records:
        call, cost = record.call, record.cost
        reads_all = cost and cost.bytes_read >= sum(t.nbytes for _, t in call.tensors())
        for _, tensor in call.tensors():
            if not tensor.storage and reads_all:
                read[tensor.name] = tensor.nbytes
            if tensor.storage:
                made.pop(tensor.storage, None)
            made.pop(tensor.name, None)
        for tensor in call.outputs:
            if not tensor.storage and cost and cost.bytes_written:
                made[tensor.name] = tensor.nbytes
    names = {t.name for record in records for t in record.call.outputs}
    return sum(made.values()) + sum(n for name, n in read.items() if name not in names)


@pytest.mark.parametrize("name", NAMES)
def test_reused_layers_are_fused_as_traced_ones(name: str) -> None:
    with torch.device("meta"):
        model, kwargs = architecture(name)
    reused, traced = (
        gf.count_training(model, kwargs=kwargs, reuse_layers=reuse).time("l4", fused=True)
        for reuse in (True, False)
    )
    assert reused.bound == pytest.approx(traced.bound)
    assert reused.expected == pytest.approx(traced.expected)
    modules = traced.by_module()
    for path, time in reused.by_module().items():
        assert time.expected == pytest.approx(modules[path].expected), path


STEPS = ("relu", "add", "linear", "softmax", "sum", "chunk", "transpose", "dropout", "relu_", "cat")


class Program(nn.Module):
    """A random program on square matrices."""

    def __init__(self, steps: list[tuple[str, int, int]]) -> None:
        super().__init__()
        self.steps, self.linear = steps, nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        values = [x, x.exp()]
        for step, first, second in self.steps:
            one, other = values[first % len(values)], values[second % len(values)]
            values.append(self._step(step, one, other))
        return values[-2:]

    def _step(self, step: str, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        left, right = one.chunk(2)
        results: dict[str, Callable[[], torch.Tensor]] = {
            "relu": lambda: F.relu(one),
            "softmax": lambda: F.softmax(one, -1),
            "dropout": lambda: F.dropout(one),
            "add": lambda: one + other,
            "linear": lambda: F.linear(one, self.linear.weight, self.linear.bias),
            "sum": lambda: one.sum(0, keepdim=True) + other,
            "chunk": lambda: torch.cat([left * 2, right + 1]),
            "transpose": lambda: one.mT * other,
            "relu_": lambda: F.relu_(one + other),
            "cat": lambda: torch.cat([one[:8], other[8:]]),
        }
        return results[step]()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 9), st.integers(0, 9)), max_size=12)
)
def test_fusion_moves_less_and_never_less_than_inputs_and_outputs(
    steps: list[tuple[str, int, int]],
) -> None:
    with torch.device("meta"):
        model, x = Program(steps), torch.empty(16, 16)
    report = gf.count(model, (x,))
    fused, unfused = (report.time(A100, fused=fused) for fused in (True, False))
    assert fused.bound <= unfused.bound * (1 + 1e-9)
    assert fused.expected <= unfused.expected * (1 + 1e-9)
    distinct = {meta.storage or meta.name for meta in report.capture.outputs} - {"x"}
    assert fused.total.nbytes >= x.nbytes * (1 + len(distinct))
    check_order(fuse(report.records))


def check_order(found: list[FusedKernel]) -> None:
    """Assert that no kernel reads what a later one makes, and that all calls are in one."""
    position = {
        meta.name: number
        for number, kernel in enumerate(found)
        for record in kernel.records
        for meta in record.call.outputs
    }
    for number, kernel in enumerate(found):
        record: OpRecord
        for record in kernel.records:
            for _, tensor in record.call.tensors():
                assert position.get(tensor.storage or tensor.name, 0) <= number
    assert all(not isinstance(n, int) or n >= 0 for kernel in found for n in kernel.on_chip)
