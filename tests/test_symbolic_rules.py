"""Rules for results on symbolic sizes, against what torch makes of the same tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from test_symbolic_cache import ours, torchs
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv

from graphflops.capture.fake import symbolic_rules

ATEN = torch.ops.aten
Size = Any
Make = Callable[[Size, Size], torch.Tensor]
Layout = tuple[str, ...]


def zeros(*shape: Size) -> torch.Tensor:
    return torch.zeros(*shape)


TENSORS: dict[str, Make] = {
    "row-major": lambda b, _: zeros(b, 5, 8),
    "two symbols": lambda b, p: zeros(b, p, 8),
    "a product": lambda b, p: zeros(b * p, 8),
    "a sum": lambda b, p: zeros(b, p + 1, 8),
    "a quotient": lambda b, p: zeros(b, (p + 63) // 64, 8),
    "transposed": lambda b, p: zeros(b, p, 8).transpose(1, 2),
    "heads": lambda b, p: zeros(b, p, 4, 8).transpose(1, 2),
    "half of each head": lambda b, p: zeros(b, p, 4, 16).transpose(1, 2)[..., 8:],
    "chunks": lambda b, p: zeros(b, 4, (p + 63) // 64, 8, 8)[..., 3, :],
    "every second": lambda b, _: zeros(b, 16, 8)[:, ::2],
    "part of the last axis": lambda b, p: zeros(b, p, 16)[..., :8],
    "part of the first axis": lambda b, _: zeros(5, b, 8)[1:4],
    "expanded": lambda b, p: zeros(b, 1, 8).expand(b, p, 8),
    "an axis of one": lambda b, _: zeros(b, 1, 8),
    "a last axis of one": lambda b, p: zeros(b, p, 1),
    "float64": lambda b, _: torch.zeros(b, 5, 8, dtype=torch.float64),
    "integers": lambda b, _: torch.zeros(b, 5, 8, dtype=torch.int64),
}
UNARY: dict[str, Callable[[torch.Tensor], Any]] = {
    "exp": ATEN.exp.default,
    "silu": ATEN.silu.default,
    "gelu": ATEN.gelu.default,
    "times a number": lambda x: ATEN.mul.Tensor(x, 2.0),
    "to a power": lambda x: ATEN.pow.Tensor_Scalar(x, 2),
    "clone": ATEN.clone.default,
    "contiguous": lambda x: ATEN.clone.default(x, memory_format=torch.contiguous_format),
    "to float64": lambda x: ATEN._to_copy.default(x, dtype=torch.float64),
    "mean": lambda x: ATEN.mean.dim(x, [-1], True),
    "sum of two axes": lambda x: ATEN.sum.dim_IntList(x, [0, -1]),
    "sum that keeps the axis": lambda x: ATEN.sum.dim_IntList(x, [1], True),
    "permute": lambda x: ATEN.permute.default(x, [*range(1, x.dim()), 0]),
    "transpose": lambda x: ATEN.transpose.int(x, 0, -1),
    "unsqueeze": lambda x: ATEN.unsqueeze.default(x, 1),
    "unsqueeze at the end": lambda x: ATEN.unsqueeze.default(x, -1),
    "expand": lambda x: ATEN.expand.default(x, [3, *([-1] * x.dim())]),
    "expand an axis": lambda x: ATEN.expand.default(x, [x.shape[0], 5, 8]),
    "flatten": lambda x: ATEN.view.default(x, [x.shape[0] * x.shape[1], *x.shape[2:]]),
    "split an axis": lambda x: ATEN.view.default(x, [*x.shape[:-1], 2, 4]),
    "slice": lambda x: ATEN.slice.Tensor(x, -1, 2, -1),
    "slice by twos": lambda x: ATEN.slice.Tensor(x, -1, 1, 100, 2),
    "slice of nothing": lambda x: ATEN.slice.Tensor(x, -1, 5, 2),
    "select": lambda x: ATEN.select.int(x, -1, 0),
    "plus an integer": lambda x: ATEN.add.Tensor(x, 1),
    "over an integer": lambda x: ATEN.div.Tensor(x, 2),
    "less than": lambda x: ATEN.lt.Scalar(x, 1),
    "less than a float": lambda x: ATEN.lt.Scalar(x, 0.5),
    "not": lambda x: ATEN.bitwise_not.default(ATEN.lt.Scalar(x, 1)),
    "where": lambda x: ATEN.where.self(ATEN.lt.Scalar(x, 1), x, x),
    "masked": lambda x: ATEN.masked_fill.Scalar(x, ATEN.lt.Scalar(x, 1), 1.0),
    "clamp": lambda x: ATEN.clamp.default(x, 1),
    "clamp to floats": lambda x: ATEN.clamp.default(x, 0.5, 1.5),
    "write": lambda x: ATEN.copy_.default(torch.zeros(x.shape), x),
}
BINARY: dict[str, Callable[[torch.Tensor, torch.Tensor], Any]] = {
    "mul": ATEN.mul.Tensor,
    "add": ATEN.add.Tensor,
    "div": ATEN.div.Tensor,
    "greater": ATEN.gt.Tensor,
    "and": lambda x, y: ATEN.bitwise_and.Tensor(ATEN.gt.Scalar(x, 1), ATEN.gt.Scalar(y, 1)),
    "where": lambda x, y: ATEN.where.self(ATEN.gt.Scalar(x, 1), x, y),
    "masked": lambda x, y: ATEN.masked_fill.Scalar(x, ATEN.gt.Scalar(y, 1), 1.0),
}


def symbol(env: ShapeEnv, name: str, hint: int) -> Size:
    source = ConstantSource(name)
    made = env.create_symbol(hint, source, DimDynamic.DYNAMIC)
    return env.create_symintnode(made, hint=hint, source=source)


def layouts(call: Callable[..., Any], *makes: Make) -> list[Layout | str]:
    """Layout of the result by torch and by ours, or the class of the error."""
    found: list[Layout | str] = []
    for mode in (torchs, ours):
        with mode() as env:
            sizes = symbol(env, "B", 4), symbol(env, "P", 100)
            inputs = [make(*sizes) for make in makes]
            try:
                out = call(*inputs)
            except Exception as error:  # noqa: BLE001 - arguments that do not fit
                found.append(type(error).__name__)
                continue
            shared = [i for i, x in enumerate(inputs) if alike(out, x)]
            parts = (out.shape, out.stride(), out.storage_offset(), out.dtype, shared)
            found.append(tuple(map(str, parts)))
    return found


def alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)


@pytest.mark.parametrize(("call", "tensor"), itertools.product(UNARY, TENSORS))
def test_a_result_is_that_of_torch(call: str, tensor: str) -> None:
    by_torch, by_rule = layouts(UNARY[call], TENSORS[tensor])
    assert by_rule == by_torch


@pytest.mark.parametrize("call", BINARY)
@pytest.mark.parametrize(("one", "other"), itertools.product(TENSORS, TENSORS))
def test_a_result_of_two_is_that_of_torch(call: str, one: str, other: str) -> None:
    by_torch, by_rule = layouts(BINARY[call], TENSORS[one], TENSORS[other])
    assert by_rule == by_torch


def test_a_constant_of_the_code_is_left_to_torch() -> None:
    with ours() as env:
        x = torch.zeros(symbol(env, "B", 4), 8)
        with torch.utils._python_dispatch._disable_current_modes():
            one = torch.ones(())
        assert torch.where(x > 0, x, one).dtype == torch.float32


def test_every_rule_is_held_against_torch() -> None:
    names = {"sub", "relu", "log", "tanh", "sigmoid", "rsqrt", "sqrt", "neg", "abs", "cos", "sin"}
    tried = {"exp", "silu", "gelu", "mul", "add", "div", "pow", "clone", "_to_copy", "mean", "sum"}
    tried |= {"permute", "transpose", "unsqueeze", "expand", "view", "_unsafe_view", "slice"}
    tried |= {"select", "copy_", "lt", "gt", "bitwise_not", "bitwise_and", "where", "masked_fill"}
    tried |= {"clamp"}
    names |= {"eq", "ne", "le", "ge", "bitwise_or", "logical_and", "logical_or", "logical_not"}
    assert {op._opname for op in symbolic_rules.RULES} == tried | names
