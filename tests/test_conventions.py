"""Conventions: what each charges, by hand and against FlopCounterMode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jsonschema
import pytest
import sympy
import torch
import torch.nn.functional as F
from architectures import ARCHITECTURES
from calls import Call, meta
from hypothesis import given, settings
from hypothesis import strategies as st
from test_contractions import CASES, oracle
from test_generation import SMALL as SMALL_LLAMA
from test_generation import built, filled, ids
from torch import nn

import graphflops as gf
from graphflops import conventions
from graphflops.conventions._einsum import optimized_flops, round_as_printed
from graphflops.conventions.torch import CONTRACTIONS
from graphflops.render import data
from graphflops.render.units import quantity


def flops(convention: str, function: Callable[..., Any], *args: Any) -> Any:
    model = function if isinstance(function, nn.Module) else Call(function)
    return gf.count(model, args, convention=convention).flops


# What published calflops reports charge, each by hand.
CALFLOPS: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
    # Aligned on the left: a weight of 896 against 1 x 2480 x 896.
    "an RMSNorm's weight": (
        lambda w, x: w * x,
        (meta(896), meta(1, 2480, 896)),
        896 * 2480 * 896,
    ),
    "a layer scale": (
        lambda x, w: x * w,
        (meta(9, 1025, 1024), meta(1024)),
        1024 * 1025 * 1024,
    ),
    "a number": (lambda x: 2.0 * x, (meta(3, 5),), 3 * 5),
    "a scalar tensor": (lambda x, s: x * s, (meta(3, 5), torch.empty((), device="meta")), 3 * 5),
    "+": (lambda x, y: x + y, (meta(3, 5), meta(3, 5)), 3 * 5),
    "/": (lambda x, y: x / y, (meta(4, 1, 7), meta(1, 5, 7)), 4 * 5 * 7),
    "1 / x": (lambda x: 1 / x, (meta(3, 5),), 3 * 5),
    "integers": (lambda x: x + 1, (meta(3, 5, dtype=torch.int64),), 3 * 5),
    "-": (lambda x: 1 - x, (meta(3, 5),), 0),
    "**": (lambda x: x**2, (meta(3, 5),), 0),
    "mean and rsqrt": (lambda x: torch.rsqrt(x.mean(-1)), (meta(3, 5),), 0),
    "a comparison": (lambda x: x > 0, (meta(3, 5),), 0),
    "+=": (lambda x, y: x.clone().add_(y), (meta(3, 5), meta(3, 5)), 0),
    "linear, without its bias": (nn.Linear(3, 4), (meta(2, 3),), 2 * 2 * 3 * 4),
    "conv, with its bias": (
        nn.Conv2d(3, 8, 3),
        (meta(2, 3, 10, 10),),
        2 * 8 * 8 * 8 * (2 * 3 * 3 * 3 + 1),
    ),
    "@": (lambda a, b: a @ b, (meta(2, 3), meta(3, 5)), 2 * 2 * 3 * 5),
    "bmm": (torch.bmm, (meta(4, 2, 3), meta(4, 3, 5)), 0),
    "F.softmax": (lambda x: F.softmax(x, -1), (meta(3, 5),), 3 * 5),
    "x.softmax": (lambda x: x.softmax(-1), (meta(3, 5),), 0),
    "torch.softmax": (lambda x: torch.softmax(x, -1), (meta(3, 5),), 0),
    "layer_norm": (nn.LayerNorm(5), (meta(3, 5),), 5 * 3 * 5),
    "layer_norm, not affine": (nn.LayerNorm(5, elementwise_affine=False), (meta(3, 5),), 4 * 3 * 5),
    "silu": (nn.SiLU(), (meta(3, 5),), 3 * 5),
    "gelu": (nn.GELU(), (meta(3, 5),), 3 * 5),
    "fused attention": (F.scaled_dot_product_attention, (meta(1, 2, 4, 8),) * 3, 0),
    "embedding": (nn.Embedding(7, 5), (meta(3, dtype=torch.int64),), 0),
    "max_pool": (nn.MaxPool2d(2), (meta(1, 2, 4, 4),), 2 * 4 * 4),
    # For 2 x 5 tokens: two products of 24 rows, their biases, 10 for each of 6 hidden elements.
    "LSTM": (nn.LSTM(8, 6), (meta(2, 5, 8),), 2 * 5 * (24 * (2 * 8 - 1 + 2 * 6 - 1 + 2) + 10 * 6)),
}
FVCORE: dict[str, tuple[Callable[..., Any], tuple[Any, ...], int]] = {
    "linear": (nn.Linear(3, 4), (meta(2, 3),), 2 * 3 * 4),
    "conv": (nn.Conv2d(3, 8, 3), (meta(2, 3, 10, 10),), 2 * 8 * 8 * 8 * 3 * 3 * 3),
    "layer_norm": (nn.LayerNorm(5), (meta(3, 5),), 5 * 3 * 5),
    "batch_norm": (nn.BatchNorm1d(5).eval(), (meta(3, 5),), 2 * 3 * 5),
    "bilinear resize": (
        lambda x: F.interpolate(x, size=(6, 6), mode="bilinear"),
        (meta(1, 2, 4, 4),),
        4 * 2 * 6 * 6,
    ),
    "fused attention": (F.scaled_dot_product_attention, (meta(1, 2, 4, 8),) * 3, 0),
    "relu": (nn.ReLU(), (meta(3, 5),), 0),
    "+": (lambda x, y: x + y, (meta(3, 5), meta(3, 5)), 0),
    "integers": (torch.mm, (meta(2, 3, dtype=torch.int64), meta(3, 5, dtype=torch.int64)), 30),
}


@pytest.mark.parametrize("name", CALFLOPS)
def test_calflops_by_hand(name: str) -> None:
    function, args, expected = CALFLOPS[name]
    assert flops("calflops", function, *args) == expected


@pytest.mark.parametrize("name", FVCORE)
def test_fvcore_by_hand(name: str) -> None:
    function, args, expected = FVCORE[name]
    assert flops("fvcore", function, *args) == expected


def test_a_gelu_that_was_held_before_calflops_came_is_not_seen() -> None:
    from transformers.activations import ACT2FN

    x = meta(3, 5)
    assert flops("calflops", ACT2FN["gelu"], x) == 0
    # The reports' PytorchGELUTanh looked F.gelu up when it was called.
    assert flops("calflops", ACT2FN["gelu_pytorch_tanh"], x) == 15


# Beside the contractions of CASES, what comes apart and what has no formula.
APART: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "tensordot": (lambda a, b: torch.tensordot(a, b, 1), (meta(3, 4), meta(4, 5))),
    "multi_dot": (lambda *a: torch.linalg.multi_dot(a), (meta(3, 4), meta(4, 5), meta(5, 6))),
    "matrix_power": (lambda a: torch.matrix_power(a, 3), (meta(4, 4),)),
    "inner with a vector": (torch.inner, (meta(4, 3), meta(3))),
    "inner of vectors": (torch.inner, (meta(3), meta(3))),
    "vector times matrix": (torch.matmul, (meta(3), meta(3, 4))),
    "linear to a number": (F.linear, (meta(2, 3), meta(3))),
    "linear, with its bias": (F.linear, (meta(2, 7, 3), meta(5, 3), meta(5))),
    "conv2d, with its bias": (F.conv2d, (meta(1, 2, 5, 8), meta(8, 2, 3, 3), meta(8))),
    "addbmm": (torch.addbmm, (meta(2, 5), meta(4, 2, 3), meta(4, 3, 5))),
    "addmv": (torch.addmv, (meta(2), meta(2, 3), meta(3))),
    "bilinear": (F.bilinear, (meta(2, 3), meta(2, 4), meta(5, 3, 4))),
    "cdist": (torch.cdist, (meta(30, 3), meta(40, 3))),
    "complex mm": (
        torch.mm,
        (meta(2, 3, dtype=torch.complex64), meta(3, 5, dtype=torch.complex64)),
    ),
    "integer mm": (torch.mm, (meta(2, 3, dtype=torch.int64), meta(3, 5, dtype=torch.int64))),
    "int8 mm": (
        torch._int_mm,
        (meta(32, 32, dtype=torch.int8), meta(32, 32, dtype=torch.int8)),
    ),
    "lstm": (nn.LSTM(8, 6, 2).to("meta"), (meta(5, 2, 8),)),
    "gru cell": (nn.GRUCell(8, 6).to("meta"), (meta(2, 8),)),
    "multi-head attention": (nn.MultiheadAttention(8, 2).to("meta"), (meta(2, 5, 8),) * 3),
    "softmax": (lambda x: F.softmax(x, -1), (meta(3, 5),)),
    "layer_norm": (nn.LayerNorm(5).to("meta"), (meta(3, 5),)),
}


@pytest.mark.parametrize("name", [*CASES, *APART])
def test_torch_is_flop_counter_mode(name: str) -> None:
    function, args = APART[name] if name in APART else CASES[name][:2]
    # Without contractions FlopCounterMode has no total at all.
    assert flops("torch", function, *args) == (oracle(function, *args) or 0)


@pytest.mark.parametrize("name", ["bert", "vit", "llama", "convnext", "t5"])
def test_torch_on_models_is_twice_the_macs_of_exact(name: str) -> None:
    model, kwargs = ARCHITECTURES[name]()
    exact = gf.count(model, (), kwargs)
    counted = gf.count(model, (), kwargs, convention="torch")
    assert (counted.flops, counted.macs) == (2 * exact.macs, exact.macs)


def test_every_contraction_of_torch_has_macs_to_take() -> None:
    priced = {entry.op.partition(".")[0] for entry in conventions.exact() if entry.handler}
    assert {f"aten::{op}" for op in CONTRACTIONS} <= priced


def test_torch_uses_a_formula_that_was_registered_for_an_operator() -> None:
    @torch.library.custom_op("graphflops_conventions::mystery", mutates_args=())
    def op(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    op.register_fake(torch.empty_like)
    packet = torch.ops.graphflops_conventions.mystery
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    register_flop_formula(packet)(lambda *_, **__: 1234)
    try:
        assert flops("torch", lambda x: op(x), meta(3)) == 1234
    finally:
        del flop_registry[packet]


SMALL = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LayerNorm(144), nn.Linear(144, 2)
)


@pytest.fixture(scope="module")
def reports() -> dict[str, gf.Report]:
    image = meta(2, 3, 8, 8)
    return {name: gf.count(SMALL, (image,), convention=name) for name in conventions.names()}


@pytest.mark.parametrize("name", conventions.names())
def test_every_way_of_writing_a_report(name: str, reports: dict[str, gf.Report]) -> None:
    report = reports[name]
    assert report.convention == name
    found = report.to_dict(ops=True)
    jsonschema.validate(found, data.schema())
    assert (found["convention"], found["flops_per_mac"]) == (name, 1 if name == "fvcore" else 2)
    text = report.to_text()
    assert f"{name} convention" in text
    assert "(1 MAC = 1 FLOP in this convention)" in text or name != "fvcore"
    assert "x forward)" in text
    for rendered in (report.table(), report.to_markdown(), report.to_csv()):
        assert "Linear" in rendered
    assert all(report.explain(record) for record in report.records)


def test_memory_traffic_does_not_depend_on_the_convention(reports: dict[str, gf.Report]) -> None:
    moved = {(r.bytes_read, r.bytes_written, r.params) for r in reports.values()}
    assert len(moved) == 1
    assert all(r.complete for r in reports.values())


def test_what_is_not_counted_is_free_and_says_why(reports: dict[str, gf.Report]) -> None:
    def reason(name: str, op: str) -> str:
        (record,) = reports[name].find(op)
        assert record.status is gf.Status.FREE
        return reports[name].explain(record)

    assert "FlopCounterMode has no formula" in reason("torch", "relu")
    assert "on fvcore's list of operators to ignore" in reason("fvcore", "relu")
    assert "not among the callables that calflops wraps" in reason("calflops", "flatten")
    report = gf.count(Call(lambda x: x.softmax(-1)), (meta(3, 5),), convention="calflops")
    assert "called as method_descriptor.softmax" in report.explain(report.records[0])


def test_handlers_of_ones_own_win_over_every_convention() -> None:
    mine = gf.Registry("mine")

    @mine.register("aten::tanh")
    def tanh(*, out: gf.TensorMeta) -> gf.OpCost:
        """Seven."""
        return gf.OpCost(flops=7 * out.numel)

    for name in conventions.names():
        report = gf.count(Call(torch.tanh), (meta(3, 5),), registry=mine, convention=name)
        assert report.flops == 7 * 15
        # ... and on both sides of a reconciliation.
        assert all(not report.compare_conventions(n).operators for n in conventions.names())


def test_symbolic_shapes_in_every_convention() -> None:
    model = Call(lambda x, w, y: F.silu((w * x) @ y))
    args = (meta(3, 5, 7), meta(7), meta(7, 4))
    batch, rows = torch.export.Dim("B", min=2), torch.export.Dim("C", min=2)
    shapes = (({0: batch, 1: rows}, None, None),)
    for name in conventions.names():
        report = gf.count(model, args, dynamic_shapes=shapes, convention=name)
        concrete = gf.count(model, args, convention=name)
        assert report.total.subs(B=3, C=5) == concrete.total
        bound = report.subs(B=3, C=5).compare_conventions("torch")
        assert bound.operators == concrete.compare_conventions("torch").operators
        found = report.compare_conventions("exact")
        rest = sum(row.flops for row in found.operators) - (found.theirs.flops - found.ours.flops)
        assert sympy.expand(rest) == 0
        assert found.table()


def test_a_generation_in_closed_form_is_the_sum_of_its_steps_by_calflops() -> None:
    model = built("LlamaForCausalLM", **SMALL_LLAMA, attn_implementation="eager")
    found = gf.count_generation(
        model, {"input_ids": ids(2, 6)}, max_new_tokens=4, convention="calflops"
    )

    def step(cached: int) -> Any:
        inputs = {
            "input_ids": ids(2, 1),
            "position_ids": torch.full((2, 1), cached),
            "past_key_values": filled(model.config, 2, cached),
        }
        return gf.count(model, (), inputs, convention="calflops").flops

    assert found.convention == "calflops"
    assert found.flops == found.prefill.flops + sum(step(cached) for cached in (6, 7, 8))


LABELS = "abcde"


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_einsum_costs_what_numpy_prints(source: st.DataObject) -> None:
    numpy = pytest.importorskip("numpy", reason="the oracle of this test")
    labels = st.lists(st.sampled_from(LABELS), min_size=1, max_size=3, unique=True)
    terms = ["".join(source.draw(labels)) for _ in range(source.draw(st.integers(1, 4)))]
    used = sorted(set("".join(terms)))
    output = "".join(source.draw(st.lists(st.sampled_from(used), max_size=4, unique=True)))
    sizes = {label: source.draw(st.integers(1, 40)) for label in used}
    shapes = [tuple(sizes[label] for label in term) for term in terms]
    equation = f"{','.join(terms)}->{output}"
    text = numpy.einsum_path(
        equation, *(numpy.broadcast_to(0, shape) for shape in shapes), optimize="optimal"
    )[1]
    line = next(line for line in text.split("\n") if "optimized flop" in line.lower())
    assert round_as_printed(optimized_flops(equation, shapes) + 1) == int(
        float(line.split(":")[-1])
    )


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("calflop", "Did you mean calflops?"),
        ("Torch", "Did you mean torch"),
        ("zzz", "Known: exact,"),
    ],
)
def test_a_convention_that_does_not_exist(name: str, hint: str) -> None:
    for ask in (conventions.get, lambda n: gf.count(SMALL, (), convention=n)):
        with pytest.raises(gf.ModelSpecError, match="is no convention") as raised:
            ask(name)
        assert hint in str(raised.value)


class InternLayer(nn.Module):
    """A layer of InternVL2's vision model, as its published code computes it."""

    class Attention(nn.Module):
        """Eager attention, 16 heads of 64."""

        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Linear(1024, 3072), nn.Linear(1024, 1024)

        def forward(self, x: torch.Tensor) -> Any:
            b, n, c = x.shape
            q, k, v = self.qkv(x).reshape(b, n, 3, 16, 64).permute(2, 0, 3, 1, 4).unbind(0)
            scores = ((q * 0.125) @ k.transpose(-2, -1)).softmax(dim=-1)
            return self.proj((scores @ v).transpose(1, 2).reshape(b, n, c))

    class Mlp(nn.Module):
        """Two linear layers around transformers' gelu."""

        def __init__(self) -> None:
            super().__init__()
            from transformers.activations import ACT2FN

            self.act = ACT2FN["gelu"]
            self.fc1, self.fc2 = nn.Linear(1024, 4096), nn.Linear(4096, 1024)

        def forward(self, x: torch.Tensor) -> Any:
            return self.fc2(self.act(self.fc1(x)))

    def __init__(self) -> None:
        super().__init__()
        self.attn, self.mlp = self.Attention(), self.Mlp()
        self.norm1, self.norm2 = nn.LayerNorm(1024), nn.LayerNorm(1024)
        self.ls1, self.ls2 = nn.Parameter(torch.ones(1024)), nn.Parameter(torch.ones(1024))

    def forward(self, x: torch.Tensor) -> Any:
        x = x + self.attn(self.norm1(x)) * self.ls1
        return x + self.mlp(self.norm2(x)) * self.ls2


