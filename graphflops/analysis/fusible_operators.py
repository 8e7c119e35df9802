"""Operators that a compiler fuses, by what it can do with them."""

from __future__ import annotations

from enum import Enum

from graphflops.core.cost import OpCost
from graphflops.core.ir import OpCall, TensorMeta

# Those that torch tags as pointwise, and copies, dropout and backwards that it does not tag.
_POINTWISE = """
    abs acos acosh add addcdiv addcmul angle asin asinh atan atan2 atanh bitwise_and
    bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp
    clamp_max clamp_min clip clone conj_physical copysign cos cosh deg2rad digamma div elu eq erf
    erfc erfinv exp exp2 expm1 floor fmax fmin fmod frac ge gelu gelu_backward gt hardshrink
    hardsigmoid hardtanh heaviside hypot isfinite isinf isnan ldexp le leaky_relu lerp lgamma log
    log10 log1p log2 logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit
    logit_backward lt masked_fill maximum minimum mish mul nan_to_num native_dropout_backward ne
    neg pow rad2deg reciprocal relu relu6 remainder round rsqrt rsub selu sgn sigmoid
    sigmoid_backward sign signbit silu silu_backward sin sinc sinh softplus softshrink sqrt square
    sub tan tanh tanh_backward threshold threshold_backward true_divide trunc where xlogy
    _to_copy contiguous dropout elu_backward hardsigmoid_backward hardswish hardswish_backward
    hardtanh_backward leaky_relu_backward mish_backward native_dropout prelu softplus_backward to
"""
_CONTRACTIONS = """
    addbmm addmm addmv baddbmm bmm convolution dot einsum linear matmul mm mv
"""
_REDUCTIONS = """
    _log_softmax _log_softmax_backward_data _native_batch_norm_legit _safe_softmax _softmax
    _softmax_backward_data all amax amin any argmax argmin batch_norm cudnn_batch_norm
    cudnn_batch_norm_backward group_norm layer_norm log_softmax logsumexp mean native_batch_norm
    native_batch_norm_backward native_group_norm native_group_norm_backward native_layer_norm
    native_layer_norm_backward norm nll_loss_forward prod rms_norm softmax std std_mean sum var
    var_mean linalg_vector_norm _fused_rms_norm _fused_rms_norm_backward mse_loss
"""


class Fusibility(Enum):
    """Kind of operator, by the kernels that a compiler makes of it."""

    POINTWISE = "pointwise"
    CONTRACTION = "contraction"
    REDUCTION = "reduction"
    NONE = "none"


_BY_NAME = {
    **dict.fromkeys(_POINTWISE.split(), Fusibility.POINTWISE),
    **dict.fromkeys(_CONTRACTIONS.split(), Fusibility.CONTRACTION),
    **dict.fromkeys(_REDUCTIONS.split(), Fusibility.REDUCTION),
}


def fusibility(call: OpCall, cost: OpCost) -> Fusibility:
    """Return what a compiler can do with a call.

    A call is left as it is if it moves other bytes than its inputs and outputs once each (a
    lookup), or writes into a part of a tensor.

    Example:
        >>> x = TensorMeta((2, 3), name="x")
        >>> call = OpCall(op="aten::relu", inputs={"self": x}, outputs=(x,))
        >>> fusibility(call, OpCost(bytes_read=24, bytes_written=24))
        <Fusibility.POINTWISE: 'pointwise'>
        >>> fusibility(call, OpCost(bytes_read=12, bytes_written=24))
        <Fusibility.NONE: 'none'>
    """
    name = call.op.rpartition("::")[2]
    found = _BY_NAME.get(name) or _BY_NAME.get(name.removesuffix("_"), Fusibility.NONE)
    if found is Fusibility.NONE or len(call.writes) > 1:
        return Fusibility.NONE
    written = [tensor for argument, tensor in call.tensors() if argument in call.writes]
    if any(tensor.storage for tensor in written):
        return Fusibility.NONE
    if cost.bytes_read != sum(t.nbytes for t in distinct_inputs(call).values()):
        return Fusibility.NONE
    if cost.bytes_written != sum(tensor.nbytes for tensor in call.outputs):
        return Fusibility.NONE
    return found


def distinct_inputs(call: OpCall) -> dict[object, TensorMeta]:
    """Return the tensors that a call reads, each once: ``x * x`` reads x once."""
    return {tensor.name or id(tensor): tensor for name, tensor in call.tensors() if name != "out"}
