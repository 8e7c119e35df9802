"""What PyTorch's own reference decomposition into prims says an operator costs.

The function is traced on meta tensors with every decomposition torch ships, down to
``torch._prims``, and each arithmetic prim counts one FLOP per output element. None of
graphflops is used here: it is the independent side of every comparison.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch._prims.context import TorchRefsMode
from torch.fx.experimental.proxy_tensor import make_fx

# Prices are those of the references as torch 2.13 has them; some later ones are written otherwise.
REWRITTEN = torch.__version__ >= "2.14"
# One floating-point operation per output element.
ARITHMETIC = {
    *("add", "sub", "mul", "div", "neg", "abs", "fmod", "remainder", "maximum", "minimum"),
    *("floor", "ceil", "round", "trunc", "sign", "reciprocal", "fmax", "fmin", "nextafter"),
    # Comparisons and tests of floats are operations of IEEE 754.
    *("eq", "ne", "lt", "le", "gt", "ge", "isfinite"),
}
# One floating-point operation per output element, listed apart as XLA does.
TRANSCENDENTAL = {
    *("exp", "exp2", "expm1", "log", "log1p", "log2", "log10", "sqrt", "rsqrt", "cbrt", "pow"),
    *("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh"),
    *("asinh", "acosh", "atanh", "erf", "erfc", "erf_inv", "erfcx", "lgamma", "digamma"),
    *("hypot", "zeta", "ndtri", "bessel_i0", "bessel_i0e", "bessel_i1", "bessel_i1e"),
    *("bessel_j0", "bessel_j1", "spherical_bessel_j0"),
}
# Real operations in a complex one, where they are more than one.
COMPLEX = {"add": 2, "sub": 2, "neg": 2, "mul": 6, "div": 11, "reciprocal": 11}
# n elements reduced to m outputs: n - m operations.
REDUCTION = {"sum", "amax", "amin", "prod"}
# Neither arithmetic nor contraction: selection, integer and boolean logic, conversion,
# layout, creation, random numbers.
FREE = {
    *("where", "bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not", "signbit"),
    *("convert_element_type", "broadcast_in_dim", "transpose", "squeeze", "split_dim", "collapse"),
    *("collapse_view", "iota", "fill", "empty_strided", "empty_permuted", "scalar_tensor", "clone"),
    *("cat", "view_of", "copy_to", "copy_strided", "rev", "as_strided", "slice", "device_put"),
    *("uniform", "_uniform_helper", "normal", "view_element_type", "maximum_value", "svd_free"),
    *("slice_in_dim", "resize", "full", "imag", "real", "reshape", "view_of_dtype"),
}
ATEN_FREE = {
    *("view", "_unsafe_view", "empty", "empty_like", "copy_", "detach", "alias", "lift_fresh_copy"),
    *("index", "slice", "select", "unsqueeze", "squeeze", "permute", "expand", "clone", "cat"),
    *("_to_copy", "as_strided", "split", "split_with_sizes", "unbind", "constant_pad_nd", "gather"),
    *("t", "transpose", "_reshape_alias", "new_empty", "full", "scalar_tensor", "roll", "flip"),
    *("new_zeros", "zeros", "ones", "arange", "repeat", "fill_", "full_like", "empty_permuted"),
    *("rand", "randn", "rand_like", "randn_like", "randint_like", "view_as_real", "squeeze_"),
}
# Reductions that have no prim.
ATEN_REDUCTION = {"max", "min", "argmax", "argmin"}
# Operators that put elements in their places, and the argument that holds these.
SCATTER = {"index_put": 2, "scatter_add": 3}
CONTRACTION = {"mm", "bmm", "addmm", "baddbmm", "mv", "dot", "convolution"}


@dataclass
class Traced:
    """FLOPs and transcendentals of a traced function, and the operators the trace stopped at."""

    flops: int = 0
    transcendentals: int = 0
    contractions: int = 0
    # Elements added to their places (index_put, scatter_add), which no prim spells out.
    scattered: int = 0
    stopped: set[str] = field(default_factory=set)


def count(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Traced:
    """Trace ``fn(*args, **kwargs)`` down to prims and add up what it does."""
    return _added_up(_trace(lambda *a: fn(*a, **kwargs), args))


def needed(fn: Callable[..., Any], *args: Any) -> Traced:
    """As ``count``, of what leads to the results alone."""
    graph = _trace(fn, args)
    graph.graph.eliminate_dead_code()
    return _added_up(graph)


def backward(fn: Callable[..., torch.Tensor], *args: torch.Tensor) -> Traced:
    """What autograd's backward of ``fn(*args)`` costs, all that the forward computed being kept."""
    both, forward = _added_up(_differentiated(fn, args)), _added_up(_trace(fn, args, refs=False))
    return Traced(
        flops=both.flops - forward.flops,
        transcendentals=both.transcendentals - forward.transcendentals,
        contractions=both.contractions - forward.contractions,
        scattered=both.scattered - forward.scattered,
        stopped=both.stopped,
    )