SMALL_CNN = nn.Sequential(
    *(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3)),
    *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)),
).eval()
CNN_MACS = 10 * 10 * 8 * 3 * 9 + 8 * 8 * 16 * 8 * 9 + 16 * 10


@pytest.mark.parametrize("convention", ["calflops", "fvcore"])
def test_what_reads_functions_does_not_price_a_decomposed_graph(convention: str) -> None:
    image = (torch.empty(1, 3, 12, 12),)
    program = torch.export.export(SMALL_CNN, image)
    for whole in (gf.count(SMALL_CNN, image, convention=convention), gf.count(program)):
        assert (whole.macs, whole.complete, whole.capture.notes) == (CNN_MACS, True, ())
    graph = program.run_decompositions()
    with pytest.warns(gf.UnknownOpWarning, match="aten::convolution x 2"):
        report = gf.count(graph, convention=convention)
    assert not report.complete
    (note,) = report.capture.notes
    assert f"the {convention} convention reads the calls of torch's functions" in note
    assert note in report.explain(report.find("convolution")[0])
    for other in ("exact", "torch"):
        decomposed = gf.count(graph, convention=other)
        assert (decomposed.macs, decomposed.complete) == (CNN_MACS, True)
    # A function of that name is what it says.
    product = gf.count(Call(torch.mm), (torch.empty(2, 3), torch.empty(3, 4)), convention="fvcore")
    assert (product.macs, product.complete) == (2 * 3 * 4, True)


def test_calflops_prints_the_published_figures_of_internvl2() -> None:
    with torch.device("meta"):
        report = gf.count(InternLayer().eval(), (meta(9, 1025, 1024),), convention="calflops")
    printed_costs = {
        path: (quantity(cost.macs, "MACs"), quantity(cost.flops, "FLOPs"))
        for path, cost in report.by_module().items()
    }
    assert printed_costs == {
        "": ("135.44 GMACs", "273.16 GFLOPs"),
        "attn": ("58.06 GMACs", "116.12 GFLOPs"),
        "attn.qkv": ("29.02 GMACs", "58.04 GFLOPs"),
        "attn.proj": ("9.67 GMACs", "19.35 GFLOPs"),
        "mlp": ("77.38 GMACs", "154.77 GFLOPs"),
        "mlp.act": ("0 MACs", "0 FLOPs"),
        "mlp.fc1": ("38.69 GMACs", "77.38 GFLOPs"),
        "mlp.fc2": ("38.69 GMACs", "77.38 GFLOPs"),
        "norm1": ("0 MACs", "47.23 MFLOPs"),
        "norm2": ("0 MACs", "47.23 MFLOPs"),
    }
