"""The ``calflops`` convention: FLOPs and MACs of published calflops reports.

calflops wraps Python callables: functions of ``torch.nn.functional``, a few of ``torch``, and
the operators ``*``, ``+`` and ``/``. It does not see ATen, so the price of an operator depends
on the Python callable: ``F.softmax(x)`` is counted and ``x.softmax()`` is not. A composite
function of ``torch.nn.functional`` is counted by the wrapped functions that it calls.

FLOPs are 2 for each multiply-accumulate of linear layers, convolutions and ``matmul``, plus
the bias of a convolution, plus rough figures for norms (5 per element) and activations (1).
``*``, ``+`` and ``/`` cost the product of the larger sizes, **aligned on the left**:
``weight[H] * x[1, T, H]`` is H * T * H. Integers count like any other. MACs come from linear,
conv and the matrix products only. Backward is 2 x forward.

It follows the reports, which include Python operators. The current package, 0.3.2 on PyTorch
2.13, does not: the interpreter calls ``x * y``, ``x @ y`` and ``x + y`` without the wrapped
methods. In-place operators (``+=``, ``add_``) are in neither: the published ResNet-50, 8.2111
GFLOPs, lacks the additions of its residuals.

The graph does not distinguish ``torch.conv2d`` from ``F.conv2d`` (likewise ``avg_pool1d``,
``prelu`` and others that are one object under two names), an operator from the method ``mul`` or
``matmul``, ``F.interpolate(size=8)`` from ``size=(8, 8)`` (the package charges 8 FLOPs for the
first; here it is 64), ``F.upsample`` from ``F.interpolate`` (the package counts the first
twice).

Source: calflops 0.3.2, ``pytorch_ops.py``, and two published reports.
"""

from __future__ import annotations

from functools import partial
from itertools import zip_longest
from math import prod
from typing import cast

import sympy

from graphflops.conventions._einsum import optimized_flops, round_as_printed
from graphflops.conventions._shared import (
    PRODUCTS,
    entry_if_decomposed,
    exact_traffic,
    ignored_entry,
)
from graphflops.conventions.convention import Convention
from graphflops.core.cost import FLOPS_PER_MAC, Dim, OpCost
from graphflops.core.ir import OpCall, TensorMeta
from graphflops.pricing.registry import MANY, Registration, Registry

_F = "function."
_ATTENTION = _F + "multi_head_attention_forward"
_RANKS = (1, 2, 3)

# Wrapped callables by operator, for operators that several callables call. A composite function
# of torch.nn.functional calls the wrapped ones by their global names.
_WRAPPED: dict[str, set[str]] = {
    **{
        op: {_F + op}
        for op in (
            *("elu", "leaky_relu", "relu6", "silu", "einsum"),
            *("batch_norm", "layer_norm", "instance_norm", "group_norm"),
        )
    },
    "relu": {_F + "relu", *(f"{_F}lp_pool{rank}d" for rank in _RANKS)},
    "softmax": {_F + "softmax", _ATTENTION},
    "baddbmm": {"builtin_function_or_method.baddbmm", _ATTENTION},
    **{f"max_pool{n}d": {f"{_F}max_pool{n}d", f"{_F}lp_pool{n}d"} for n in _RANKS},
    **{f"adaptive_max_pool{n}d": {f"{_F}adaptive_max_pool{n}d"} for n in _RANKS},
    **{
        f"adaptive_avg_pool{n}d": {f"{_F}adaptive_avg_pool{n}d", _F + "interpolate"}
        for n in _RANKS[1:]
    },
}
_UNPATCHED_MODULES = {"GELUActivation"}
_HOOKED_MODULES = {"", "RNN", "GRU", "LSTM", "RNNCell", "GRUCell", "LSTMCell"}


def _ignore(call: OpCall) -> Registration | None:
    if (decomposed := entry_if_decomposed(call, "calflops", PRODUCTS)) is not None:
        return decomposed
    reason = _reason_ignored(call)
    return ignored_entry(call.op, reason) if reason else None


def _reason_ignored(call: OpCall) -> str:
    """Return the reason why calflops does not see a call; empty if it does."""
    name = call.op.removeprefix("aten::")
    wrapped = _WRAPPED.get(name.removesuffix("_"))
    if CALFLOPS.lookup_local(call) is None:
        return "not among the callables that calflops wraps"
    if name == "gelu" and call.module_class in _UNPATCHED_MODULES:
        return f"{call.module_class} holds F.gelu from before calflops wrapped it"
    if name in _RNNS and call.module_class not in _HOOKED_MODULES:
        return "calflops counts recurrent layers by their modules"
    if wrapped is None:
        in_place = name.endswith("_")
        return "in place, which calflops sees neither as += nor as a method" if in_place else ""
    if call.torch_function and call.torch_function.removesuffix("_with_indices") not in wrapped:
        return f"called as {call.torch_function}, which calflops does not wrap"
    return ""