def backward_anew(fn: Callable[..., torch.Tensor], *args: torch.Tensor, wrt: set[int]) -> Traced:
    """What the backward costs that computes from inputs alone, for those in ``wrt``."""
    graph = _differentiated(fn, args, wrt)
    graph.graph.eliminate_dead_code()
    return _added_up(graph)


def _differentiated(
    fn: Callable[..., torch.Tensor], args: tuple[torch.Tensor, ...], wrt: set[int] | None = None
) -> torch.fx.GraphModule:
    chosen = set(range(len(args))) if wrt is None else wrt
    grad = torch.empty_like(fn(*args))

    def gradients(grad: torch.Tensor, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inputs = [t.detach().requires_grad_(i in chosen) for i, t in enumerate(tensors)]
        with torch.enable_grad():
            out = fn(*inputs)
        return torch.autograd.grad(out, [t for t in inputs if t.requires_grad], grad)

    return _trace(gradients, (grad, *args), refs=False)


def _trace(
    fn: Callable[..., Any], args: tuple[Any, ...], *, refs: bool = True
) -> torch.fx.GraphModule:
    # References cannot be differentiated: below autograd the decompositions do the same.
    mode = TorchRefsMode() if refs else contextlib.nullcontext()
    table: Any = decomposition_table
    with warnings.catch_warnings(), torch.no_grad(), mode:
        warnings.simplefilter("ignore")
        return make_fx(fn, decomposition_table=table)(*args)


def _added_up(graph: torch.fx.GraphModule) -> Traced:
    result = Traced()
    for node in graph.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            _add(result, node)
    return result


def _real_operations(node: torch.fx.Node, name: str, value: torch.Tensor) -> int:
    if not value.is_complex():
        return 1
    # Scaling by a real number touches both parts once.
    right: Any = node.args[1] if len(node.args) > 1 else None
    held = right.meta["val"] if isinstance(right, torch.fx.Node) else right
    real = not held.is_complex() if isinstance(held, torch.Tensor) else complex(held or 0).imag == 0
    return 2 if name in {"mul", "div"} and real else COMPLEX.get(name, 1)


def _floating(values: list[Any]) -> bool:
    tensors = [v for v in values if isinstance(v, torch.Tensor)]
    return any(t.is_floating_point() or t.is_complex() for t in tensors)


def _add(result: Traced, node: torch.fx.Node) -> None:
    target: Any = node.target
    namespace, _, name = target._schema.name.partition("::")
    value: Any = node.meta.get("val")
    held = [n.meta.get("val") for n in node.all_input_nodes]
    inputs = [v for v in held if isinstance(v, torch.Tensor)]
    if name in (FREE if namespace == "prims" else ATEN_FREE) or not _floating([*held, value]):
        return
    if namespace == "prims" and name in ARITHMETIC | TRANSCENDENTAL:
        result.flops += value.numel() * _real_operations(node, name, value)
        result.transcendentals += value.numel() * (name in TRANSCENDENTAL)
    elif namespace == "prims" and name in REDUCTION:
        factor = 2 if inputs[0].is_complex() else 1
        result.flops += factor * max(inputs[0].numel() - value.numel(), 0)
    elif namespace == "aten" and name in ATEN_REDUCTION:
        kept = value[0] if isinstance(value, tuple | list) else value
        result.flops += inputs[0].numel() - kept.numel()
    elif namespace == "prims" and name == "var":
        # sum, div, sub, mul, sum, div: (n - m) + m + n + n + (n - m) + m.
        result.flops += 4 * inputs[0].numel()
    elif name in CONTRACTION:
        macs = _contraction_macs(node, name, inputs, value)
        result.contractions += 2 * macs
        # A bias that the operator adds itself: one addition per output.
        biased = name == "convolution" and len(inputs) > 2
        result.flops += 2 * macs + (value.numel() if biased else 0)
    else:
        if name in SCATTER:
            source: Any = node.args[SCATTER[name]]
            result.scattered += source.meta["val"].numel()
        result.stopped.add(f"{namespace}::{name}")


def _contraction_macs(
    node: torch.fx.Node, name: str, inputs: list[torch.Tensor], out: torch.Tensor
) -> int:
    if name == "convolution":
        # A transposed one spreads its input, any other gathers for its output.
        positions = inputs[0] if node.args[6] else out
        return positions.numel() * prod(inputs[1].shape[1:])
    left = inputs[1] if name in {"addmm", "baddbmm"} else inputs[0]
    return out.numel() * left.shape[-1]
