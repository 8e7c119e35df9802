"""Differences between reports: modules, operators and calls, by arithmetic."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from calls import meta
from torch import nn

import graphflops as gf
from graphflops.analysis.alignment import align

ROWS, WIDTH = 6, 8
"""Rows of the input, and the width of the blocks."""


class Attention(nn.Module):
    """Products of three projections: no softmax, so that costs are short sums."""

    def __init__(self, *, fused: bool = False, width: int = WIDTH) -> None:
        super().__init__()
        self.fused = fused
        if fused:
            self.qkv = nn.Linear(width, 3 * width, bias=False)
        else:
            self.q = nn.Linear(width, width, bias=False)
            self.k = nn.Linear(width, width, bias=False)
            self.v = nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, -1) if self.fused else (self.q(x), self.k(x), self.v(x))
        product: torch.Tensor = q * k + v
        return product


class Wrapper(nn.Module):
    def __init__(self, name: str, module: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, module)

    def forward(self, *args: Any) -> Any:
        return getattr(self, self.name)(*args)


class Lora(nn.Module):
    """A linear layer with a low-rank update beside it, named as peft does."""

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base_layer = base
        self.lora_A = nn.Linear(base.in_features, rank, bias=False)
        self.lora_B = nn.Linear(rank, base.out_features, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.base_layer(x) + self.lora_B(self.lora_A(x))
        return output


class Named(nn.Module):
    """An MLP whose last layer has any name."""

    def __init__(self, name: str, width: int = WIDTH) -> None:
        super().__init__()
        self.up = nn.Linear(WIDTH, width, bias=False)
        self.name = name
        self.add_module(name, nn.Linear(width, WIDTH, bias=False))

    def forward(self, x: torch.Tensor) -> Any:
        return getattr(self, self.name)(torch.relu(self.up(x)))


def stack(*, fused: bool = False, layers: int = 3) -> nn.Sequential:
    return nn.Sequential(*(Attention(fused=fused) for _ in range(layers)))


def lora(rank: int) -> nn.Module:
    model = stack()
    for block in model:
        assert isinstance(block, Attention)
        block.q = Lora(block.q, rank)  # type: ignore[assignment]  # as peft replaces a layer
    return model


def without(model: nn.Sequential, index: int) -> nn.Sequential:
    return nn.Sequential(*(module for i, module in enumerate(model) if i != index))


def mixed() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.Identity(), nn.ReLU(), nn.Linear(8, 4))


@dataclass
class Case:
    """Two models and what differs.

    Attributes:
        before: The first.
        after: The second.
        macs: Difference of MACs.
        flops: Difference of FLOPs.
        params: Difference of parameters.
        modules: Rows of modules: change, path before, path after.
        operators: Calls before and after, by operator.
        calls: Change, module and operator of each call, without its layer.
    """

    before: nn.Module
    after: nn.Module
    macs: int = 0
    flops: int = 0
    params: int = 0
    modules: set[tuple[str, str | None, str | None]] = field(default_factory=set)
    operators: dict[str, tuple[int, int]] = field(default_factory=dict)
    calls: dict[tuple[str, str, str], int] = field(default_factory=dict)


LINEAR, CHUNK = "aten::linear", "aten::chunk"
_FUSED = {
    ("changed", "", ""),
    *(("changed", f"{i}", f"{i}") for i in range(3)),
    *(("removed", f"{i}.{name}", None) for i in range(3) for name in "qkv"),
    *(("added", None, f"{i}.qkv") for i in range(3)),
}
_LORA: set[tuple[str, str | None, str | None]] = {
    ("changed", "", ""),
    *(("changed", f"{i}", f"{i}") for i in range(3)),
    *(("changed", f"{i}.q", f"{i}.q") for i in range(3)),
    *(("renamed", f"{i}.q", f"{i}.q.base_layer") for i in range(3)),
    *(("added", None, f"{i}.q.lora_{side}") for i in range(3) for side in "AB"),
}
CASES = {
    "the same": Case(stack(), stack()),
    # 3 x (6 rows x 8 x 8) MACs become 6 rows x 8 x 24.
    "three linears fused to one": Case(
        stack(),
        stack(fused=True),
        modules=_FUSED,
        operators={LINEAR: (9, 3), CHUNK: (0, 3)},
        calls={
            ("added", "", CHUNK): 3,
            ("added", "qkv", LINEAR): 3,
            **{("removed", name, LINEAR): 3 for name in "qkv"},
        },
    ),
    "no-op removed": Case(
        mixed(),
        without(mixed(), 1),
        modules={("removed", "1", None), ("renamed", "2", "1"), ("renamed", "3", "2")},
    ),
    "activation removed": Case(  # 6 rows x 8
        mixed(),
        without(mixed(), 2),
        flops=-48,
        modules={("changed", "", ""), ("removed", "2", None), ("renamed", "3", "2")},
        operators={"aten::relu": (1, 0)},
        calls={("removed", "", "aten::relu"): 1},
    ),
    # In each of 3 layers 6 x 8 x 2 and 6 x 2 x 8 MACs, and 6 x 8 additions.
    "LoRA added": Case(
        stack(),
        lora(rank=2),
        macs=3 * (96 + 96),
        flops=3 * (2 * (96 + 96) + 48),
        params=3 * (16 + 16),
        modules=_LORA,
        operators={LINEAR: (9, 15), "aten::add": (3, 6)},
        calls={
            ("added", "q", "aten::add"): 3,
            ("added", "q.lora_A", LINEAR): 3,
            ("added", "q.lora_B", LINEAR): 3,
        },
    ),
    "LoRA merged": Case(
        lora(rank=2),
        stack(),
        macs=-3 * 192,
        flops=-3 * 432,
        params=-3 * 32,
        modules={
            ("removed" if kind == "added" else kind, after, before) for kind, before, after in _LORA
        },
        operators={LINEAR: (15, 9), "aten::add": (6, 3)},
        calls={
            ("removed", "q", "aten::add"): 3,
            ("removed", "q.lora_A", LINEAR): 3,
            ("removed", "q.lora_B", LINEAR): 3,
        },
    ),
    "wrapped": Case(stack(), Wrapper("_orig_mod", stack()), modules={("renamed", "", "_orig_mod")}),
    "wrapped twice": Case(
        stack(),
        Wrapper("module", Wrapper("_orig_mod", stack())),
        modules={("renamed", "", "module._orig_mod")},
    ),
    "unwrapped": Case(Wrapper("model", stack()), stack(), modules={("renamed", "model", "")}),
    "renamed": Case(Named("fc"), Named("proj"), modules={("renamed", "fc", "proj")}),
    # 6 x 8 x 16 MACs twice become 6 x 8 x 24, and 6 x 8 more FLOPs of relu.
    "width changed": Case(
        Named("fc", 16),
        Named("fc", 24),
        macs=2 * 6 * 8 * 8,
        flops=2 * 2 * 6 * 8 * 8 + 48,
        params=2 * 8 * 8,
        modules={("changed", path, path) for path in ("", "up", "fc")},
        operators={LINEAR: (2, 2), "aten::relu": (1, 1)},
        calls={
            ("changed", "up", LINEAR): 1,
            ("changed", "", "aten::relu"): 1,
            ("changed", "fc", LINEAR): 1,
        },
    ),
    "renamed and widened": Case(
        Named("fc", 16),
        Named("proj", 24),
        macs=768,
        flops=1584,
        params=128,
        modules={("changed", "", ""), ("changed", "up", "up"), ("changed", "fc", "proj")},
        operators={LINEAR: (2, 2), "aten::relu": (1, 1)},
        calls={
            ("changed", "up", LINEAR): 1,
            ("changed", "", "aten::relu"): 1,
            ("changed", "proj", LINEAR): 1,
        },
    ),
    # A layer: 3 x 6 x 8 x 8 MACs, and 2 x 6 x 8 FLOPs of product and sum.
    "layer removed": Case(
        stack(layers=3),
        stack(layers=2),
        macs=-1152,
        flops=-2304 - 96,
        params=-192,
        modules={("changed", "", ""), ("removed", "2", None)},
        operators={LINEAR: (9, 6), "aten::mul": (3, 2), "aten::add": (3, 2)},
        calls={
            **{("removed", name, LINEAR): 1 for name in "qkv"},
            ("removed", "", "aten::mul"): 1,
            ("removed", "", "aten::add"): 1,
        },
    ),
    "wrapped and fused": Case(
        stack(),
        Wrapper("model", stack(fused=True)),
        modules={
            ("changed", "", ""),
            ("changed", "", "model"),
            *(("changed", f"{i}", f"model.{i}") for i in range(3)),
            *(("removed", f"{i}.{name}", None) for i in range(3) for name in "qkv"),
            *(("added", None, f"model.{i}.qkv") for i in range(3)),
        },
        operators={LINEAR: (9, 3), CHUNK: (0, 3)},
        calls={
            ("added", "", CHUNK): 3,
            ("added", "qkv", LINEAR): 3,
            **{("removed", name, LINEAR): 3 for name in "qkv"},
        },
    ),
}


def _tail(path: str) -> str:
    """Return a path without the name of the model and the number of the layer."""
    parts = [part for part in path.split(".") if not part.isdecimal() and part != "model"]
    return ".".join(parts)


@pytest.mark.parametrize("name", CASES)
def test_a_difference_is_what_changed(name: str) -> None:
    case = CASES[name]
    before, after = (gf.count(m, (meta(ROWS, WIDTH),)) for m in (case.before, case.after))
    diff = before.diff(after)
    total = diff.total
    assert [total[key].difference for key in ("macs", "flops", "params")] == [
        case.macs,
        case.flops,
        case.params,
    ]
    assert {(row.kind, row.before_path, row.path) for row in diff.modules} == case.modules
    assert {r.op: (r.calls.before, r.calls.after) for r in diff.operators} == case.operators
    calls: dict[tuple[str, str, str], int] = {}
    for row in diff.calls:
        key = (row.kind, _tail(row.call.module_path), row.call.op)
        calls[key] = calls.get(key, 0) + 1
    assert calls == case.calls
    assert bool(diff) == bool(case.modules)
    # Rows sum to the difference of the totals.
    assert sum(r.after.flops - r.before.flops for r in diff.operators) == case.flops
    assert sum(r.after_cost.flops - r.before_cost.flops for r in diff.calls) == case.flops
    data = json.loads(diff.to_json())
    assert data["totals"]["macs"]["difference"] == case.macs
    assert len(data["calls"]) == len(diff.calls)


def test_text_stacks_layers_and_names_single_modules() -> None:
    x = (meta(ROWS, WIDTH),)
    text = gf.count(stack(), x).diff(gf.count(stack(fused=True), x)).to_text()
    assert "removed   *.q       Linear             3" in text
    assert "aten::linear   9 -> 3" in text
    assert "6x8, 8x8 -> 6x8" in text
    moved = gf.count(mixed(), x).diff(gf.count(without(mixed(), 1), x))
    assert "renamed   3 -> 2    Linear" in str(moved)
    assert "| renamed  | 3 -\\> 2" in moved.to_markdown()
    assert "<pre>Sequential: forward pass" in moved._repr_html_()
    same = gf.count(mixed(), x).diff(gf.count(mixed(), x))
    assert "There is no difference." in str(same)


def test_narrow_text_fits() -> None:
    x = (meta(ROWS, WIDTH),)
    diff = gf.count(stack(), x).diff(gf.count(stack(fused=True), x))
    assert max(map(len, diff.to_text(70).splitlines())) <= 70


def test_symbolic_costs_differ_as_expressions() -> None:
    axes = ({0: "B"},)
    x = (meta(ROWS, WIDTH),)
    narrow, wide = (gf.count(Named("fc", n), x, dynamic_shapes=axes) for n in (16, 24))
    change = narrow.diff(wide).total["macs"]
    # 2 x 8 x 8 more MACs in each row.
    assert str(change.difference) == "128*B"
    assert change.percent is None
    assert not narrow.diff(gf.count(Named("fc", 16), x, dynamic_shapes=axes))
    assert "128*B" in str(narrow.diff(wide))
    with pytest.raises(gf.ModelSpecError, match=r"input x is \[B, 8\] in the first and input x is"):
        narrow.diff(gf.count(Named("fc", 16), x))


def test_training_steps_by_pass() -> None:
    x = (meta(ROWS, WIDTH),)
    before, after = (gf.count_training(Named("fc", n), x) for n in (16, 24))
    diff = before.diff(after)
    # Backward: both weights' gradients, and the gradient of the hidden layer, 6 x 8 x 8 more each.
    assert [(p.name, p.after.macs - p.before.macs) for p in diff.passes] == [
        ("forward", 768),
        ("backward", 3 * 384),
        ("recompute", 0),
    ]
    assert diff.total["macs"].difference == 768 + 1152
    assert sum(row.after.macs - row.before.macs for row in diff.operators) == 768 + 1152
    assert {row.pass_name for row in diff.calls} == {"forward", "backward"}
    with_optimizer = gf.count_training(Named("fc", 16), x, optimizer="sgd")
    row = before.diff(with_optimizer).passes[-1]
    # 2 FLOPs for each of 2 x 8 x 16 parameters, which are in no total.
    assert (row.name, row.before.flops, row.after.flops) == ("optimizer", 0, 512)
    assert not before.diff(with_optimizer).calls
    assert before.diff(with_optimizer)
    with pytest.raises(gf.ModelSpecError, match="number of passes is 1 in the first and number"):
        before.diff(gf.count_training(Named("fc", 16), x, steps=2))


def test_generations_by_pass() -> None:
    def report(intermediate: int) -> gf.GenerationReport:
        sizes = {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "vocab_size": 50,
        }
        config = transformers.LlamaConfig(intermediate_size=intermediate, **sizes)
        with torch.device("meta"):
            model = transformers.LlamaForCausalLM._from_config(config).eval()
        prompt = torch.zeros((2, 6), dtype=torch.int64, device="meta")
        return gf.count_generation(model, {"input_ids": prompt}, max_new_tokens=3)

    narrow, wide = report(48), report(64)
    diff = narrow.diff(wide)
    # Three products of 32 by 16 more in each of 2 layers for a token; 2 x 6, then 2 x 2 tokens.
    each = 2 * 3 * 32 * 16
    assert [(p.name, p.after.macs - p.before.macs) for p in diff.passes] == [
        ("prefill", 12 * each),
        ("decode", 4 * each),
    ]
    assert diff.total["macs"].difference == 16 * each
    assert sum(row.after.macs - row.before.macs for row in diff.operators) == 16 * each
    assert sum(row.after_cost.macs - row.before_cost.macs for row in diff.calls) == 16 * each
    assert not narrow.diff(narrow)
    with pytest.raises(gf.ModelSpecError, match="size M is 8 in the first and size M is 9 in"):
        narrow.diff(narrow.subs(N=4))


def test_saved_reports_compare_as_counted_ones(tmp_path: Path) -> None:
    x, axes = (meta(ROWS, WIDTH),), ({0: "B"},)
    reports: tuple[gf.Report, gf.TrainingReport] = (
        gf.count(Named("fc", 16), x, dynamic_shapes=axes),
        gf.count_training(Named("fc", 16), x),
    )
    for report in reports:
        gf.save(report, tmp_path / "report.json")
        assert not report.diff(gf.load(tmp_path / "report.json"))


def test_reports_that_do_not_compare_are_refused() -> None:
    x = (meta(ROWS, WIDTH),)
    report = gf.count(Named("fc"), x)
    refused = {
        "different kinds: forward pass and training step": gf.count_training(Named("fc"), x),
        "different conventions: exact and fvcore": gf.count(Named("fc"), x, convention="fvcore"),
        r"input x is \[6, 8\] in the first and input x is \[7, 8\] in the second": gf.count(
            Named("fc"), (meta(7, WIDTH),)
        ),
        r"input x is \[6, 8\] in the first and input x is missing in the second": gf.count(
            nn.Bilinear(8, 8, 8), (meta(6, 8), meta(6, 8))
        ),
    }
    for message, other in refused.items():
        with pytest.raises(gf.ModelSpecError, match=message):
            report.diff(other)
    other = gf.count(Named("fc"), (meta(7, WIDTH),))
    # One more row: 2 x 8 x 8 MACs.
    assert report.diff(other, workload="any").total["macs"].difference == 128
    with pytest.raises(gf.ModelSpecError, match="workload is 'all'"):
        report.diff(other, workload="all")  # type: ignore[arg-type]  # what a user may write


@pytest.mark.parametrize(
    ("before", "after", "kept"),
    [
        ("", "", 0),
        ("abc", "", 0),
        ("abc", "abc", 3),
        ("abcabba", "cbabac", 4),  # Myers's own example
        ("abab" * 50, "aba" * 50, 150),
        ("abc" * 2000, "xbc" * 2000, 4000),
    ],
)
def test_an_alignment_keeps_order_and_most_items(before: str, after: str, kept: int) -> None:
    pairs = align(before, after)
    assert all(before[i] == after[j] for i, j in pairs)
    assert pairs == sorted(pairs)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs) == kept


def test_a_long_sequence_with_much_inserted_is_aligned_nearly_whole() -> None:
    before = [i % 25 for i in range(6000)]
    after = [*before[:2000], *range(300), *before[2000:5000], 7, *before[5000:]]
    assert len(align(before, after)) > 5900
