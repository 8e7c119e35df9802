"""Backward of everything that is no contraction, against PyTorch's decomposition into prims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import oracle
import pytest
import sympy
import torch
import torch.nn.functional as F
from calls import count_call, meta

import graphflops as gf
from graphflops import conventions
from graphflops.core.ir import TensorMeta
from graphflops.pricing.price import price as price_call

aten = torch.ops.aten
MASKS = [(True, True, True), (True, False, False), (False, True, False), (False, False, True)]
PAIRS = [(True, True), (True, False), (False, True)]
x, y = meta(4, 6), meta(4, 6)
row, rows = meta(6), meta(4, 1)
image, c = meta(2, 8, 3, 5), meta(8)
pairs = meta(2, 4)
half = meta(4, 3)
mask = meta(4, 6, dtype=torch.bool)


def price(op: Any, *args: Any, **kwargs: Any) -> gf.Report:
    """The price of one call whose result is asked of meta tensors."""
    return count_call(op, *args, out=op(*args, **kwargs), **kwargs)


def reference(op: Any, *args: Any, asked: tuple[bool, ...] | None = None, **kwargs: Any) -> Any:
    """What the reference computes of the results that are asked for."""

    def wanted(*tensors: torch.Tensor) -> Any:
        given = iter(tensors)
        filled = [next(given) if isinstance(a, torch.Tensor) else a for a in args]
        out = op(*filled, **kwargs)
        return out if asked is None else [o for o, a in zip(out, asked, strict=True) if a]

    return oracle.needed(wanted, *(a for a in args if isinstance(a, torch.Tensor)))


Case = tuple[Any, tuple[Any, ...], dict[str, Any]]
PARAMETERS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("gelu", "silu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "mish"), ()),
    **dict.fromkeys(("logit", "infinitely_differentiable_gelu"), ()),
    "threshold": (0.5,),
    "hardtanh": (-1, 1),
    "leaky_relu": (0.01, False),
    "softplus": (1, 20),
    "log_sigmoid": (x.clone(),),
}
ACTIVATIONS: dict[str, Case] = {
    **{
        name: (getattr(aten, f"{name}_backward").default, (x, y, *parameters), {})
        for name, parameters in PARAMETERS.items()
    },
    "gelu tanh": (aten.gelu_backward.default, (x, y), {"approximate": "tanh"}),
    "softplus beta": (aten.softplus_backward.default, (x, y, 2, 20), {}),
    "logit eps": (aten.logit_backward.default, (x, y, 0.1), {}),
    "elu": (aten.elu_backward.default, (x, 1.5, 1.2, 1.3, False, y), {}),
    "elu of result": (aten.elu_backward.default, (x, 1.5, 1.2, 1.3, True, y), {}),
    "rrelu": (aten.rrelu_with_noise_backward.default, (x, y, x.clone(), 0.1, 0.3, True, False), {}),
    "rrelu off": (
        aten.rrelu_with_noise_backward.default,
        (x, y, x.clone(), 0.1, 0.3, False, False),
        {},
    ),
    "prelu": (aten._prelu_kernel_backward.default, (x, y, meta(1, 6)), {}),
    "glu": (aten.glu_backward.default, (half, x, -1), {}),
    "dropout": (aten.native_dropout_backward.default, (x, mask, 1.25), {}),
    "softmax": (aten._softmax_backward_data.default, (x, y, 0, torch.float32), {}),
    "log_softmax": (aten._log_softmax_backward_data.default, (x, y, 1, torch.float32), {}),
}
FORWARD: dict[str, Case] = {
    "native_dropout": (aten.native_dropout.default, (x, 0.1, True), {}),
    "native_dropout off": (aten.native_dropout.default, (x, 0.1, False), {}),
    "prelu": (aten._prelu_kernel.default, (x, meta(1, 6)), {}),
    "log_sigmoid": (aten.log_sigmoid_forward.default, (x,), {}),
    "safe_softmax": (aten._safe_softmax.default, (x, -1), {}),
    "rms_norm": (aten._fused_rms_norm.default, (x, [6], row, 1e-5), {}),
    "layer_norm": (aten.native_layer_norm.default, (x, [6], row, row.clone(), 1e-5), {}),
    "group_norm": (aten.native_group_norm.default, (image, c, c.clone(), 2, 8, 15, 4, 1e-5), {}),
    "weight_norm": (aten._weight_norm_interface.default, (meta(4, 5, 3), meta(4, 1, 1)), {}),
    **{
        name: (
            getattr(aten, name).default,
            (image, *(c.clone() for _ in range(4)), True, 0.1, 1e-5),
            {},
        )
        for name in ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm")
    },
    "_native_batch_norm_legit_functional": (
        aten._native_batch_norm_legit_functional.default,
        (image, *(c.clone() for _ in range(4)), True, 0.1, 1e-5),
        {},
    ),
    "_native_batch_norm_legit.no_stats": (
        aten._native_batch_norm_legit.no_stats,
        (image, c, c.clone(), True, 0.1, 1e-5),
        {},
    ),
    **{
        name: (
            getattr(aten, name).default,
            (image, *(c.clone() for _ in range(4)), 0.1, 1e-5),
            {},
        )
        for name in ("_batch_norm_with_update", "_batch_norm_with_update_functional")
    },
}


def same(ours: gf.Report, expected: oracle.Traced) -> bool:
    assert not expected.stopped
    return (ours.flops, ours.transcendentals) == (expected.flops, expected.transcendentals)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_backward_equals_the_prims(name: str) -> None:
    op, args, kwargs = ACTIVATIONS[name]
    assert same(price(op, *args, **kwargs), reference(op, *args, **kwargs))


@pytest.mark.parametrize("name", FORWARD)
def test_what_runs_below_autograd_equals_the_prims(name: str) -> None:
    op, args, kwargs = FORWARD[name]
    # All results: running statistics are updated whoever looks.
    assert same(price(op, *args, **kwargs), oracle.count(op, *args, **kwargs))


@pytest.mark.parametrize(
    "name", ["native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm"]
)
def test_batch_norm_in_evaluation_costs_the_same_in_every_form(name: str) -> None:
    statistics = [c.clone() for _ in range(4)]
    ours = price(getattr(aten, name).default, image, *statistics, False, 0.1, 1e-5)
    whole = oracle.count(lambda a, w, b, m, v: F.batch_norm(a, m, v, w, b), image, *statistics)
    below = oracle.count(getattr(aten, name).default, image, *statistics, False, 0.1, 1e-5)
    # 1 / sqrt(var + eps) of 8 channels: a root, its reciprocal and, above autograd, times 1. Later
    # references take rsqrt.
    assert ours.flops == whole.flops + (2 * 8 if oracle.REWRITTEN else 0)
    assert ours.flops == below.flops + (2 * 8 if oracle.REWRITTEN else 8)
    assert ours.transcendentals == whole.transcendentals


def test_dropout_without_a_kernel_costs_in_parts_what_it_costs_whole() -> None:
    drawn = count_call(aten.bernoulli_.float, x, 0.9, out=x)
    scaled, masked = price(aten.div_.Scalar, x, 0.9), price(aten.mul.Tensor, x, y)
    whole = price(aten.native_dropout.default, x, 0.1, True)
    assert drawn.flops + scaled.flops + masked.flops == whole.flops == 3 * 4 * 6
    # What is drawn is written over what was there.
    assert (drawn.bytes_read, drawn.bytes_written) == (0, 4 * 4 * 6)


def layer_norm(weight: bool, bias: bool, asked: Any) -> tuple[Any, ...]:
    affine = (row if weight else None, row.clone() if bias else None)
    return (aten.native_layer_norm_backward.default, x, y, [6], rows, rows.clone(), *affine, asked)


def rms_norm(weight: bool, asked: Any) -> tuple[Any, ...]:
    scale = row if weight else None
    return (aten._fused_rms_norm_backward.default, x, y, [6], rows, scale, asked)


def group_norm(weight: bool, asked: Any) -> tuple[Any, ...]:
    scale = c if weight else None
    sizes = (2, 8, 15, 4)
    g = image.clone()
    op = aten.native_group_norm_backward.default
    return (op, g, image, pairs.expand(2, 4), pairs.clone(), scale, *sizes, asked)


def batch_norm(weight: bool, training: bool, asked: Any) -> tuple[Any, ...]:
    scale = c if weight else None
    op = aten.native_batch_norm_backward.default
    statistics = [c.clone() for _ in range(4)]
    return (op, image.clone(), image, scale, *statistics, training, 1e-5, asked)


NORMS: list[Callable[[], tuple[Any, ...]]] = [
    *(
        lambda w=w, b=b, m=m: layer_norm(w, b, m)
        for w, b in ((True, True), (True, False), (False, False))
        for m in MASKS
        # A gradient is asked for only of what is there.
        if (w or not m[1]) and (b or not m[2])
    ),
    *(lambda w=w, m=m: rms_norm(w, m) for w in (True, False) for m in PAIRS if w or not m[1]),
    *(lambda w=w, m=m: group_norm(w, m) for w in (True, False) for m in MASKS if w or not m[1]),
    *(
        lambda w=w, t=t, m=m: batch_norm(w, t, m)
        for w in (True, False)
        for t in (True, False)
        for m in MASKS
    ),
]


@pytest.mark.parametrize("case", NORMS)
def test_a_norm_backward_equals_what_the_prims_spend_on_what_is_asked(
    case: Callable[[], tuple[Any, ...]],
) -> None:
    op, *args = case()
    ours, expected = price(op, *args), reference(op, *args, asked=args[-1])
    if oracle.REWRITTEN and op is aten.native_group_norm_backward.default and args[-1][0]:
        # db * mean - ds of 2 x 4 groups is written as addcmul(-ds, db, mean), scaled by 1.
        expected = replace(expected, flops=expected.flops - 2 * 4 * 2)
    assert same(ours, expected)


def test_weight_norm_backward_equals_its_composite_form() -> None:
    args = (meta(4, 5, 3), meta(4, 5, 3), meta(4, 1, 1), meta(4, 1, 1))
    expected = oracle.needed(lambda *a: aten._weight_norm_differentiable_backward(*a, 0), *args)
    out = (args[0], args[2])
    assert same(
        count_call(aten._weight_norm_interface_backward.default, *args, 0, out=out), expected
    )


def test_batch_norm_backward_of_several_processes_is_that_of_one_in_two_parts() -> None:
    whole = price(*batch_norm(True, True, (True, True, True)))
    parts = (image, image, c, c.clone(), c.clone())
    reduce = count_call(
        aten.batch_norm_backward_reduce.default, *parts, True, True, True, out=(c, c, c, c)
    )
    rest = count_call(
        aten.batch_norm_backward_elemt.default,
        *(*parts, c, c.clone(), meta(1, dtype=torch.int32)),
        out=image,
    )
    assert reduce.flops + rest.flops == whole.flops


def _symbolic(value: Any, batch: sympy.Symbol) -> Any:
    """An argument with a symbol for every size or number that is 2."""
    if isinstance(value, TensorMeta):
        return replace(value, shape=tuple(batch if s == 2 else s for s in value.shape))
    return batch if type(value) is int and value == 2 else value


def test_a_symbolic_batch_gives_the_concrete_number() -> None:
    batch = sympy.Symbol("B", positive=True, integer=True)
    for case in (
        group_norm(True, (True, True, True)),
        batch_norm(True, True, (True, True, True)),
        (aten.upsample_bilinear2d_backward.default, meta(2, 3, 6, 8), [6, 8], [2, 3, 3, 4], False),
        (aten._adaptive_avg_pool2d_backward.default, meta(2, 3, 4, 4), meta(2, 3, 6, 8)),
        (aten.embedding_dense_backward.default, meta(2, 4, 6), meta(2, 4).long(), 10, -1, False),
        (aten.mse_loss_backward.default, meta(2, 6), meta(2, 6), meta(2, 6), 0),
    ):
        op, *args = case
        call = price(op, *args).records[0].call
        inputs = {n: _symbolic(t, batch) for n, t in call.inputs.items()}
        attrs = {n: _symbolic(a, batch) for n, a in call.attrs.items()}
        outputs = tuple(_symbolic(o, batch) for o in call.outputs)
        free = replace(call, inputs=inputs, attrs=attrs, outputs=outputs)
        known, found = (price_call(each, conventions.exact()).cost for each in (call, free))
        assert known is not None
        assert found is not None
        assert sympy.sympify(found.flops).free_symbols == {batch}
        assert found.subs(B=2) == known