CALFLOPS = Registry("calflops", ignores=_ignore, integers=True, sparse=MANY)
CONVENTION = Convention(
    registry=lambda: CALFLOPS,
    unit="half a multiply-accumulate; for what is none, a rough estimate",
    counts="linear (no bias), conv, matmul, norms, F.softmax, activations; * + / as operators",
    omits="fused attention, x.softmax, - ** mean rsqrt, anything in place, embeddings, dropout",
    source="calflops 0.3.2 and two published reports",
)
_register = partial(CALFLOPS.register, traffic=exact_traffic, position_dependent=False)


def _product(macs: Dim, extra: Dim = 0) -> OpCost:
    return OpCost(flops=FLOPS_PER_MAC * macs + extra, macs=macs)


@_register("aten::linear")
def linear(input: TensorMeta, weight: TensorMeta) -> OpCost:
    """2 x MACs, MACs = numel(input) * out_features; no bias."""
    return _product(input.numel * weight.shape[0])


@_register("aten::matmul")
def matmul(self: TensorMeta, other: TensorMeta) -> OpCost:
    """2 x MACs, MACs = numel(left) * last axis of the right."""
    return _product(self.numel * other.shape[-1])


@_register("aten::addmm")
def addmm(self: TensorMeta, mat1: TensorMeta, mat2: TensorMeta) -> OpCost:
    """2 x MACs, plus 1 for each element of what is added, before it is broadcast."""
    return _product(mat1.numel * mat2.shape[-1], self.numel)


@_register("aten::baddbmm")
def baddbmm(self: TensorMeta, batch1: TensorMeta, batch2: TensorMeta) -> OpCost:
    """2 x MACs, plus 1 for each element of what is added; bmm alone is 0."""
    return addmm(self, batch1, batch2)


@_register("aten::einsum")
def einsum(equation: str, tensors: tuple[TensorMeta, ...]) -> OpCost:
    """Optimized FLOPs that numpy.einsum_path prints, to four digits; no MACs."""
    flops = optimized_flops(equation, [tensor.shape for tensor in tensors])
    return OpCost(flops=round_as_printed(flops + 1))


