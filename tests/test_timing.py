"""Time on a device: by hand, by properties of sums, and against what was measured."""

from __future__ import annotations

import math
from typing import Any

import pytest
import sympy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import graphflops as gf
from graphflops.analysis.devices import device
from graphflops.analysis.efficiency import Efficiency
from graphflops.errors import ModelSpecError

A100 = device("a100-sxm-80gb")  # 312 TFLOP/s in bfloat16, 19.5 in float32, 2,039 GB/s
PEAK = Efficiency()


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


class Add(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class Product(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x @ y


class Compared(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x < y


SQUARE = meta(4096, 4096), meta(4096, 4096)
HALF = tuple(x.to(torch.bfloat16) for x in SQUARE)
BYTES = 4096 * 4096 * 4
FLOPS = 2 * 4096**3


@pytest.mark.parametrize(
    ("model", "args", "dtype", "seconds"),
    [
        (Product(), SQUARE, None, FLOPS / 19.5e12),
        (Product(), SQUARE, "tf32", FLOPS / 156e12),
        (Product(), SQUARE, "bfloat16", FLOPS / 312e12),
        (Product(), HALF, None, FLOPS / 312e12),
        (Product(), HALF, "float32", FLOPS / 19.5e12),
        # One row: the other matrix is read, 4 bytes for each 2 operations.
        (Product(), (meta(1, 4096), SQUARE[1]), None, (BYTES + 2 * 4096 * 4) / 2039e9),
        (Add(), SQUARE, None, 3 * BYTES / 2039e9),
        (Add(), SQUARE, "tf32", 3 * BYTES / 2039e9),
        (Add(), SQUARE, "bfloat16", 1.5 * BYTES / 2039e9),
        # No rate is published for integers; they are read and written all the same.
        (Compared(), [x.to(torch.int64) for x in SQUARE], None, 4.25 * BYTES / 2039e9),
    ],
)
def test_bound_by_hand(
    model: nn.Module, args: tuple[torch.Tensor, ...], dtype: str | None, seconds: float
) -> None:
    found = gf.count(model, tuple(args)).time("a100", dtype=dtype)
    assert found.bound == pytest.approx(seconds, rel=1e-9)


def test_expected_is_the_bound_at_full_efficiency_and_a_launch() -> None:
    found = gf.count(Product(), SQUARE).time(A100, efficiency=PEAK)
    assert found.expected == pytest.approx(found.bound + A100.launch)
    half = gf.count(Product(), SQUARE).time(A100, efficiency=0.5)
    assert half.expected == pytest.approx(2 * found.bound + A100.launch)
    assert half.compute_bound == half.expected
    assert half.memory_bound == 0


def test_the_host_starts_kernels_at_its_own_pace() -> None:
    layers = nn.Sequential(*(nn.ReLU() for _ in range(100)))
    found = gf.count(layers, (meta(2),)).time(A100, efficiency=Efficiency(dispatch=20e-6))
    assert found.expected == pytest.approx(100 * 20e-6)
    assert found.total.expected < 1e-3
    assert "host-bound" in found.table()


@pytest.fixture(scope="module")
def layers() -> nn.Module:
    with torch.device("meta"):
        return nn.Sequential(
            nn.Linear(64, 32),
            *(nn.TransformerEncoderLayer(32, 4, 64, batch_first=True) for _ in range(4)),
        )


def test_modules_operators_and_passes_sum_to_the_whole(layers: nn.Module) -> None:
    report = gf.count_training(layers, (meta(3, 7, 64),), optimizer="adamw")
    found = report.time("h100", dtype="bfloat16")
    parts = [time.expected for time in found.by_operator().values()]
    assert math.fsum(map(float, parts)) == pytest.approx(found.total.expected)
    assert found.by_module()[""].expected == pytest.approx(found.total.expected)
    assert sum(p.total.bound for p in found.passes.values()) == pytest.approx(found.bound)
    assert found.total.flops == report.hardware_flops + report.optimizer_cost.flops
    one_by_one = sum(found.time_of(record).bound for record in report.records)
    optimizer = found.passes["optimizer"].bound
    assert one_by_one + optimizer == pytest.approx(found.bound)


def test_reused_layers_take_as_long_as_traced_ones(layers: nn.Module) -> None:
    reused, traced = (
        gf.count(layers, (meta(3, 7, 64),), reuse_layers=reuse).time("l4").by_module()
        for reuse in (True, False)
    )
    assert reused.keys() == traced.keys()
    for path, time in reused.items():
        assert time.expected == pytest.approx(traced[path].expected)


def test_an_optimizer_step_reads_and_writes_its_state() -> None:
    report = gf.count_training(nn.Linear(1000, 1000), (torch.empty(1, 1000),), optimizer="adamw")
    step = report.time(A100).passes["optimizer"]
    # Parameter, gradient, two moments are read; all but the gradient are written: 28 bytes.
    assert step.bound == pytest.approx(1001 * 1000 * 28 / 2039e9)


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(2, 9000))
def test_symbolic_times_are_those_of_numbers(batch: int) -> None:
    linear = nn.Linear(512, 256, device="meta")
    symbolic = gf.count(linear, (meta(4, 512),), dynamic_shapes=({0: "B"},)).time("t4")
    concrete = gf.count(linear, (meta(batch, 512),)).time("t4")
    bound = sympy.sympify(symbolic.bound)
    (symbol,) = bound.free_symbols
    assert float(bound.subs({symbol: batch})) == pytest.approx(concrete.bound)


def test_decode_steps_are_summed() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        vocab_size=100,
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config).eval()
    prompt = {"input_ids": torch.zeros(2, 50, dtype=torch.int64)}
    report = gf.count_generation(model, prompt, max_new_tokens=40)
    found = report.time(A100).passes["decode"]
    (segment,) = report.decode_segments
    steps = [segment.report.subs(K=k).time(A100) for k in range(segment.first, segment.last + 1)]
    assert len(steps) == found.runs == 39
    assert found.bound == pytest.approx(sum(step.bound for step in steps), rel=1e-4)
    whole = report.time(A100)
    first, each = (whole.figures[f"time_{name}"] for name in ("to_first_token", "per_token"))
    assert first == whole.passes["prefill"].expected
    assert each == pytest.approx(whole.passes["decode"].expected / 39)
    # 2 sequences of 40 new tokens.
    assert whole.figures["tokens_per_second"] == pytest.approx(2 * 40 / (first + 39 * each))
    assert "Time to first token" in whole.table()
    # In closed form: a step in sequences and tokens in the cache.
    step = sympy.sympify(report.decode_graphs[0].report.time(A100).bound)
    assert {symbol.name for symbol in step.free_symbols} == {"B", "K"}
    values = {symbol: {"B": 2, "K": 60}[symbol.name] for symbol in step.free_symbols}
    assert float(step.subs(values)) == pytest.approx(segment.report.subs(K=60).time(A100).bound)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("h101", {}, "no device known here. Did you mean h100"),
        ("t4", {"dtype": "float8"}, "no peak rate of t4 for float8"),
        ("t4", {"efficiency": 1.5}, "an efficiency of 1.5 is no share"),
        ("t4", {"efficiency": 0.0}, "an efficiency of 0.0 is no share"),
    ],
)
def test_bad_input(name: str, options: dict[str, Any], sentence: str) -> None:
    report = gf.count(Product(), SQUARE)
    with pytest.raises(ModelSpecError, match=sentence):
        report.time(name, **options)


def test_modules_are_in_the_order_of_the_model(layers: nn.Module) -> None:
    found = gf.count_training(layers, (meta(3, 7, 64),)).time("l4").by_module()
    paths = [path for path, _ in layers.named_modules() if path in found]
    assert list(found) == [*paths, "(loss)"]


def test_utilization_of_a_training_step(layers: nn.Module) -> None:
    report = gf.count_training(layers, (meta(3, 7, 64),), optimizer="adamw", steps=2)
    found = report.time("h100", dtype="bfloat16")
    # 989.4 TFLOP/s; two steps of three FLOPs forward and backward each.
    step = report.forward.flops + report.backward.flops
    assert found.figures["mfu"] == pytest.approx(2 * step / (found.expected * 989.4e12))
    # On a GPU attention with dropout is one kernel, whose backward computes the scores again.
    again = step + report.recompute.flops
    assert found.figures["hfu"] == pytest.approx(2 * again / (found.expected * 989.4e12))
    assert "MFU" in found.table()
    assert "mfu" in found.to_dict()


def test_a_model_without_contractions_has_no_utilization() -> None:
    assert not gf.count_training(nn.LayerNorm(4), (meta(2, 4),)).time("a100").figures
