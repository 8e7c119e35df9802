"""Backward of convolutions and matrix products: against FlopCounterMode where it is right."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from calls import count, count_call, meta
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import graphflops as gf

aten = torch.ops.aten
MASKS = list(itertools.product((True, False), repeat=3))
Asked = tuple[bool, ...]


def backward(
    image: torch.Tensor, weight: torch.Tensor, asked: Asked = (True, True, True), **options: Any
) -> tuple[Any, ...]:
    """Arguments of ``convolution_backward``, the gradient shaped like the forward's result."""
    rank = image.dim() - 2
    per_axis = ([options.get("stride", 1)] * rank, [options.get("padding", 0)] * rank, [1] * rank)
    rest = (options.get("transposed", False), [0] * rank, options.get("groups", 1))
    out = aten.convolution(image, weight, None, *per_axis, *rest)
    return (out, image, weight, [out.shape[1]], *per_axis, *rest, list(asked))


def price(op: Any, *args: Any, out: Any = None) -> gf.Report:
    return count_call(op, *args, out=op(*args) if out is None else out)


def conv(*args: Any, **options: Any) -> gf.Report:
    return price(aten.convolution_backward.default, *backward(*args, **options))


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_convolutions_equal_flop_counter_mode(data: st.DataObject) -> None:
    rank = data.draw(st.integers(1, 3))
    inputs, outputs, kernel = (data.draw(st.integers(1, 3)) for _ in range(3))
    transposed = data.draw(st.booleans())
    channels = (inputs, outputs) if transposed else (outputs, inputs)
    args = backward(
        meta(2, inputs, *(data.draw(st.integers(5, 9)) for _ in range(rank))),
        meta(*channels, *[kernel] * rank),
        data.draw(st.sampled_from(MASKS)),
        stride=data.draw(st.integers(1, 2)),
        padding=data.draw(st.integers(0, 2)) if kernel > 2 else 0,
        transposed=transposed,
    )
    with FlopCounterMode(display=False) as counter:
        aten.convolution_backward.default(*args)
    report = price(aten.convolution_backward.default, *args)
    assert 2 * report.macs == counter.get_total_flops()


