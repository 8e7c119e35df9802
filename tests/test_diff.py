"""Differences between reports: modules, operators and calls, by arithmetic."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest
from calls import meta
from diff_models import MLP, ROWS, WIDTH, Wrapper, lora, mixed, stack, without
from torch import nn

import graphflops as gf


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
    "renamed": Case(MLP("fc"), MLP("proj"), modules={("renamed", "fc", "proj")}),
    # 6 x 8 x 16 MACs twice become 6 x 8 x 24, and 6 x 8 more FLOPs of relu.
    "width changed": Case(
        MLP("fc", 16),
        MLP("fc", 24),
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
        MLP("fc", 16),
        MLP("proj", 24),
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
