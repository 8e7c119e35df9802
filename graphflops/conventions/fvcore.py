"""The ``fvcore`` convention: totals of ``fvcore.nn.FlopCountAnalysis``.

**Its FLOP is a multiply-accumulate**: it counts 1 where every other convention counts 2.
``flops`` of a report in this convention are fvcore's numbers, unconverted; ``macs`` is the part
of them in contractions.

It sees the operators of a ``torch.jit`` trace by name and prices those that it has handles for.
Beside contractions it counts some operators without MACs: 5 for each element of a layer or
group norm, 2 for each of a batch norm in evaluation. All others are 0 in its totals: those on
its list of ignored operators silently, the rest named in ``unsupported_ops()``, fused attention
among them. Integer arithmetic counts like any other.

Source: fvcore 0.1.5, ``fvcore/nn/flop_count.py``, ``jit_handles.py`` and ``jit_analysis.py``.
"""

from __future__ import annotations

from functools import partial
from math import prod

from graphflops.conventions._einsum import optimized_flops, round_as_printed
from graphflops.conventions._shared import entry_if_decomposed, exact_traffic, ignored_entry
from graphflops.conventions.convention import Convention
from graphflops.core.cost import Dim, OpCost
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.pricing.registry import MANY, Registration, Registry

IGNORED = {
    *("Int", "ScalarImplicit", "__and__", "arange", "bitwise_not", "cat", "chunk"),
    *("clamp", "clamp_", "constant_pad_nd", "contiguous", "copy_", "detach"),
    *("dropout", "empty", "eq", "expand", "flatten", "floor", "floor_divide", "full"),
    *("full_like", "gather", "ge", "gt", "index", "index_put_", "masked_fill", "max"),
    *("narrow", "new_empty", "new_full", "new_zeros", "nonzero", "ones", "permute"),
    *("relu", "relu_", "remainder", "reshape", "roll", "select", "size", "slice"),
    *("split", "split_with_sizes", "squeeze", "stack", "t", "to", "transpose"),
    *("type_as", "unbind", "unsqueeze", "unsqueeze_", "view", "zeros", "zeros_like"),
}
"""ATen operators that fvcore ignores silently."""


def _ignore(call: OpCall) -> Registration | None:
    name = call.op.removeprefix("aten::")
    if (decomposed := entry_if_decomposed(call, "fvcore")) is not None:
        return decomposed
    if name in IGNORED:
        return ignored_entry(call.op, "on fvcore's list of operators to ignore")
    if name.endswith("_") or FVCORE.lookup_local(call) is None or call.overload == "padding":
        return ignored_entry(call.op, "unsupported by fvcore, which names it and adds 0")
    return None


FVCORE = Registry("fvcore", ignores=_ignore, integers=True, sparse=MANY, flops_per_mac=1)
CONVENTION = Convention(
    registry=lambda: FVCORE,
    unit="a multiply-accumulate, counted once",
    counts="matrix products, conv, einsum, norms, adaptive_avg_pool2d, upsampling in 2-D",
    omits="fused attention, LSTM (named as unsupported), biases, activations, * + /",
    source="fvcore.nn.FlopCountAnalysis, fvcore 0.1.5",
)
_register = partial(FVCORE.register, traffic=exact_traffic, position_dependent=False)


def _macs(macs: Dim) -> OpCost:
    return OpCost(flops=macs, macs=macs)


@_register("aten::linear")
def linear(input: TensorMeta, weight: TensorMeta) -> OpCost:
    """A flop for each multiply-accumulate: numel(input) * out_features; no bias."""
    return _macs(input.numel * weight.shape[0])


@_register("aten::matmul", "aten::mm")
def matmul(self: TensorMeta, call: OpCall) -> OpCost:
    """A flop for each multiply-accumulate: numel(left) * last axis of the right.

    A batch axis that only the right operand has is left out.
    """
    *_, (_, right) = call.tensors()
    return _macs(self.numel * right.shape[-1])


