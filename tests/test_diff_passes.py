"""Differences that compiler passes make: what was fused, removed, folded, quantized, decomposed."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
import torch.ao.quantization.fx._decomposed  # registers its operators
from torch import fx, nn
from torch._inductor.constant_folding import constant_fold

import graphflops as gf

aten, decomposed = torch.ops.aten, torch.ops.quantized_decomposed
X = (torch.zeros(6, 8),)
"""Input of all models: 48 elements, 192 bytes."""


class Block(nn.Module):
    """Three projections of one input, as attention has, and a dropout that does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))
        self.drop = nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        product: torch.Tensor = self.drop(self.q(x) * self.k(x) + self.v(x))
        return product


class Scaled(nn.Module):
    """A projection whose weight is scaled in each run."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(8, 8))
        self.scale = nn.Parameter(torch.zeros(8, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight * self.scale)


def exported(model: nn.Module, *, decompose: bool = False) -> fx.GraphModule:
    program = torch.export.export(model.eval(), X)
    if decompose:
        program = program.run_decompositions()
    # The node that checks guards would be in the module of the first call.
    module = program.module(check_guards=False)
    assert isinstance(module, fx.GraphModule)
    return module


def fuse_qkv(gm: fx.GraphModule) -> None:
    """Replace three linears of one input by one and its chunks."""
    linears = gm.graph.find_nodes(op="call_function", target=aten.linear.default)
    for i, name in ((1, "qkv_weight"), (2, "qkv_bias")):
        names = [str(linear.args[i].target) for linear in linears]
        parts: list[torch.Tensor] = [gm.get_parameter(part) for part in names]
        gm.register_parameter(name, nn.Parameter(torch.cat(parts)))
    with gm.graph.inserting_before(linears[0]):
        parameters = [gm.graph.get_attr(name) for name in ("qkv_weight", "qkv_bias")]
        fused = gm.graph.call_function(aten.linear.default, (linears[0].args[0], *parameters))
        chunks = gm.graph.call_function(aten.chunk.default, (fused, 3, -1))
        for i, linear in enumerate(linears):
            linear.replace_all_uses_with(gm.graph.call_function(operator.getitem, (chunks, i)))
    clean(gm)


def remove_clones(gm: fx.GraphModule) -> None:
    for node in gm.graph.find_nodes(op="call_function", target=aten.clone.default):
        node.replace_all_uses_with(node.args[0])
    clean(gm)


def clean(gm: fx.GraphModule) -> None:
    gm.graph.eliminate_dead_code()
    gm.delete_all_unused_submodules()
    gm.recompile()


def transformed(gm: fx.GraphModule, apply: Callable[[fx.GraphModule], object]) -> gf.CostDiff:
    before = gf.count(gm, X)
    apply(gm)
    return before.diff(gf.count(gm, X))


def decompose() -> gf.CostDiff:
    before, after = (gf.count(exported(Block(), decompose=d), X) for d in (False, True))
    return before.diff(after)


def quantize_linear(gm: fx.GraphModule) -> None:
    """Do what PT2E does of a linear layer: codes of its input and of its weight, and back."""
    (linear,) = gm.graph.find_nodes(op="call_function", target=aten.linear.default)
    codes = {"codes": torch.int8, "scales": torch.float32, "zeros": torch.int64}
    for name, dtype in codes.items():
        shape = (8, 8) if name == "codes" else (8,)
        gm.register_buffer(name, torch.zeros(shape, dtype=dtype))
    scheme = (0.1, 0, 0, 255, torch.uint8)
    with gm.graph.inserting_before(linear):
        x = gm.graph.call_function(
            decomposed.quantize_per_tensor.default, (linear.args[0], *scheme)
        )
        x = gm.graph.call_function(decomposed.dequantize_per_tensor.default, (x, *scheme))
        weight = gm.graph.call_function(
            decomposed.dequantize_per_channel.default,
            (*map(gm.graph.get_attr, codes), 0, -128, 127, torch.int8),
        )
    linear.args = (x, weight, linear.args[2])
    clean(gm)
    del gm.get_submodule("0").weight


def quantize_by_torchao() -> gf.CostDiff:
    reason = "transformers would import torchao in all tests, were it installed for this one"
    pt2e = pytest.importorskip("torchao.quantization.pt2e.quantize_pt2e", reason=reason)
    x86 = pytest.importorskip("torchao.quantization.pt2e.quantizer.x86_inductor_quantizer")
    config = x86.get_default_x86_inductor_quantization_config()
    model = nn.Sequential(nn.Linear(8, 8))
    prepared = pt2e.prepare_pt2e(exported(model), x86.X86InductorQuantizer().set_global(config))
    prepared(*X)
    return gf.count(exported(model), X).diff(gf.count(pt2e.convert_pt2e(prepared), X))


@dataclass(frozen=True)
class Pass:
    """A pass and what it changes.

    Attributes:
        diff: Function that runs it and compares.
        flops: Difference of FLOPs.
        bytes_read: Difference of bytes read.
        bytes_written: Difference of bytes written.
        params: Difference of parameters.
        modules: Change of modules and their path before.
        calls: Change, module and operator of calls, with their number.
    """

    diff: Callable[[], gf.CostDiff]
    flops: int
    bytes_read: int
    bytes_written: int
    params: int
    modules: set[tuple[str, str]]
    calls: dict[tuple[str, str, str], int]


QUANTIZED = "quantized_decomposed::"
# 48 elements of x: x / scale, round, + zero and two bounds of 2 operations each, 7 FLOPs; back,
# - zero and * scale, 2 FLOPs, as for 64 elements of the weight, which has 8 scales in float32 and
# 8 zeros in int64. Codes take a byte. The weight is a buffer then.
PT2E = Pass(
    lambda: transformed(exported(nn.Sequential(nn.Linear(8, 8))), quantize_linear),
    flops=7 * 48 + 2 * 48 + 2 * 64,
    bytes_read=4 * 48 + 48 + (64 + 4 * 8 + 8 * 8),
    bytes_written=48 + 4 * 48 + 4 * 64,
    params=-64,
    modules={("changed", ""), ("changed", "0")},
    calls={
        ("added", "", f"{QUANTIZED}quantize_per_tensor"): 1,
        ("added", "", f"{QUANTIZED}dequantize_per_tensor"): 1,
        ("added", "", f"{QUANTIZED}dequantize_per_channel"): 1,
    },
)
PASSES = {
    # x is read once and no more thrice; weights, biases and outputs are as large in one piece.
    "fused": Pass(
        lambda: transformed(exported(Block()), fuse_qkv),
        flops=0,
        bytes_read=-2 * 192,
        bytes_written=0,
        params=0,
        modules={("changed", ""), *(("removed", name) for name in "qkv")},
        calls={
            ("added", "", "aten::linear"): 1,
            ("added", "", "aten::chunk"): 1,
            **{("removed", name, "aten::linear"): 1 for name in "qkv"},
        },
    ),
    # A copy of the output.
    "no-op removed": Pass(
        lambda: transformed(exported(Block(), decompose=True), remove_clones),
        flops=0,
        bytes_read=-192,
        bytes_written=-192,
        params=0,
        modules={("changed", ""), ("removed", "drop")},
        calls={("removed", "drop", "aten::clone"): 1},
    ),
    # 64 products of the weight and 8 scales, which are read; the result is a buffer.
    "constant folded": Pass(
        lambda: transformed(exported(Scaled()), constant_fold),
        flops=-64,
        bytes_read=-4 * (64 + 8),
        bytes_written=-4 * 64,
        params=-(64 + 8),
        modules={("changed", "")},
        calls={("removed", "", "aten::mul"): 1},
    ),
    # In each linear a transposed view of the weight; a dropout becomes a copy.
    "decomposed": Pass(
        decompose,
        flops=0,
        bytes_read=192,
        bytes_written=192,
        params=0,
        modules={("changed", path) for path in ("", "q", "k", "v", "drop")},
        calls={
            **{("removed", name, "aten::linear"): 1 for name in "qkv"},
            **{("added", name, "aten::permute"): 1 for name in "qkv"},
            **{("added", name, "aten::addmm"): 1 for name in "qkv"},
            ("removed", "drop", "aten::dropout"): 1,
            ("added", "drop", "aten::clone"): 1,
        },
    ),
    "quantized": PT2E,
    "quantized by torchao": replace(PT2E, diff=quantize_by_torchao),
}


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_changes_what_it_changes(name: str) -> None:
    case = PASSES[name]
    diff = case.diff()
    assert {figure: change.difference for figure, change in diff.total.items()} == {
        "flops": case.flops,
        "macs": 0,
        "transcendentals": 0,
        "bytes_read": case.bytes_read,
        "bytes_written": case.bytes_written,
        "bytes": case.bytes_read + case.bytes_written,
        "params": case.params,
        "params_trainable": case.params,
        "unsupported": 0,
    }
    assert {(row.kind, row.before_path) for row in diff.modules} == case.modules
    assert Counter((r.kind, r.call.module_path, r.call.op) for r in diff.calls) == case.calls


def test_a_pass_that_changes_nothing_makes_no_difference() -> None:
    assert not transformed(exported(Block()), clean)