@_register("aten::conv1d", "aten::conv2d", "aten::conv3d")
def conv(
    input: TensorMeta,
    weight: TensorMeta,
    bias: TensorMeta | None,
    stride: object,
    padding: object,
    dilation: object,
    *,
    out: TensorMeta,
) -> OpCost:
    """2 x MACs, plus 1 for each output if there is a bias.

    MACs = batch * numel(weight) * output positions. With padding="same" and an even window
    the package is one position short along the axis.
    """
    positions = prod(out.shape[2:])
    if padding == "same":
        halves = tuple(d * (k - 1) // 2 for d, k in _windows(weight, dilation))
        positions = _positions(input, weight, stride, halves, dilation)
    return _product(
        input.shape[0] * weight.numel * positions,
        0 if bias is None else weight.shape[0] * input.shape[0] * positions,
    )


@_register("aten::conv_transpose1d", "aten::conv_transpose2d", "aten::conv_transpose3d")
def conv_transpose(
    input: TensorMeta,
    weight: TensorMeta,
    bias: TensorMeta | None,
    stride: object,
    padding: object,
    groups: int,
    dilation: object,
) -> OpCost:
    """2 x MACs, plus the bias; the package divides by groups once too often.

    MACs = numel(input) * (channels out for each group // groups) * window. The bias is added
    at as many positions as a convolution that is not transposed would have; the package takes
    less than none for some if the window is larger than the image.
    """
    filters = weight.shape[1] // groups
    macs = input.numel * filters * prod(weight.shape[2:])
    if bias is None:
        return _product(macs)
    positions = _positions(input, weight, stride, padding, dilation)
    return _product(macs, weight.shape[1] * input.shape[0] * positions)


def _positions(
    image: TensorMeta, weight: TensorMeta, stride: object, padding: object, dilation: object
) -> Dim:
    rank = len(weight.shape) - 2
    sizes = zip(
        image.shape[2:],
        _windows(weight, dilation),
        _per_axis(stride, rank),
        _per_axis(padding, rank),
        strict=True,
    )
    counts = [(size + 2 * pad - (d * (k - 1) + 1)) // step + 1 for size, (d, k), step, pad in sizes]
    return prod(max(count, 0) if isinstance(count, int) else count for count in counts)


def _windows(weight: TensorMeta, dilation: object) -> list[tuple[int, Dim]]:
    kernel = weight.shape[2:]
    return list(zip(_per_axis(dilation, len(kernel)), kernel, strict=True))


def _per_axis(value: object, rank: int) -> tuple[int, ...]:
    """Return an argument for each axis; PyTorch accepts one value for all axes."""
    values = cast("tuple[int, ...]", value if isinstance(value, tuple) else (value,))
    return values * rank if len(values) == 1 else values


@_register("aten::mul", "aten::add", "aten::div.Tensor", "aten::div.Scalar")
def elementwise(self: TensorMeta, other: TensorMeta | Dim) -> OpCost:
    """The product of the larger sizes, aligned on the left; a scalar costs the other's numel."""
    if not isinstance(other, TensorMeta):
        return OpCost(flops=self.numel)
    pairs = zip_longest(self.shape, other.shape, fillvalue=1)
    return OpCost(flops=prod(_larger(a, b) for a, b in pairs))


def _larger(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return max(a, b)
    return sympy.Max(a, b)


@_register(
    *(f"aten::{name}" for name in ("relu", "elu", "leaky_relu", "relu6", "silu", "gelu", "prelu")),
    *(f"aten::avg_pool{n}d" for n in _RANKS),
    *(f"aten::max_pool{n}d{form}" for n in _RANKS for form in ("", "_with_indices")),
    *(f"aten::adaptive_max_pool{n}d" for n in _RANKS),
    "aten::softmax",
)
def one_per_element(self: TensorMeta) -> OpCost:
    """1 for each element of the input."""
    return OpCost(flops=self.numel)


@_register(*(f"aten::adaptive_avg_pool{n}d" for n in _RANKS))
def adaptive_avg_pool(self: TensorMeta, output_size: object, call: OpCall) -> OpCost:
    """1 for each element of the input; F.interpolate, which may call it, counts beside it."""
    is_interpolation = call.torch_function == _F + "interpolate"
    interpolation = _interpolation_flops(self, output_size) if is_interpolation else 0
    return OpCost(flops=self.numel + interpolation)


@_register(
    *(
        f"aten::{mode}"
        for mode in ("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
    ),
    *(f"aten::_upsample_nearest_exact{n}d" for n in _RANKS),
    *("aten::upsample_linear1d", "aten::upsample_trilinear3d"),
    *("aten::upsample_bilinear2d", "aten::_upsample_bilinear2d_aa"),
    *("aten::upsample_bicubic2d", "aten::_upsample_bicubic2d_aa"),
)
def interpolate(output_size: object, call: OpCall) -> OpCost:
    """The product of the output's height and width; by a scale, 1 for each input element."""
    _, image = next(call.tensors())
    return OpCost(flops=_interpolation_flops(image, output_size))


def _interpolation_flops(image: TensorMeta, size: object) -> Dim:
    return prod(cast("tuple[Dim, ...]", size)) if isinstance(size, tuple) else image.numel


@_register("aten::layer_norm", "aten::group_norm", "aten::instance_norm")
def norm(input: TensorMeta, weight: TensorMeta | None) -> OpCost:
    """5 for each element, 4 without affine parameters."""
    return OpCost(flops=input.numel * (4 if weight is None else 5))


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


# Gates, and operations for each element of the hidden state beside the products.
_RNNS = {
    **dict.fromkeys(("rnn_tanh", "rnn_relu", "rnn_tanh_cell", "rnn_relu_cell"), (1, 1)),
    **dict.fromkeys(("gru", "gru_cell"), (3, 7)),
    **dict.fromkeys(("lstm", "lstm_cell"), (4, 10)),
}


@_register(*(f"aten::{name}.input" for name in _RNNS if not name.endswith("_cell")))
def rnn(
    input: TensorMeta,
    params: tuple[TensorMeta, ...],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    call: OpCall,
) -> OpCost:
    """For each token, layer and direction the step of a cell; no MACs.

    Both directions take the weights of the first, and tokens are the first two axes.
    """
    directions = 2 if bidirectional else 1
    group = len(params) // num_layers
    steps = (
        _step(call, params[first], params[first + 1], has_biases)
        for first in range(0, num_layers * group, group)
    )
    return OpCost(flops=input.shape[0] * input.shape[1] * directions * sum(steps, start=0))


@_register(*(f"aten::{name}" for name in _RNNS if name.endswith("_cell")))
def cell(
    input: TensorMeta,
    w_ih: TensorMeta,
    w_hh: TensorMeta,
    b_ih: TensorMeta | None,
    call: OpCall,
) -> OpCost:
    """Two products, biases, and 1, 7 or 10 (RNN, GRU, LSTM) for each hidden element; no MACs."""
    return OpCost(flops=input.shape[0] * _step(call, w_ih, w_hh, b_ih is not None))


def _step(call: OpCall, w_ih: TensorMeta, w_hh: TensorMeta, biased: bool) -> Dim:
    count, each = _RNNS[call.op.removeprefix("aten::")]
    rows = w_ih.shape[0]
    products = 2 * w_ih.numel - rows + 2 * w_hh.numel - rows
    return products + each * (rows // count) + (2 * rows if biased else 0)
