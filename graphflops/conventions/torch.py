"""The ``torch`` convention: FLOPs that ``torch.utils.flop_counter.FlopCounterMode`` counts.

It sees ATen operators as they are dispatched, composite ones decomposed, and has formulas for
contractions only. A FLOP is half a multiply-accumulate: 2 x MACs of matrix products,
convolutions and attention, whatever the dtype; no bias, nothing else.

The graph of a forward pass keeps ``linear``, ``conv2d``, attention and recurrent layers whole,
so each contraction costs 2 x the MACs of ``exact`` if it decomposes into operators that
FlopCounterMode has a formula for. Others are 0: products with a vector (``mv``, ``dot``),
``bilinear``, ``cdist``, ``_int_mm`` and weight-only quantized products. As in FlopCounterMode,
an operator without a handler is priced by the formula registered for it.

The convention is FlopCounterMode on meta tensors. On a CPU model FlopCounterMode misses
attention and recurrent layers, whose CPU kernels have no formula; here every kernel is counted
as its meta counterpart.

A sparse matrix is counted as the dense one of its shape. Backward operators are counted
likewise. A fused backward of attention is its four products; the fifth one that its kernel
recomputes, Q K^T, is a call of its own: five together, as FlopCounterMode counts the CUDA
kernels. FlopCounterMode counts the backward of a convolution in g groups as (1 + g) x forward
(pytorch#183405); that bug is not reproduced, each gradient costs as many MACs as the forward.

Source: ``torch/utils/flop_counter.py`` of PyTorch 2.13.
"""

from __future__ import annotations

from graphflops.conventions._shared import as_dense, exact_cost, ignored_entry
from graphflops.conventions.convention import Convention
from graphflops.conventions.exact import exact
from graphflops.core.cost import FLOPS_PER_MAC, OpCost
from graphflops.core.ir import ATTENTION_SCORES, OpCall
from graphflops.pricing.registry import MANY, Registration, Registry

_KERNELS = (
    *("flash_attention", "flash_attention_for_cpu", "efficient_attention", "cudnn_attention"),
    "fused_attention_overrideable",
)
# Operators with a formula in FlopCounterMode, and those that decompose into them on meta tensors.
CONTRACTIONS = (
    *("mm", "addmm", "bmm", "baddbmm", "_scaled_mm"),
    *("linear", "matmul", "inner", "einsum", "tensordot", "cov", "_foreach_mm"),
    *("convolution", "_convolution", "convolution_overrideable", "convolution_backward"),
    *("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    "scaled_dot_product_attention",
    "_scaled_dot_product_attention_math",
    *(f"_scaled_dot_product_{kernel}" for kernel in _KERNELS),
    *(f"_scaled_dot_product_{kernel}_backward" for kernel in _KERNELS),
    *(f"_{kernel}_attention_forward" for kernel in ("flash", "efficient", "cudnn")),
    *(f"_{kernel}_attention_backward" for kernel in ("flash", "efficient", "cudnn")),
    *("lstm", "gru", "rnn_tanh", "rnn_relu", "mkldnn_rnn_layer", "mkldnn_rnn_layer_backward"),
    *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
)


def _ignore(call: OpCall) -> Registration | None:
    if TORCH.lookup_local(call):
        return ignored_entry(call.op, _VECTOR_REASON) if _has_vector_operand(call) else None
    if exact().lookup(call) is None:
        return None  # priced by its registered formula or its decomposition
    return ignored_entry(call.op, "FlopCounterMode has no formula for it")


_VECTOR_REASON = (
    "a product with a vector is mv or dot, and FlopCounterMode has no formula for these"
)


def _has_vector_operand(call: OpCall) -> bool:
    """Return True if a product reduces to a matrix times a vector, or to two vectors."""
    if call.op == "aten::tensordot":
        return [output.numel for output in call.outputs] == [1]
    if call.op not in {"aten::matmul", "aten::linear", "aten::inner"} or not call.inputs:
        return False
    left, right, *_ = (tensor for _, tensor in call.tensors())
    vectors = {len(left.shape) == 1, len(right.shape) == 1}
    # inner of a matrix and a vector is dispatched as a product of matrices.
    return vectors == {True} if call.op == "aten::inner" else len(right.shape) == 1


TORCH = Registry("torch", ignores=_ignore, integers=True, sparse=MANY)
CONVENTION = Convention(
    registry=lambda: TORCH,
    unit="half a multiply-accumulate",
    counts="2 x MACs of matrix products, convolutions, attention and recurrent layers",
    omits="biases, norms, activations, elementwise arithmetic, products with a vector",
    source="torch.utils.flop_counter.FlopCounterMode on meta tensors, PyTorch 2.13",
)


@TORCH.register(
    *(f"aten::{op}" for op in CONTRACTIONS),
    *("higher_order::flex_attention", "higher_order::flex_attention_backward"),
    ATTENTION_SCORES,
    traffic=None,
    position_dependent=False,
)
def contraction(call: OpCall) -> OpCost:
    """2 x the MACs of exact; no bias, and nothing that is no contraction."""
    cost = exact_cost(call)
    macs = cost.macs if (dense := as_dense(call)) is call else exact_cost(dense).macs
    traffic = cost.bytes_read, cost.bytes_written
    return OpCost(flops=FLOPS_PER_MAC * macs, macs=macs).with_bytes(*traffic)