@_register("aten::addmm")
def addmm(mat1: TensorMeta, mat2: TensorMeta) -> OpCost:
    """A flop for each multiply-accumulate, M * K * N; nothing for what is added."""
    return _macs(mat1.numel * mat2.shape[-1])


@_register("aten::lstm_cell", "aten::gru_cell", "aten::rnn_tanh_cell", "aten::rnn_relu_cell")
def cell(input: TensorMeta, w_ih: TensorMeta, w_hh: TensorMeta) -> OpCost:
    """A flop for each multiply-accumulate of the two linear layers a trace takes a cell for.

    Recurrent layers, in contrast, stay whole in a trace and are unsupported.
    """
    return _macs(prod(input.shape[:-1]) * (w_ih.numel + w_hh.numel))


@_register("aten::bmm")
def bmm(self: TensorMeta, mat2: TensorMeta) -> OpCost:
    """A flop for each multiply-accumulate, B * M * K * N."""
    return _macs(self.numel * mat2.shape[-1])


@_register("aten::conv1d", "aten::conv2d", "aten::conv3d")
def conv(weight: TensorMeta, *, out: TensorMeta) -> OpCost:
    """A flop for each multiply-accumulate: batch * numel(weight) * output positions; no bias.

    A trace names it ``_convolution``, and fvcore conv.
    """
    return _macs(out.shape[0] * weight.numel * prod(out.shape[2:]))


@_register("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
def conv_transpose(input: TensorMeta, weight: TensorMeta) -> OpCost:
    """A flop for each multiply-accumulate: batch * numel(weight) * input positions; no bias."""
    return _macs(input.shape[0] * weight.numel * prod(input.shape[2:]))


@_register("aten::einsum")
def einsum(equation: str, tensors: tuple[TensorMeta, ...]) -> OpCost:
    """Half of what numpy.einsum_path prints, to its four digits; two batched forms exactly."""
    flops = optimized_flops(equation, [tensor.shape for tensor in tensors])
    if _canonical(equation) in {"abc,abd->acd", "abc,adc->adb"}:
        return _macs(flops // 2)
    return _macs(round_as_printed(flops + 1) // 2)


def _canonical(equation: str) -> str:
    letters = dict.fromkeys(c for c in equation if c.isalpha())
    return equation.replace(" ", "").translate(
        {ord(letter): ord("a") + i for i, letter in enumerate(letters)}
    )


@_register("aten::layer_norm", "aten::group_norm")
def norm(input: TensorMeta, weight: TensorMeta | None) -> OpCost:
    """5 for each element, 4 without affine parameters."""
    return OpCost(flops=input.numel * (4 if weight is None else 5))


@_register("aten::instance_norm")
def instance_norm(input: TensorMeta, weight: TensorMeta | None) -> OpCost:
    """5 for each element, 4 without affine parameters."""
    return norm(input, weight)


@_register("aten::batch_norm")
def batch_norm(
    input: TensorMeta,
    weight: TensorMeta | None,
    training: bool,
) -> OpCost:
    """2 for each element, 1 without affine parameters; in training 5, or 4."""
    if training:
        return norm(input, weight)
    return OpCost(flops=input.numel * (1 if weight is None else 2))


@_register("aten::adaptive_avg_pool2d")
def adaptive_avg_pool2d(self: TensorMeta) -> OpCost:
    """1 for each element of the input."""
    return OpCost(flops=self.numel)


@_register("aten::upsample_nearest2d")
def upsample_nearest2d(*, out: TensorMeta) -> OpCost:
    """1 for each element of the output."""
    return OpCost(flops=out.numel)


@_register("aten::upsample_bilinear2d", "aten::grid_sampler")
def interpolated(*, out: TensorMeta) -> OpCost:
    """4 for each element of the output."""
    return OpCost(flops=4 * out.numel)
