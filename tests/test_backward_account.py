"""Every backward operator of PyTorch accounted for: priced, coming apart, or out of reach."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from calls import count_call, meta
from test_backward import reference, same

from graphflops import conventions

aten = torch.ops.aten
x, y, row = meta(4, 6), meta(4, 6), meta(6)


def indices(*shape: int) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.int64, device="meta")


mask = meta(4, 6, dtype=torch.bool)
gates = meta(4, 24)
# These are composites: autograd runs their parts, which are what a graph of a backward holds.
# Arguments, result, FLOPs.
COMPOSITE: dict[str, tuple[tuple[Any, ...], Any, int]] = {
    # To an index that is looked up 4 times, its rows of 6; likewise the next four.
    "embedding_backward": ((meta(4, 6), indices(4), 10, -1, False, False), meta(10, 6), 4 * 6),
    "index_select_backward": ((meta(4, 6), [10, 6], 0, indices(4)), meta(10, 6), 4 * 6),
    "gather_backward": ((meta(4, 3), x, 1, indices(4, 3), False), x, 4 * 3),
    "cummaxmin_backward": ((x, y, indices(4, 6), 1), x, 4 * 6),
    "trace_backward": ((torch.empty((), device="meta"), [4, 6]), x, 0),
    "value_selecting_reduction_backward": ((meta(4), 1, indices(4), [4, 6], False), x, 0),
    "masked_select_backward": ((row, x, mask), x, 0),
    # A product with the mask of what was in range.
    "fake_quantize_per_tensor_affine_cachemask_backward": ((x, mask), x, 4 * 6),
    "fake_quantize_per_channel_affine_cachemask_backward": ((x, mask), x, 4 * 6),
    # (2, 3) from 20 points of (2, 3): 2 x 20 x 2 x 3 MACs; 5 columns and 4 rows of the grid, whose
    # numbers are counted back in integers.
    "affine_grid_generator_backward": (
        (meta(2, 4, 5, 2), [2, 3, 4, 5], False),
        meta(2, 2, 3),
        2 * 2 * 20 * 2 * 3 + (5 + 4) * 6,
    ),
}
# Composites whose parts the reference spells out.
SPELT_OUT: dict[str, tuple[tuple[Any, ...], Any]] = {
    "_thnn_differentiable_lstm_cell_backward": (
        (x, y, gates, gates.clone(), None, None, x.clone(), y.clone()),
        (gates, gates, x),
    ),
    "_thnn_differentiable_gru_cell_backward": (
        (x, meta(4, 18), meta(4, 18), y, None, None),
        (meta(4, 18), meta(4, 18), x),
    ),
}
# Composites of many parts, some of them counted unlike the reference: scans, a matrix of blocks.
LARGE = {"cumprod_backward", "matrix_exp_backward"}
_SPARSE = "rare operators on sparse tensors, which are unsupported"
_NESTED = "nested tensors: their sizes are values"
OUT_OF_REACH: dict[str, str] = {
    "_backward": "Tensor.backward itself: it runs autograd, which calls the others",
    **dict.fromkeys(("_nested_select_backward", "_nested_sum_backward"), _NESTED),
    **dict.fromkeys(("_gather_sparse_backward", "embedding_sparse_backward"), _SPARSE),
    **dict.fromkeys(("_embedding_bag_sparse_backward", "_sparse_sum_backward"), _SPARSE),
    **dict.fromkeys(("_sparse_softmax_backward_data", "_sparse_mm_reduce_impl_backward"), _SPARSE),
    **dict.fromkeys(("_sparse_log_softmax_backward_data", "to_dense_backward"), _SPARSE),
    "to_mkldnn_backward": "a layout of oneDNN, which has no strides",
    "_pack_padded_sequence_backward": "composite: it comes apart in slices and copies",
    "cudnn_affine_grid_generator_backward": "cuDNN's own, without a shape rule, as its forward",
    "lstm_mps_backward": "its forward keeps a workspace that only that device knows",
    "glu_backward_jvp": "a derivative of the backward in forward mode",
    "_convolution_double_backward": "a derivative of the backward; it comes apart in convolutions",
}


def backward_operators() -> set[str]:
    names = (name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names())
    return {
        name.removeprefix("aten::")
        for name in names
        if name.startswith("aten::") and "backward" in name
    }


def priced() -> set[str]:
    return {entry.op.partition(".")[0].removeprefix("aten::") for entry in conventions.exact()}


def test_every_backward_operator_is_accounted_for() -> None:
    apart = {*COMPOSITE, *SPELT_OUT, *LARGE}
    assert not backward_operators() - priced() - apart - set(OUT_OF_REACH)
    assert not priced() & (apart | set(OUT_OF_REACH))
    # Lists that outlive their operators say nothing.
    assert apart | set(OUT_OF_REACH) <= backward_operators()
    assert len(OUT_OF_REACH) < 0.12 * len(backward_operators())


@pytest.mark.parametrize("name", sorted({*COMPOSITE, *SPELT_OUT, *LARGE}))
def test_a_composite_comes_apart_below_autograd(name: str) -> None:
    op = getattr(aten, name).default.name()
    assert torch._C._dispatch_has_kernel_for_dispatch_key(op, "CompositeImplicitAutograd")


@pytest.mark.parametrize("name", COMPOSITE)
def test_a_composite_is_priced_through_its_parts(name: str) -> None:
    args, out, flops = COMPOSITE[name]
    report = count_call(getattr(aten, name).default, *args, out=out)
    assert report.complete
    assert report.flops == flops


@pytest.mark.parametrize("name", SPELT_OUT)
def test_a_composite_costs_what_the_reference_spells_out(name: str) -> None:
    args, out = SPELT_OUT[name]
    op = getattr(aten, name).default
    assert same(count_call(op, *args, out=out), reference(op, *args))


def test_a_composite_of_many_parts_is_complete() -> None:
    square = meta(4, 4)
    exponential = count_call(aten.matrix_exp_backward.default, square, square.clone(), out=square)
    product = count_call(aten.cumprod_backward.default, x, y, 1, x.clone(), out=x)
    assert exponential.complete
    assert product.complete
