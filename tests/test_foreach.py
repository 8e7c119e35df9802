"""Lists of tensors cost what their tensors cost one by one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from calls import count, meta

Tensors = list[torch.Tensor]
UNARY = [
    *("neg", "abs", "ceil", "floor", "round", "sign", "trunc", "reciprocal", "sqrt", "rsqrt"),
    *("exp", "expm1", "log", "log1p", "log2", "log10", "sin", "cos", "tan", "sinh", "cosh", "tanh"),
    *("asin", "acos", "atan", "erf", "erfc", "lgamma", "sigmoid", "frac"),
]
CASES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    **{
        name: (
            lambda a, _, n=name: getattr(torch, f"_foreach_{n}")(a),
            lambda x, _, n=name: getattr(torch, n)(x),
        )
        for name in UNARY
    },
    "add": (lambda a, b: torch._foreach_add(a, b), torch.add),
    "add scaled": (
        lambda a, b: torch._foreach_add(a, b, alpha=2),
        lambda x, y: torch.add(x, y, alpha=2),
    ),
    "add scalar": (lambda a, _: torch._foreach_add(a, 2.0), lambda x, _: x + 2.0),
    "sub": (lambda a, b: torch._foreach_sub(a, b), torch.sub),
    "mul": (lambda a, b: torch._foreach_mul(a, b), torch.mul),
    "div": (lambda a, b: torch._foreach_div(a, b), torch.div),
    "maximum": (lambda a, b: torch._foreach_maximum(a, b), torch.maximum),
    "clamp_min": (
        lambda a, _: torch._foreach_clamp_min(a, 0.0),
        lambda x, _: torch.clamp_min(x, 0.0),
    ),
    "pow 2": (lambda a, _: torch._foreach_pow(a, 2), lambda x, _: x**2),
    "pow": (lambda a, b: torch._foreach_pow(a, b), torch.pow),
    "addcmul": (lambda a, b: torch._foreach_addcmul(a, b, b), lambda x, y: torch.addcmul(x, y, y)),
    "addcdiv": (lambda a, b: torch._foreach_addcdiv(a, b, b), lambda x, y: torch.addcdiv(x, y, y)),
    "lerp": (lambda a, b: torch._foreach_lerp(a, b, 0.3), lambda x, y: torch.lerp(x, y, 0.3)),
    "lerp lists": (lambda a, b: torch._foreach_lerp(a, b, b), lambda x, y: torch.lerp(x, y, y)),
    "norm": (lambda a, _: torch._foreach_norm(a, 3), lambda x, _: torch.linalg.vector_norm(x, 3)),
    "max": (lambda a, _: torch._foreach_max(a), lambda x, _: x.max()),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
@pytest.mark.parametrize("name", CASES)
def test_a_list_costs_its_tensors(name: str, dtype: torch.dtype) -> None:
    if dtype.is_complex and name not in {"add", "add scaled", "sub", "mul", "div", "neg"}:
        dtype = torch.float64
    together, alone = CASES[name]
    a, b = (
        (meta(2, 3, dtype=dtype), meta(5, dtype=dtype)),
        (meta(2, 3, dtype=dtype), meta(5, dtype=dtype)),
    )
    whole = count(lambda p, q, r, s: together([p, q], [r, s]), *a, *b)
    parts = [count(alone, x, y) for x, y in zip(a, b, strict=True)]
    assert whole.flops == sum(part.flops for part in parts)
    assert whole.transcendentals == sum(part.transcendentals for part in parts)


def test_in_place_lists_are_written_once() -> None:
    def step(p: torch.Tensor, q: torch.Tensor) -> Tensors:
        tensors = [p.clone(), q.clone()]
        torch._foreach_mul_(tensors, 0.9)
        return tensors

    report = count(step, meta(2, 3), meta(5))
    cost = report.by_operator()["aten::_foreach_mul_"]
    assert (cost.flops, cost.bytes_read, cost.bytes_written) == (11, 44, 44)


def test_zeroing_and_copying_lists_compute_nothing() -> None:
    def step(p: torch.Tensor, q: torch.Tensor) -> Tensors:
        tensors = [p.clone(), q.clone()]
        torch._foreach_zero_(tensors)
        torch._foreach_copy_(tensors, [p, q])
        return tensors

    report = count(step, meta(2, 3), meta(5))
    assert report.flops == 0
    # Cloned, zeroed, copied into: written three times, read twice.
    assert (report.bytes_read, report.bytes_written) == (2 * 44, 3 * 44)


def test_products_and_power_sums_of_lists() -> None:
    a, b = meta(2, 3), meta(3, 4)
    assert count(lambda p, q: torch._foreach_mm([p, p], [q, q]), a, b).macs == 2 * 2 * 3 * 4
    # Squares and their sum; cubes of absolute values and theirs.
    assert count(lambda p: torch._foreach_powsum([p], 2), a).flops == 6 + 5
    assert count(lambda p: torch._foreach_powsum([p], 3), a).flops == 6 + 6 + 5
