"""What ``FlopCounterMode`` sees of a model on meta tensors, and where it needs help."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from math import prod
from typing import Any

import torch
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.fuzz_graphs import Graph
from graphflops.core.ir import ATTENTION_SCORES, OpRecord, Phase

aten = torch.ops.aten
Formula = Callable[..., int]


def _convolution(grad: torch.Size, x: torch.Size, weight: torch.Size, *args: Any, **_: Any) -> int:
    """A multiply-add for each position of the window slid, for each gradient asked for."""
    transposed, mask = args[4], args[-1]
    return 2 * prod(x if transposed else grad) * prod(weight[1:]) * (int(mask[0]) + int(mask[1]))


def _product(a: torch.Size, _b: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * prod(a)


def _added_product(_c: torch.Size, a: torch.Size, _b: torch.Size, *_: Any, **__: Any) -> int:
    return 2 * prod(a)


BY_HAND: dict[Any, tuple[Formula, str]] = {
    aten.convolution_backward: (
        _convolution,
        "counts the weight's gradient of g groups g times too large (pytorch#183405)",
    ),
    aten.mv: (_product, "has no formula"),
    aten.dot: (_product, "has no formula"),
    aten.vdot: (_product, "has no formula"),
    aten.addmv: (_added_product, "has no formula"),
}
"""Operators that ``FlopCounterMode`` misses or overcounts: arithmetic instead, and why."""

LEFT_OUT: dict[str, str] = {
    "aten::bilinear": "FlopCounterMode counts 0; by hand in tests/test_families.py",
    "aten::_trilinear": "FlopCounterMode counts 0; by hand in tests/test_families.py",
    ATTENTION_SCORES: "a fused kernel's scores again; the meta device has no fused kernel",
}
"""Operators of graphflops whose contractions are left out of the comparison, and why."""


OTHERWISE_ON_META: dict[tuple[str, Phase], str] = {
    ("aten::_scaled_dot_product_flash_attention_for_cpu", Phase.RECOMPUTE): "fused attention under "
    "a checkpoint: computed again whole, where the composite form stops before its last product",
}
"""Operators of a CPU that do other work than what runs on meta, by phase, and how: models that
call them are not compared."""


def comparable(records: Iterable[OpRecord]) -> bool:
    """Whether a model does the same on meta."""
    return not any((record.call.op, record.call.phase) in OTHERWISE_ON_META for record in records)


def expected(graph: Graph, *, training: bool) -> int:
    """Contraction FLOPs of a forward pass, or of a step, by ``FlopCounterMode`` on meta."""
    args, kwargs = pytree.tree_map_only(
        torch.Tensor, lambda t: t.detach().to("meta"), (graph.args, graph.kwargs)
    )
    mapping = {operator: formula for operator, (formula, _) in BY_HAND.items()}
    model = graph.model
    with (
        warnings.catch_warnings(),
        torch.set_grad_enabled(training),
        FlopCounterMode(display=False, custom_mapping=mapping) as counter,
    ):
        warnings.simplefilter("ignore")
        output = model(*args, **kwargs)
        if training:
            loss(output).backward()  # type: ignore[no-untyped-call]  # torch's gap
    return int(counter.get_total_flops())


def counted(records: Iterable[OpRecord]) -> int:
    """Contraction FLOPs of what is compared; a complex multiply-add counts as a real one."""
    return 2 * sum(
        int(record.cost.macs)
        for record in records
        if record.cost is not None and record.call.op not in LEFT_OUT
    )


def loss(output: Any) -> torch.Tensor:
    """The sum of all elements of the floating-point tensors of an output."""
    leaves = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    sums = [leaf.sum() for leaf in leaves if leaf.is_floating_point()]
    return torch.stack(sums).sum()
