"""Lists of tensors in one call, as optimizers use them: each tensor costs what it costs alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphflops.core.cost import Dim, OpCost
from graphflops.pricing.memory_traffic import overwrite_target, read_all_write_all, write_only
from graphflops.pricing.registry import free, register

from ._shapes import contraction, reduced
from .reduction import norm

if TYPE_CHECKING:
    from collections.abc import Callable

    from graphflops.core.ir import TensorMeta

    Tensors = tuple[TensorMeta, ...]


def _elements(tensors: Tensors) -> Dim:
    return sum((tensor.numel for tensor in tensors), start=0)


def per_tensor(
    formula: str, flops: int, transcendentals: int = 0, *, complex_flops: int | None = None
) -> Callable[..., OpCost]:
    """A handler that charges a constant per element of every tensor in ``self``."""

    def handler(self: Tensors) -> OpCost:
        n = _elements(self)
        per = complex_flops if complex_flops and self and self[0].is_complex else flops
        return OpCost(flops=per * n, transcendentals=transcendentals * n)

    split = f", {transcendentals} of them transcendental" if transcendentals else ""
    handler.__doc__ = f"{formula}: {flops} FLOPs per element{split}."
    return handler


def _register(names: tuple[str, ...], handler: Callable[..., OpCost]) -> None:
    register(*(f"aten::_foreach_{name}" for name in names))(handler)


_register(("add", "sub", "neg"), per_tensor("An addition or negation", 1, complex_flops=2))
_register(("mul",), per_tensor("A multiplication", 1, complex_flops=6))
_register(("div", "reciprocal"), per_tensor("A division", 1, complex_flops=11))
_register(
    ("abs", "ceil", "floor", "maximum", "minimum", "round", "sign", "trunc"),
    per_tensor("One arithmetic operation or comparison", 1),
)
_register(
    (
        *("acos", "asin", "atan", "cos", "cosh", "erf", "erfc", "exp", "expm1", "lgamma", "log"),
        *("log10", "log1p", "log2", "rsqrt", "sin", "sinh", "sqrt", "tan", "tanh"),
    ),
    per_tensor("One elementary function", 1, 1),
)
_register(("sigmoid",), per_tensor("1 / (1 + exp(-x)): neg, exp, add, div", 4, 1))
_register(("frac",), per_tensor("x - trunc(x)", 2))
_register(("clamp_max", "clamp_min"), per_tensor("A NaN test and a comparison", 2))
_register(("addcdiv", "addcmul"), per_tensor("self + value * tensor1 * tensor2 (or /)", 3))
_register(("lerp",), per_tensor("self + weight * (end - self)", 3))


@register("aten::_foreach_lerp.List")
def lerp_lists(self: Tensors, weights: Tensors) -> OpCost:
    """As ``lerp``: 3 FLOPs per element, and 3 per weight, which is compared with 1/2 first."""
    return OpCost(flops=3 * (_elements(self) + _elements(weights)))


@register("aten::_foreach_add.List", "aten::_foreach_sub.List")
def add_lists(self: Tensors, other: Tensors, alpha: object) -> OpCost:
    """self + alpha * other: 1 FLOP per element, and 1 per element of ``other`` to scale it."""
    scaled = 0 if alpha == 1 else _elements(other)
    per = 2 if self and self[0].is_complex else 1
    return OpCost(flops=per * (_elements(self) + scaled))


@register("aten::_foreach_pow")
def power(self: object, exponent: object) -> OpCost:
    """As ``pow``: 1 FLOP per element, transcendental unless the exponent is the number 2."""
    lists = [each for each in (self, exponent) if isinstance(each, tuple)]
    n = _elements(lists[0])
    return OpCost(flops=n, transcendentals=0 if exponent == 2 else n)


@register("aten::_foreach_norm")
def norms(self: Tensors, ord: float) -> OpCost:
    """The vector norm of each tensor, as ``linalg_vector_norm``."""
    return sum((norm(tensor.numel, 1, ord) for tensor in self), start=OpCost())


@register("aten::_foreach_max")
def maxima(self: Tensors) -> OpCost:
    """The maximum of each tensor: n - 1 comparisons."""
    return OpCost(flops=sum((reduced(tensor.numel, 1) for tensor in self), start=0))


@register("aten::_foreach_powsum")
def power_sums(self: Tensors, ord: float) -> OpCost:
    """sum |x|^p of each tensor: as its norm of order p, without the root."""
    return sum((_powsum(tensor.numel, ord) for tensor in self), start=OpCost())


def _powsum(n: Dim, p: float) -> OpCost:
    # The root of order 1/2 is a square.
    whole, root = norm(n, 1, p), OpCost(flops=1, transcendentals=0 if p == 0.5 else 1)
    if p in {0, 1}:
        return whole
    return OpCost(
        flops=whole.flops - root.flops,
        transcendentals=whole.transcendentals - root.transcendentals,
    )


@register("aten::_foreach_mm")
def products(self: Tensors, *, out: Tensors | TensorMeta) -> OpCost:
    """A matrix product for each pair, (M, K) @ (K, N): MACs = M * K * N each."""
    results = out if isinstance(out, tuple) else (out,)
    pairs = zip(self, results, strict=True)
    return sum((contraction(o.numel * a.shape[-1], o) for a, o in pairs), start=OpCost())


free(
    "aten::_foreach_clone",
    reason="copy: elements are moved, none is computed",
    traffic=read_all_write_all,
)
free("aten::_foreach_zero", reason="fill: constants are written", traffic=write_only)
free("aten::_foreach_copy", reason="copy into existing tensors", traffic=overwrite_target)
