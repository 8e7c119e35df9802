"""Backward of every form of attention: four products, and the scores computed again apart."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch
import torch.nn.functional as F
from calls import count, count_call, meta
from test_attention import BOTTOM_RIGHT, DV, FORMS, B, D, H, L, S, k, packed, q, rows, starts, v
from torch.utils.flop_counter import FlopCounterMode, flop_registry

import graphflops as gf
from graphflops import conventions
from graphflops.conventions import exact
from graphflops.core.cost import OpCost
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.pricing.price import price

aten = torch.ops.aten
SCORES = "graphflops::attention_scores"
lse = meta(B, H, L)
seed = meta(2, dtype=torch.int64)


def arguments(name: str, causal: bool, p: float) -> tuple[Any, tuple[Any, ...]]:
    """The backward operator of a form and its arguments."""
    out = meta(B, H, L, DV)
    bhld: tuple[Any, ...] = (out, q, k, v)
    blhd, ends = (*rows(*bhld), rows(out)[0]), (None, None, L, S)
    ragged, laid = (starts, starts, L, S), (*packed(*bhld), packed(out)[0])
    kinds: dict[str, tuple[Any, tuple[Any, ...]]] = {
        "flash": (
            aten._scaled_dot_product_flash_attention_backward,
            (*bhld, out, lse, *ends, p, causal, seed, seed),
        ),
        "flash on cpu": (
            aten._scaled_dot_product_flash_attention_for_cpu_backward,
            (*bhld, out, lse, p, causal),
        ),
        "efficient": (
            aten._scaled_dot_product_efficient_attention_backward,
            (*bhld, None, out, lse, seed, seed, p, [True] * 4, causal),
        ),
        "cudnn": (
            aten._scaled_dot_product_cudnn_attention_backward,
            (*bhld, out, lse, seed, seed, None, *ends, p, causal),
        ),
        "overrideable": (
            aten._scaled_dot_product_fused_attention_overrideable_backward,
            (*bhld, None, [True] * 4, out, lse, *ends, p, causal, seed, seed),
        ),
        "flash forward": (
            aten._flash_attention_backward,
            (*blhd, lse, *ends, p, causal, seed, seed),
        ),
        "flash forward packed": (
            aten._flash_attention_backward,
            (*laid, lse, *ragged, p, causal, seed, seed),
        ),
        "efficient forward": (
            aten._efficient_attention_backward,
            (*blhd[:4], None, blhd[4], *ends, lse, p, seed, seed, int(causal), False),
        ),
        "efficient forward packed": (
            aten._efficient_attention_backward,
            (
                *(*(t[None] for t in laid[:4]), None, laid[4][None], *ragged, lse, p),
                *(seed, seed, int(causal), False),
            ),
        ),
        "cudnn forward": (
            aten._cudnn_attention_backward,
            (*bhld, out, lse, seed, seed, None, *ends, p, causal),
        ),
        "cudnn forward packed": (
            aten._cudnn_attention_backward,
            (*laid, lse, seed, seed, None, *ragged, p, causal),
        ),
    }
    return kinds[name]


NAMES = [name for name in FORMS if name != "math"]


def fused(report: gf.Report) -> tuple[OpCost, OpCost]:
    """The scores computed again, and the backward proper: a capture splits the call."""
    again, proper = report.records
    assert (again.call.op, again.call.overload) == (SCORES, proper.call.op.partition("::")[2])
    assert again.cost is not None
    assert proper.cost is not None
    return again.cost, proper.cost


def counted(name: str, causal: bool, p: float) -> gf.Report:
    op, args = arguments(name, causal, p)
    return count_call(op.default, *args, out=(q, k, v))


def backward(name: str, causal: bool, p: float) -> OpCost:
    return fused(counted(name, causal, p))[1]


def scores(name: str, causal: bool) -> OpCost:
    return fused(counted(name, causal, 0.0))[0]


def composite(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, **options: Any) -> torch.Tensor:
    out: torch.Tensor = aten._scaled_dot_product_attention_math(q, k, v, **options)[0]
    return out


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("causal", "p"), [(False, 0.0), (True, 0.0), (True, 0.1)])
def test_every_form_costs_what_the_composite_backward_costs(
    name: str, causal: bool, p: float
) -> None:
    def attention(*args: torch.Tensor) -> torch.Tensor:
        return composite(*args, dropout_p=p, is_causal=causal)

    expected = oracle.backward(attention, *(meta(*t.shape) for t in (q, k, v)))
    assert expected.stopped <= {"aten::bernoulli_"}
    ours = backward(name, causal, p)
    assert 2 * ours.macs == expected.contractions == 2 * B * H * L * S * 2 * (D + DV)
    assert (ours.flops, ours.transcendentals) == (expected.flops, expected.transcendentals)


@pytest.mark.parametrize("name", NAMES)
def test_what_a_causal_mask_hides_is_hidden_in_each_product(name: str) -> None:
    offset = S - L if name in BOTTOM_RIGHT else 0
    hidden = sum(j > i + offset for i in range(L) for j in range(S))
    # dP and dV with D_v columns, dQ and dK with D; the scores with D.
    assert backward(name, True, 0.0).flops_masked == 2 * B * H * hidden * 2 * (D + DV)
    assert scores(name, True).flops_masked == 2 * B * H * hidden * D
    assert backward(name, False, 0.0).flops_masked == scores(name, False).flops_masked == 0


@pytest.mark.parametrize("name", NAMES)
def test_scores_computed_again_are_one_product_and_move_nothing(name: str) -> None:
    cost = scores(name, False)
    n = B * H * L * S
    # Q and K scaled; the logsumexp subtracted, exp.
    assert (cost.macs, cost.transcendentals) == (n * D, n)
    assert cost.flops == 2 * n * D + B * H * (L + S) * D + 2 * n
    assert (cost.bytes_read, cost.bytes_written) == (0, 0)
    # A mask is added to each.
    assert scores(name, True).flops == cost.flops + n


def test_forward_and_backward_have_the_products_of_a_composite_run() -> None:
    inputs = [meta(*t.shape).requires_grad_() for t in (q, k, v)]
    with FlopCounterMode(display=False) as counter:
        out = F.scaled_dot_product_attention(inputs[0], inputs[1], inputs[2])
        torch.autograd.grad(out, inputs, meta(*out.shape))
    forward = FORMS["flash"](False, 0.0)
    assert 2 * (forward.macs + backward("flash", False, 0.0).macs) == counter.get_total_flops()


def test_keys_shared_by_query_heads_are_summed_in_the_backward() -> None:
    few_k, few_v = meta(B, 2, S, D), meta(B, 2, S, DV)
    op = aten._scaled_dot_product_flash_attention_backward.default
    report = count_call(
        op,
        *(meta(B, H, L, DV), q, few_k, few_v, meta(B, H, L, DV), lse, None, None, L, S, 0.0, False),
        *(seed, seed),
        out=(q, few_k, few_v),
    )
    expected = oracle.backward(
        lambda *a: composite(*a, enable_gqa=True), meta(B, H, L, D), few_k, few_v
    )
    ours = fused(report)[1]
    assert (2 * ours.macs, ours.flops) == (expected.contractions, expected.flops)


def test_a_sliding_window_hides_as_much_in_the_backward_as_twice_in_the_forward() -> None:
    args = [meta(1, 7, 1, 8, dtype=torch.float16) for _ in range(4)]
    report = count_call(
        aten._flash_attention_backward.default,
        *(*args, args[0], meta(1, 1, 7), None, None, 7, 7, 0.0, False, seed, seed),
        out=tuple(args[:3]),
        window_size_left=2,
        window_size_right=0,
    )
    hidden = sum(not i - 2 <= j <= i for i in range(7) for j in range(7))
    assert fused(report)[1].flops_masked == 2 * hidden * 2 * (8 + 8)


@pytest.mark.parametrize("name", NAMES)
def test_torch_counts_the_five_products_of_a_fused_backward(name: str) -> None:
    op, args = arguments(name, False, 0.0)
    calls = [record.call for record in counted(name, False, 0.0).records]
    costs = [price(call, conventions.get("torch")).cost for call in calls]
    five = sum(cost.flops for cost in costs if cost is not None)
    assert five == 2 * B * H * L * S * (3 * D + 2 * DV)
    # Its formulas for the kernels beneath suppose that values are as wide as queries.
    if op in flop_registry and name in {"flash", "efficient", "cudnn"}:
        assert five == flop_registry[op](*args, out_val=None)


def test_flex_attention_backward_is_dense() -> None:
    sizes = {
        "query": TensorMeta((B, H, L, D)),
        "key": TensorMeta((B, H, S, D)),
        "value": TensorMeta((B, H, S, DV)),
    }
    cost = price(OpCall(op="higher_order::flex_attention_backward", inputs=sizes), exact()).cost
    assert cost is not None
    assert cost.flops == backward("efficient", False, 0.0).flops
    assert count(composite, q, k, v).macs * 2 == cost.macs