@pytest.mark.parametrize("asked", MASKS)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_each_gradient_that_is_asked_for_costs_its_terms(
    asked: Asked, groups: int, transposed: bool
) -> None:
    weight = meta(8, 4 // groups, 3, 3) if not transposed else meta(4, 8 // groups, 3, 3)
    report = conv(meta(2, 4, 6, 6), weight, asked, transposed=transposed, groups=groups)
    # 6 x 6 and a 3 x 3 window: 4 x 4 results of a convolution, 8 x 8 of a transposed one.
    terms = 2 * (6 * 6 if transposed else 4 * 4) * 9 * 4 * 8 // groups
    assert report.macs == (asked[0] + asked[1]) * terms
    results = 2 * 8 * (8 * 8 if transposed else 4 * 4)
    assert report.flops == 2 * report.macs + (results - 8 if asked[2] else 0)


def test_a_depthwise_backward_is_twice_its_forward() -> None:
    image, weight = meta(1, 32, 8, 8), meta(32, 1, 3, 3)
    args = backward(image, weight, padding=1, groups=32)
    forward = 32 * 8 * 8 * 9
    assert price(aten.convolution_backward.default, *args).macs == 2 * forward
    # FlopCounterMode has 32 channels meet 32 in the weight's gradient (pytorch#183405).
    with FlopCounterMode(display=False) as counter:
        aten.convolution_backward.default(*args)
    assert counter.get_total_flops() == 2 * (1 + 32) * forward


def test_a_grouped_backward_is_that_of_its_groups() -> None:
    whole = conv(meta(2, 6, 5, 5), meta(9, 2, 3, 3), groups=3)
    group = conv(meta(2, 2, 5, 5), meta(3, 2, 3, 3))
    assert (whole.macs, whole.flops) == (3 * group.macs, 3 * group.flops)


def test_the_kernels_beneath_cost_what_the_convolution_costs() -> None:
    image, weight, grad = meta(2, 3, 6, 6), meta(8, 3, 3, 3), meta(2, 8, 4, 4)
    whole = conv(image, weight)
    forward = whole.macs // 2
    results = (image, weight, meta(8))
    slow = (grad, image, weight, [3, 3], [1, 1], [0, 0], [True] * 3)
    overrideable = backward(image, weight)
    for op, args in (
        (aten._slow_conv2d_backward.output_mask, slow),
        (
            aten.convolution_backward_overrideable.default,
            (*overrideable[:3], *overrideable[4:]),
        ),
        (
            aten.mps_convolution_backward.default,
            (image, grad, weight, [0, 0], [1, 1], [1, 1], 1, [True] * 3),
        ),
    ):
        report = price(op, *args, out=results)
        assert (report.macs, report.flops) == (whole.macs, whole.flops)
    for op, args in (
        (aten._slow_conv2d_forward.default, (image, weight, [3, 3], meta(8), [1, 1], [0, 0])),
        (aten.slow_conv_dilated2d.default, (image, weight, [3, 3], meta(8))),
        (aten.mkldnn_convolution.default, (image, weight, meta(8), [0] * 2, [1] * 2, [1] * 2, 1)),
    ):
        report = price(op, *args, out=grad)
        assert (report.macs, report.flops) == (forward, 2 * forward + 2 * 8 * 4 * 4)


def test_transposed_kernels_beneath() -> None:
    image, weight, grad = meta(2, 3, 6, 6), meta(3, 8, 3, 3), meta(2, 8, 8, 8)
    whole = conv(image, weight, transposed=True)
    report = price(
        aten.mps_convolution_transpose_backward.default,
        *(image, grad, weight, [0, 0], [0, 0], [1, 1], [1, 1], 1, [True, True]),
        out=(image, weight),
    )
    assert report.macs == whole.macs
    forward = price(aten.slow_conv_transpose2d.default, image, weight, [3, 3], meta(8), out=grad)
    assert (2 * forward.macs, forward.flops - 2 * forward.macs) == (whole.macs, 2 * 8 * 8 * 8)


def test_a_convolution_over_time_first_is_one_over_time_last() -> None:
    x, w, b, grad = meta(7, 2, 4), meta(3, 4, 8), meta(8), meta(5, 2, 8)
    forward = price(aten.conv_tbc.default, x, w, b, 0, out=grad)
    last = count(F.conv1d, meta(2, 4, 7), meta(8, 4, 3), b)
    assert (forward.macs, forward.flops) == (last.macs, last.flops)
    backward = price(aten.conv_tbc_backward.default, grad, x, w, b, 0, out=(x, w, b))
    assert backward.flops == 2 * 2 * forward.macs + 5 * 2 * 8 - 8


@pytest.mark.parametrize("asked", MASKS)
def test_linear_layers_and_products(asked: Asked) -> None:
    x, w, grad = meta(2, 7, 3), meta(5, 3), meta(2, 7, 5)
    terms, bias = 2 * 7 * 3 * 5, 2 * 7 * 5 - 5
    expected = (sum(asked[:2]) * terms, 2 * sum(asked[:2]) * terms + (bias if asked[2] else 0))
    for op in (aten.linear_backward.default, aten.mkldnn_linear_backward.default):
        report = price(op, x, grad, w, list(asked), out=(x, w, meta(5)))
        assert (report.macs, report.flops) == expected
    product = price(
        aten.matmul_backward.default, grad, x, w.t(), list(asked[:2]), out=(x, meta(3, 5))
    )
    assert product.flops == 2 * sum(asked[:2]) * terms


def test_linear_layers_in_parts() -> None:
    x, w, grad = meta(14, 3), meta(5, 3), meta(14, 5)
    whole = price(aten.linear_backward.default, x, grad, w, [True] * 3, out=(x, w, meta(5)))
    first = price(aten.mkldnn_linear_backward_input.default, [14, 3], grad, w, out=x)
    second = price(aten.mkldnn_linear_backward_weights.default, grad, x, w, True, out=(w, meta(5)))
    assert (first.flops + second.flops, first.macs) == (whole.flops, 14 * 3 * 5)
