"""Results on symbolic sizes that are known from an earlier call, against torch's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

import graphflops as gf
from graphflops.capture.fake.constant_propagation import ValueTracker

ATEN = torch.ops.aten
# Each is called for three time steps of one tensor: the first call is computed, others are known.
OPERATORS: dict[str, Callable[[torch.Tensor], Any]] = {
    "select": lambda x: ATEN.select.int(x, -1, 1),
    "unsqueeze": lambda x: ATEN.unsqueeze.default(x, 1),
    "expand": lambda x: ATEN.expand.default(x, [3, *x.shape]),
    "transpose": lambda x: ATEN.transpose.int(x, 0, 1),
    "view": lambda x: ATEN.view.default(x, [*x.shape, 1]),
    "slice": lambda x: ATEN.slice.Tensor(x, 1, 2, 5),
    "mul": lambda x: ATEN.mul.Tensor(x, x),
    "add a number": lambda x: ATEN.add.Tensor(x, 1),
    "add a float": lambda x: ATEN.add.Tensor(x, 1.0),
    "exp": ATEN.exp.default,
    "mm": lambda x: ATEN.mm.default(ATEN.t.default(x), x),
    "sum": lambda x: ATEN.sum.dim_IntList(x, [1]),
    "clone": ATEN.clone.default,
    "clone of a transposed": lambda x: ATEN.clone.default(ATEN.t.default(x)),
    "to": lambda x: ATEN._to_copy.default(x, dtype=torch.float64),
    "cat": lambda x: ATEN.cat.default([x, x], 1),
    "write": lambda x: ATEN.add_.Tensor(x, x),
    "as_strided": lambda x: ATEN.as_strided.default(x, [2, 3], [3, 1]),
    "split": lambda x: ATEN.split.Tensor(x, 4, 1),
}


@contextmanager
def ours() -> Iterator[ShapeEnv]:
    tracker = ValueTracker()
    with tracker.mode:
        yield tracker.symbols.shape_env


@contextmanager
def torchs() -> Iterator[ShapeEnv]:
    env = ShapeEnv()
    with FakeTensorMode(shape_env=env):
        yield env


def batch(env: ShapeEnv) -> int | torch.SymInt:
    from torch._dynamo.source import ConstantSource

    source = ConstantSource("B")
    symbol = env.create_symbol(4, source, DimDynamic.DYNAMIC)
    return env.create_symintnode(symbol, hint=4, source=source)


def described(tensor: torch.Tensor, base: torch.Tensor) -> tuple[str, ...]:
    parts = (tensor.shape, tensor.stride(), tensor.storage_offset(), tensor.dtype, tensor.device)
    storages = tensor.untyped_storage(), base.untyped_storage()
    return (
        *map(str, parts),
        str(storages[0]._cdata == storages[1]._cdata),
        str(storages[0].nbytes()),
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_results_and_assumptions_are_those_of_torch(name: str) -> None:
    """Shapes, strides, memory and guards, at each of three time steps."""
    found = []
    for mode in (torchs, ours):
        with mode() as env:
            x = torch.empty(3, batch(env), 8)
            steps = [ATEN.select.int(x, 0, step) for step in range(3)]
            results = [OPERATORS[name](step) for step in steps]
            leaves = [r if isinstance(r, list | tuple) else [r] for r in results]
            lines = [[described(t, x) for t in tensors] for tensors in leaves]
            found.append((lines, [str(guard.expr) for guard in env.guards]))
    assert found[0] == found[1]


class Scan(nn.Module):
    """Softmax in one pass over time steps, as RWKV has it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        top, total = torch.zeros_like(x[:, 0]) - 1e38, torch.zeros_like(x[:, 0])
        for step in range(x.shape[1]):
            highest = torch.maximum(top, x[:, step])
            total = torch.exp(top - highest) * total + torch.exp(x[:, step] - highest)
            top = highest
        return total


def test_a_scan_costs_the_same_for_a_symbolic_batch() -> None:
    x = torch.zeros(3, 40, 8)
    symbolic = gf.count(Scan(), (x,), dynamic_shapes=({0: "B"},))
    # maximum, 2 subtractions, 2 exp, multiplication, addition at each step; a subtraction before.
    assert symbolic.total.subs(B=3).flops == 3 * 8 * (40 * 7 + 1)
    assert symbolic.total.subs(B=3) == gf.count(Scan(), (x,)).total
